#!/bin/sh
# Stops the platform and its instances; what the parts keep stays, and `make up` brings everything back.
. "$(dirname -- "$0")/common.sh"

if pid=$(platformer_pid); then
    kill -TERM "$pid"
    left=40
    while platformer_pid >/dev/null && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        sleep 1
    done
    if platformer_pid >/dev/null; then die "process $pid does not end; see $LOG_FILE"; fi
    rm -f "$PID_FILE"
    end_processes
    say "stopped with its instances; data is in $DATA"
fi
if docker_answers && compose_found; then
    # The controller first: it would start anew what is taken away here.
    docker rm -f platformer-controller >/dev/null 2>&1 || true
    remove_instances
    # Also what somebody wanted to see it with.
    COMPOSE_PROFILES=observability compose down --remove-orphans
fi
