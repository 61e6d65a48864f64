# Sourced by the scripts beside it. POSIX sh.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
COMPOSE_DIR=$ROOT/compose
TARGET=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/platformer/target}
TRIPLE=x86_64-unknown-linux-gnu
VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
PROJECT=platformer
PARTS="dns lb repository controller"
# Programs of the release archive.
PROGRAMS="$PARTS platformctl platformer boot hello-world"
IMAGES="$PARTS init platformctl app-base"
# What the process engine's platform leaves beside the checkout.
DATA=$ROOT/data
PID_FILE=$DATA/platformer.pid
LOG_FILE=$DATA/platformer.log
export PLATFORMER_VERSION=${PLATFORMER_VERSION:-$VERSION}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Whether a Docker Engine answers; the reason it does not is in DOCKER_PROBLEM.
docker_answers() {
    command -v docker >/dev/null 2>&1 || { DOCKER_PROBLEM="docker is not installed"; return 1; }
    if DOCKER_PROBLEM=$(docker version --format '{{.Server.Version}}' 2>&1 >/dev/null); then return 0; fi
    DOCKER_PROBLEM=$(printf '%s' "$DOCKER_PROBLEM" | head -n 1)
    return 1
}

# The path of a busybox that needs no libraries.
static_busybox() {
    path=$(command -v busybox) || return 1
    ldd "$path" >/dev/null 2>&1 && return 1
    printf '%s' "$path"
}

compose_found() {
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null 2>&1
}

compose() {
    # The first generation and the second take the same file; the second is preferred where both are.
    if docker compose version >/dev/null 2>&1; then
        docker compose -p "$PROJECT" -f "$COMPOSE_DIR/compose.yaml" "$@"
    else
        docker-compose -p "$PROJECT" -f "$COMPOSE_DIR/compose.yaml" "$@"
    fi
}

# Asks a question; FORCE=1 answers yes.
sure() {
    [ "${FORCE:-}" = 1 ] && return 0
    printf '%s [y/N] ' "$1" >&2
    read -r answer || die "Not without an answer: say FORCE=1 to go on."
    case "$answer" in
        [yY] | [yY][eE][sS]) ;;
        *) die "Nothing was removed." ;;
    esac
}

# The running process-engine platform's pid; fails when there is none. A pid is believed only with its program's name.
platformer_pid() {
    [ -f "$PID_FILE" ] || return 1
    pid=$(cat "$PID_FILE")
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = platformer ] && printf '%s' "$pid"
}

# Ends the instances of the process engine: each wrote its boot's pid down.
end_processes() {
    for state in $(find "$DATA" -name state.json 2>/dev/null); do
        pid=$(sed -n 's/.*"boot_pid": *\([0-9]*\).*/\1/p' "$state" | head -n 1)
        if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = boot ]; then
            kill -TERM "$pid"
            left=30
            while [ -d "/proc/$pid" ] && [ "$left" -gt 0 ]; do
                left=$((left - 1))
                sleep 1
            done
        fi
    done
}

# Takes instances, their volumes and environment networks away, by label; data of the parts stays.
remove_instances() {
    mine=label=io.platformer.project=$PROJECT
    for id in $(docker ps -aq --filter "$mine"); do docker rm -f -v "$id" >/dev/null; done
    for name in $(docker volume ls -q --filter "$mine"); do docker volume rm "$name" >/dev/null; done
    for id in $(docker network ls -q --filter "$mine"); do
        for member in $(docker network inspect "$id" --format '{{range $k, $v := .Containers}}{{$k}} {{end}}'); do
            docker network disconnect -f "$id" "$member"
        done
        docker network rm "$id" >/dev/null
    done
}
