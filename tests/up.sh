#!/bin/sh
# up.sh: the verbs of a checkout where no Docker answers: up twice, the tour's commands, down keeps the data, up again
# brings it back, destroy leaves nothing. Needs the ports 8080, 8443, 8081, 8082 and 1053.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

[ ! -e data ] || fail "$root/data is there: a platform of this checkout has its data in it (make destroy)"
work=$(mktemp -d)
# Logins do not go to whoever runs this.
export PLATFORMER_ENGINE=process XDG_CONFIG_HOME="$work/config"
cleanup() {
    code=$?
    FORCE=1 compose/destroy.sh >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT INT TERM
# greets VERSION
greets() {
    answer=$(curl -fsS http://127.0.0.1:8080/greeting)
    [ "$answer" = "hello from hello-world $1" ] || fail "hello-world $1 is live, the answer is \"$answer\""
}

compose/up.sh
greets 1
bin/platformctl cert trust --out "$work/authority.pem"
curl -fsS --retry 5 --retry-all-errors --retry-delay 1 --cacert "$work/authority.pem" https://localhost:8443/greeting
compose/up.sh
mkdir "$work/hello"
cp bin/hello-world docs/examples/hello-world/platform.toml "$work/hello/"
echo 2 >"$work/hello/version"
bin/platformctl artifact push hello-world 2 "$work/hello"
bin/platformctl deploy hello-world 2
greets 2
compose/down.sh
curl -fsS http://127.0.0.1:8080/greeting >/dev/null 2>&1 && fail "it answers after make down"
compose/up.sh
greets 2
bin/platformctl rollback hello-world
greets 1
FORCE=1 compose/destroy.sh
[ ! -e data ] || fail "make destroy left $root/data"
say "up, down and destroy work without Docker"
