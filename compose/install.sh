#!/bin/sh
# Starts the platform from its release archive, on a machine with Docker and compose. Needs no network. Twice is harmless.
set -eu
cd "$(dirname -- "$0")"
docker version >/dev/null 2>&1 || { echo "error: no Docker Engine answers: install and start it, or run as a member of group docker" >&2; exit 1; }
if docker compose version >/dev/null 2>&1; then compose="docker compose"
elif command -v docker-compose >/dev/null 2>&1; then compose=docker-compose
else echo "error: there is no compose. Install with: sudo apt-get install docker-compose" >&2; exit 1; fi
docker load -q -i images.tar
$compose up -d --remove-orphans
left=90
until bin/platformctl status >/dev/null 2>&1; do
    [ "$left" -gt 0 ] || { $compose ps >&2; echo "error: the controller did not answer within 90 s" >&2; exit 1; }
    left=$((left - 1))
    sleep 1
done
code=0
bin/platformctl status hello-world >/dev/null 2>&1 || code=$?
if [ "$code" = 5 ]; then $compose run --rm first-push && $compose run --rm first-app; fi
echo "platform is up: http://127.0.0.1:8080, control it with bin/platformctl"
