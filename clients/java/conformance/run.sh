#!/usr/bin/env bash
# Runs the harness that build.sh has built.
cd "$(dirname "$0")/.."
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "target/classes:target/test-classes:$(cat target/classpath)" com.linksgate.conformance.Harness
