#!/bin/sh
# build.sh PROFILE: all programs, statically linked, and platformctl in bin/.
. "$(dirname -- "$0")/common.sh"
profile=${1:-ci}
packages=
for package in $PACKAGES; do packages="$packages -p $package"; done
cd "$ROOT"
# shellcheck disable=SC2086 -- words on purpose
CARGO_TARGET_DIR=$TARGET cargo build --profile "$profile" --bins $packages
mkdir -p "$ROOT/bin"
# Replaced, not written over: it may be running.
cp "$TARGET/$TRIPLE/$profile/platformctl" "$ROOT/bin/platformctl.new"
mv "$ROOT/bin/platformctl.new" "$ROOT/bin/platformctl"
