#!/bin/sh
# Takes the platform away with everything it keeps: apps, versions, history.
. "$(dirname -- "$0")/common.sh"

sure "This removes all apps, versions and history of the platform on this machine for ever. Go on?" || exit 1
"$COMPOSE_DIR/down.sh"
if docker_answers && compose_found; then
    COMPOSE_PROFILES=observability compose down --volumes --remove-orphans
    for image in $IMAGES; do docker rmi "platformer/$image:$VERSION" >/dev/null 2>&1 || true; done
    docker image prune -f --filter label=io.platformer.image >/dev/null
fi
end_processes
rm -rf "$DATA"
# Its token is worth nothing any more.
if [ -x "$ROOT/bin/platformctl" ]; then
    "$ROOT/bin/platformctl" --url http://127.0.0.1:8081 context rm local >/dev/null 2>&1 || true
fi
