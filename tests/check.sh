#!/usr/bin/env bash
# `make check`: format, lints, the tidy test (structure, generated files fresh), dependency rules.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
cargo build --workspace --bins
cargo test --workspace --test tidy
if ! cargo deny --version > /dev/null 2>&1; then
  echo "check: installing cargo-deny" >&2
  cargo install --locked --quiet cargo-deny
fi
cargo deny --log-level error check bans licenses sources
# The advisory database is a git repository outside the package registries; where it cannot be had, that is said, not passed over.
if cargo deny --log-level error fetch db 2> /dev/null; then
  cargo deny --log-level error check advisories
else
  echo "check: advisories NOT checked: the advisory database cannot be fetched from here"
fi
echo "check: passed"
