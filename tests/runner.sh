#!/usr/bin/env bash
# What `make test` starts test executables with. Operators on an API server mostly wait, for looks, backoffs and the ends of
# leases, and need hardly any CPU: six of those tests go at once, also on two cores.
set -euo pipefail
case ${1##*/} in
  operator_kube-*) export RUST_TEST_THREADS=6 ;;
esac
exec "$@"
