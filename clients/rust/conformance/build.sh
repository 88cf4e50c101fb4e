#!/usr/bin/env bash
# Builds the harness to $1. Needs Rust. What was compiled is kept in the user's cache.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${XDG_CACHE_HOME:-$HOME/.cache}/linksgate/rust
cargo build --quiet --example harness --target-dir "$target"
cp "$target/debug/examples/harness" "$1"
