#!/bin/sh
# Builds the platform and starts it: on Docker, or as one process where no Docker answers. Twice is harmless.
. "$(dirname -- "$0")/common.sh"

"$COMPOSE_DIR/tools.sh"
say "building (the first time takes some minutes)"
"$COMPOSE_DIR/build.sh" ci
built=$TARGET/$TRIPLE/ci

# await LIMIT COMMAND...: until the command succeeds, at most LIMIT seconds.
await() {
    left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}

# Whatever this shell's own settings say: the platform of this machine is meant.
ctl() { env -u PLATFORM_TOKEN_FILE "$ROOT/bin/platformctl" --url http://127.0.0.1:8081 "$@"; }

# 4 is "log in first": it answers.
controller_answers() { ctl status >/dev/null 2>&1 || [ $? = 4 ]; }

up_docker() {
    compose_found || die "docker answers, but there is no compose. Install with: sudo apt-get install docker-compose"
    "$COMPOSE_DIR/ranges.sh"
    "$COMPOSE_DIR/images.sh" ci
    compose up -d --remove-orphans
    await 90 controller_answers || {
        compose ps >&2
        compose logs --tail 20 >&2
        die "the controller did not answer on http://127.0.0.1:8081 within 90 s; its log is above"
    }
    ctl login --docker --container platformer-controller
    id=$(docker ps -aq --filter label=io.platformer.part=first-app --filter "label=com.docker.compose.project=$PROJECT")
    [ "$(docker wait "$id")" = 0 ] || {
        docker logs "$id" >&2
        die "the first app was not deployed; why is above"
    }
}

first_app_process() {
    artifact=$TARGET/hello-world
    rm -rf "$artifact"
    mkdir -p "$artifact"
    cp "$built/hello-world" "$ROOT/docs/examples/hello-world/platform.toml" "$artifact/"
    ctl deploy hello-world 1 --push "$artifact" --first
}

up_process() {
    say "no Docker Engine answers ($1): running everything as processes of this machine, data in $DATA"
    mkdir -p "$DATA"
    if platformer_pid >/dev/null; then
        say "already running (pid $(platformer_pid))"
    else
        cd "$ROOT"
        nohup "$built/platformer" >>"$LOG_FILE" 2>&1 </dev/null &
        echo $! >"$PID_FILE"
    fi
    await 60 controller_answers || {
        tail -n 20 "$LOG_FILE" >&2
        die "the controller did not answer on http://127.0.0.1:8081 within 60 s; its log is $LOG_FILE"
    }
    export PLATFORM_KEYS="$DATA/keys"
    ctl login
    first_app_process
}

if [ "${PLATFORMER_ENGINE:-}" = process ]; then
    up_process "asked for the process engine"
elif docker_answers; then
    up_docker
else
    up_process "$DOCKER_PROBLEM"
fi

say ""
say "platform is up:"
say "  traffic     http://127.0.0.1:8080, https://localhost:8443 (to trust it: bin/platformctl cert trust)"
say "  names       dig @127.0.0.1 -p 1053 hello-world.${PLATFORMER_DOMAIN:-platform}"
say "  control     bin/platformctl status"
