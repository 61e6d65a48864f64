#!/bin/sh
# Sees that what the build needs is there: installs it as root where apt-get is, names the exact line otherwise.
. "$(dirname -- "$0")/common.sh"

missing=
command -v make >/dev/null 2>&1 || missing="$missing make"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
if [ -n "$missing" ]; then
    line="apt-get install -y --no-install-recommends$missing"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing:$missing"
        # shellcheck disable=SC2086 -- words on purpose
        { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >&2
    else
        die "missing:$missing. Install with: sudo $line"
    fi
fi

# A shell for scripts in app-base: a static one, which Debian's busybox-static is. Artifacts without scripts do without.
if docker_answers && ! static_busybox >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing: busybox-static"
        { apt-get update -q && apt-get install -y -q --no-install-recommends busybox-static; } >&2 ||
            say "busybox-static could not be installed: the image app-base will have no shell"
    else
        say "no static busybox: the image app-base will have no shell. Install with: sudo apt-get install busybox-static"
    fi
fi

command -v cargo >/dev/null 2>&1 ||
    die "missing: cargo. Install Rust from https://rustup.rs with: curl -sSf https://sh.rustup.rs | sh -s -- -y"
want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
have=$(cargo --version | cut -d' ' -f2)
[ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
    die "cargo is $have, needed is $want or newer. Update with: rustup update stable"
