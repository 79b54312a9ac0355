#!/usr/bin/env bash
# fuzz.sh [--keep] [target ...]: every fuzz target (or those named) under libFuzzer, guided by coverage, as many side by side
# as there are cores. Each runs until it has had both KEELSON_FUZZ_SECONDS (600) and KEELSON_FUZZ_RUNS (1000000), or has found
# something. --keep replaces what no finding named in the kept corpus by the smallest set of inputs that reaches the same code.
#
# The stable compiler instruments by itself (LLVM's sancov pass); there is no address sanitizer, and no unsafe code of ours.
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS_MIN=${KEELSON_FUZZ_SECONDS:-600}
RUNS_MIN=${KEELSON_FUZZ_RUNS:-1000000}
keep=no
if [ "${1:-}" = --keep ]; then keep=yes; shift; fi
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
corpus=$PWD/tests/fuzz/corpus
targets=("$@")
if [ ${#targets[@]} = 0 ]; then mapfile -t targets < <(sed -n 's/^ *name: "\(.*\)",$/\1/p' tests/fuzz/src/lib.rs); fi

# Decoders of bytes are guided by the numbers that they compare, too. The input of these targets is a list of damages to a
# whole directory: nothing in it is compared with anything, and watching every comparison would take half of their time.
declare -A guided_by=([wal_scan]=lines [recovery]=lines)

# Only these builds are instrumented, so each has a target folder of its own; --target keeps build scripts out of it. A start
# of the log decodes with code of ours alone: there, counting the lines of every dependency would only take time.
build() { # lines | numbers
  local passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
  local compile=(cargo build -p keelson-fuzz --features libfuzzer --profile fuzz --target "$host")
  local -x CARGO_TARGET_DIR=$TARGET/$1
  if [ "$1" = lines ]; then
    KEELSON_FUZZ_PASSES=$passes RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/instrument.sh "${compile[@]}"
  else
    RUSTFLAGS="$passes -Cllvm-args=-sanitizer-coverage-trace-compares" "${compile[@]}"
  fi
}

binary() { # target
  echo "$TARGET/${guided_by[$1]:-numbers}/$host/fuzz/keelson-fuzz"
}

for guide in $(for target in "${targets[@]}"; do echo "${guided_by[$target]:-numbers}"; done | sort -u); do
  build "$guide"
done

fuzz() { # target [libFuzzer option ...]: one run over its working corpus
  local target=$1 home=$TARGET/run/$1 values=1
  [ "${guided_by[$target]:-numbers}" = numbers ] || values=0
  shift
  KEELSON_FUZZ_TARGET=$target KEELSON_FUZZ_SEEDS=$home/seeds "$(binary "$target")" "$@" -artifact_prefix="$home/finding-" \
    -timeout=60 -rss_limit_mb=1024 -max_len=16384 -use_value_profile=$values -print_final_stats=1 -verbosity=0 \
    "$home/corpus" "$home/seeds" >> "$home/log" 2>&1
}

one() { # target: until both minima are reached; the last line of its result is what is printed
  local target=$1 home=$TARGET/run/$1 begun=$SECONDS runs left
  rm -rf "$home/seeds" "$home/log"
  mkdir -p "$home/corpus" "$home/seeds" "$corpus/$target"
  find "$corpus/$target" -type f -exec cp -t "$home/corpus" {} +
  fuzz "$target" -runs="$RUNS_MIN" || { echo "FINDING in $target: $(ls "$home"/finding-* 2> /dev/null | tr '\n' ' ') see $home/log"; return 1; }
  left=$((SECONDS_MIN - (SECONDS - begun)))
  if [ "$left" -gt 0 ]; then
    fuzz "$target" -max_total_time="$left" || { echo "FINDING in $target: see $home/log"; return 1; }
  fi
  runs=$(awk '/stat::number_of_executed_units/ { sum += $2 } END { print sum }' "$home/log")
  echo "$target: $runs executions in $((SECONDS - begun)) s, $(find "$home/corpus" -type f | wc -l) inputs, no finding"
}

failed=no
running=0
for target in "${targets[@]}"; do
  if [ "$running" -ge "$(nproc)" ]; then
    wait -n || failed=yes
    running=$((running - 1))
  fi
  one "$target" &
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
  wait -n || failed=yes
  running=$((running - 1))
done

if [ $keep = yes ]; then
  for target in "${targets[@]}"; do
    home=$TARGET/run/$target
    rm -rf "$home/small" && mkdir "$home/small"
    KEELSON_FUZZ_TARGET=$target "$(binary "$target")" -merge=1 -use_value_profile=0 "$home/small" "$home/corpus" "$home/seeds" >> "$home/log" 2>&1
    # Findings, which people named, stay; of the rest the smallest 60: what is kept is to be small, too.
    find "$corpus/$target" -type f -regextype posix-extended -regex '.*/([0-9a-f]{40}|seed-[0-9]+)' -delete
    find "$home/small" -type f -size -8k -printf '%s %p\n' | sort -n | head -n 60 | cut -d' ' -f2 | xargs -r cp -t "$corpus/$target"
  done
fi
[ $failed = no ] || { echo "fuzz: FAILED" >&2; exit 1; }
echo "fuzz: ${#targets[@]} targets, no finding"
