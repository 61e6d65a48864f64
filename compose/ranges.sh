#!/bin/sh
# Refuses to start when a network of the platform would hide a route of this machine. The controller cannot see these
# routes from within its container.
. "$(dirname -- "$0")/common.sh"
command -v ip >/dev/null 2>&1 || exit 0

# number A.B.C.D: as one number.
number() {
    old=$IFS; IFS=.
    # shellcheck disable=SC2086 -- split at the dots
    set -- $1
    IFS=$old
    echo $((($1 << 24) + ($2 << 16) + (${3:-0} << 8) + ${4:-0}))
}

# overlap NET/PREFIX NET/PREFIX
overlap() {
    bits=${1#*/}
    [ "${2#*/}" -lt "$bits" ] && bits=${2#*/}
    shift_by=$((32 - bits))
    [ $(($(number "${1%/*}") >> shift_by)) -eq $(($(number "${2%/*}") >> shift_by)) ]
}

ip -4 route show | while read -r destination rest; do
    case $destination in
        default | unreachable | blackhole | prohibit) continue ;;
        */*) ;;
        *) destination=$destination/32 ;;
    esac
    device=$(printf '%s' "$rest" | sed -n 's/.*dev \([^ ]*\).*/\1/p')
    # Bridges of the platform itself are not in its way.
    case $device in br-*)
        owner=$(docker network inspect "${device#br-}" --format '{{.Name}}' 2>/dev/null || true)
        case $owner in platformer-*) continue ;; esac
        ;;
    esac
    for ours in "${PLATFORMER_RANGE:-10.210.0.0/16}" 10.209.0.0/24 10.209.1.0/24; do
        if overlap "$ours" "$destination"; then
            die "the platform's range $ours overlaps with the route $destination by $device: choose another, like PLATFORMER_RANGE=10.220.0.0/16 make up (the other two are in compose/compose.yaml)"
        fi
    done
done
