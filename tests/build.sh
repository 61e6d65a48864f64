#!/usr/bin/env bash
# Builds everything that the tests start: the programs as users have them, and once more those with fail points or a
# wall clock (feature `faults` of kit), which go to `ci/faults/` beside the others. Arguments go to cargo (--locked).
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
: "${CARGO_TARGET_DIR:=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/platformer/target}"
export CARGO_TARGET_DIR
programs="$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/ci"
# Those that have points or look at the wall clock.
daemons="controller repository"

# Same directory and profile, so that only our own crates that stand on kit are built twice. The test target, which does
# not stand on kit, is there to make cargo choose the features of all other crates as it does for --all-targets.
cargo build --profile ci --workspace "$@" --features kit/faults --test simulation \
    $(printf -- '--bin %s ' $daemons)
mkdir -p "$programs/faults"
for daemon in $daemons; do
    cmp -s "$programs/$daemon" "$programs/faults/$daemon" || cp -f "$programs/$daemon" "$programs/faults/$daemon"
done
# What stands at the usual place is what was built last: without fail points.
cargo build --profile ci --workspace --all-targets "$@"
