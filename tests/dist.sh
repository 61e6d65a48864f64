#!/bin/sh
# dist.sh [PROFILE]: the release archive, unpacked in an empty directory and installed as a person without cargo would:
# the whole platform under 512 MiB, the first app live, nothing killed for memory, twice harmless. Needs Docker, and the
# ports 8080, 8443, 8081, 8082 and 1053. Takes everything away in the end.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

if docker ps -aq --filter label=com.docker.compose.project=platformer | grep -q .; then
    fail "a platform is on this machine already: its containers would be replaced (make destroy)"
fi
"$root/compose/dist.sh" "${1:-dist}"
place=$(mktemp -d)
cleanup() {
    code=$?
    FORCE=1 "$root/compose/destroy.sh" >/dev/null 2>&1 || true
    rm -rf "$place"
    exit "$code"
}
trap cleanup EXIT INT TERM
tar -xzf "$root"/bin/platformer-*.tar.gz -C "$place"
cd "$place"/platformer-*
# Nothing of this machine's own settings.
export HOME="$place" PATH="/usr/local/bin:/usr/bin:/bin"
./install.sh
./install.sh

answer=$(curl -fsS http://127.0.0.1:8080/greeting)
[ "$answer" = "hello from hello-world 1" ] || fail "the first app answers \"$answer\""
bin/platformctl cert trust --out authority.pem
curl -fsS --retry 5 --retry-all-errors --retry-delay 1 --cacert authority.pem https://localhost:8443/greeting
bin/platformctl status hello-world
sum=0
# Of this platform alone: others may run on the same engine.
running=$(docker ps -q --filter label=com.docker.compose.project=platformer
    docker ps -q --filter label=io.platformer.project=platformer)
for id in $running; do
    limit=$(docker inspect --format '{{.HostConfig.Memory}}' "$id")
    [ "$limit" -gt 0 ] || fail "$(docker inspect --format '{{.Name}}' "$id") has no memory limit"
    [ "$(docker inspect --format '{{.State.OOMKilled}}' "$id")" = false ] || fail "$id was killed for memory"
    sum=$((sum + limit))
done
say "memory limits of all that runs: $((sum / 1048576)) MiB"
[ "$sum" -le $((512 * 1048576)) ] || fail "more than 512 MiB"
say "the archive installs, runs and stays below 512 MiB"
