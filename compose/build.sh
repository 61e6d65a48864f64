#!/bin/sh
# build.sh PROFILE: all programs, statically linked, and platformctl in bin/.
. "$(dirname -- "$0")/common.sh"
profile=${1:-ci}
cd "$ROOT"
CARGO_TARGET_DIR=$TARGET cargo build --profile "$profile" --workspace --bins --locked
mkdir -p "$ROOT/bin"
# Replaced, not written over: it may be running.
cp "$TARGET/$TRIPLE/$profile/platformctl" "$ROOT/bin/platformctl.new"
mv "$ROOT/bin/platformctl.new" "$ROOT/bin/platformctl"
