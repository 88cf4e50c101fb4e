#!/usr/bin/env bash
# Builds the client and its harness into target/. Needs a JDK and Maven.
set -euo pipefail
cd "$(dirname "$0")/.."
mvn -q -B test-compile org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath -Dmdep.outputFile=target/classpath
