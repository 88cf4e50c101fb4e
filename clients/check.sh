#!/usr/bin/env bash
# What must hold of the clients beside the suite: generated code is what the protos give, types and style are checked.
# Needs Python, Node, a JDK with Maven, Rust, Go and git.
set -euo pipefail
cd "$(dirname "$0")"

for language in python typescript rust; do
  "$language/generate.sh" >/dev/null
done
git diff --exit-code -- python typescript rust
test -z "$(git status --porcelain -- python typescript rust)"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/linksgate
environment=$cache/python-$(sha256sum python/pyproject.toml | cut -c -16)
if [ ! -e "$environment/complete" ]; then
  python3 -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check 'mypy==1.18.2' 'ruff==0.14.5' types-protobuf types-grpcio ./python
  touch "$environment/complete"
fi
(
  cd python
  "$environment/bin/mypy"
  "$environment/bin/ruff" check src tests conformance examples
  "$environment/bin/ruff" format --check src/linksgate/*.py tests conformance examples
  PYTHONPATH=src "$environment/bin/python" -m unittest discover --start-directory tests
)

(cd typescript && npx tsc --noEmit && npm pack --dry-run >/dev/null 2>&1)
(cd java && mvn -q -B compile org.apache.maven.plugins:maven-javadoc-plugin:3.11.2:javadoc -Ddoclint=all,-missing -DfailOnWarnings=true \
  -DsourceFileExcludes='com/linksgate/v1/*')
(
  cd rust
  export CARGO_TARGET_DIR=$cache/rust
  cargo fmt --check
  cargo clippy --quiet --examples -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
  cargo test --quiet --doc
)
