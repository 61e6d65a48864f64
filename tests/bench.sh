#!/bin/sh
# bench.sh [SECTION...]: builds everything as it is released and measures it; docs/benchmarks.md takes the numbers.
# The peers are Debian's: nginx-light haproxy wrk nghttp2-client nsd dnsmasq-base dnsperf docker-registry, and cmake to
# build one. As root they are installed.
. "$(dirname -- "$0")/../compose/common.sh"

peers="nginx haproxy wrk h2load cmake nsd dnsmasq dnsperf docker-registry"
packages=
for peer in $peers; do
    command -v "$peer" >/dev/null 2>&1 && continue
    case $peer in
    nginx) packages="$packages nginx-light" ;;
    h2load) packages="$packages nghttp2-client" ;;
    dnsmasq) packages="$packages dnsmasq-base" ;;
    *) packages="$packages $peer" ;;
    esac
done
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing:$packages"
        # None of them is to run as a service of this machine.
        # shellcheck disable=SC2086 -- words on purpose
        { apt-get update -q && RUNLEVEL=1 apt-get install -y -q --no-install-recommends $packages; } >&2
    else
        say "not measured beside:$packages. Install with: sudo apt-get install$packages"
    fi
fi
"$COMPOSE_DIR/tools.sh"
"$COMPOSE_DIR/build.sh" dist
exec "$TARGET/$TRIPLE/dist/bench" "$@"
