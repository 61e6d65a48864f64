#!/bin/sh
# Starts the platform from its release archive, on a machine with Docker and compose. Needs no network. Twice is harmless.
set -eu
cd "$(dirname -- "$0")"
fail() { echo "error: $*" >&2; exit 1; }

docker version >/dev/null 2>&1 || fail "no Docker Engine answers: install and start it, or run as a member of group docker"
if docker compose version >/dev/null 2>&1; then compose="docker compose"
elif command -v docker-compose >/dev/null 2>&1; then compose=docker-compose
else fail "there is no compose. Install with: sudo apt-get install docker-compose"; fi

docker load -q -i images.tar
$compose up -d --remove-orphans
# Whatever this shell's own settings say: the platform of this machine is meant.
ctl() { env -u PLATFORM_TOKEN_FILE -u PLATFORM_KEYS bin/platformctl --url http://127.0.0.1:8081 "$@"; }
# 4 is "log in first": the controller answers.
left=90
until ctl status >/dev/null 2>&1 || [ $? = 4 ]; do
    [ "$left" -gt 0 ] || { $compose ps >&2; fail "the controller did not answer within 90 s"; }
    left=$((left - 1))
    sleep 1
done
ctl login --docker --container platformer-controller
first=$(docker ps -aq --filter label=io.platformer.part=first-app --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-platformer}")
code=$(docker wait "$first")
[ "$code" = 0 ] || { docker logs "$first" >&2; fail "the first app was not deployed; why is above"; }
echo "platform is up: http://127.0.0.1:8080, control it with bin/platformctl"
