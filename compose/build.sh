#!/bin/sh
# build.sh PROFILE: all programs, statically linked; platformctl and the example app in bin/.
. "$(dirname -- "$0")/common.sh"
profile=${1:-ci}
cd "$ROOT"
CARGO_TARGET_DIR=$TARGET cargo build --profile "$profile" --workspace --bins --locked
mkdir -p "$ROOT/bin"
for program in platformctl hello-world; do
    # Replaced, not written over: it may be running.
    cp "$TARGET/$TRIPLE/$profile/$program" "$ROOT/bin/$program.new"
    mv "$ROOT/bin/$program.new" "$ROOT/bin/$program"
done
