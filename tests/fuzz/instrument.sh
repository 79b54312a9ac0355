#!/usr/bin/env bash
# instrument.sh RUSTC ARGUMENT...: the compiler of the workspace's own crates in `tests/fuzz.sh`. Adds KEELSON_FUZZ_PASSES to what
# is compiled for the target, and nothing to build scripts and macros.
set -euo pipefail
read -ra passes <<< "$KEELSON_FUZZ_PASSES"
for argument in "$@"; do
  if [ "$argument" = --target ]; then
    exec "$@" "${passes[@]}"
  fi
done
exec "$@"
