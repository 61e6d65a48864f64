#!/bin/sh
# images.sh PROFILE: one image per part from the built programs. Needs no network: all are FROM scratch.
. "$(dirname -- "$0")/common.sh"
profile=${1:-ci}
built=$TARGET/$TRIPLE/$profile
work=$TARGET/images
rm -rf "$work"
umask 022

# tree IMAGE: root/ belongs to root, owned/ to whoever runs.
tree() {
    mkdir -p "$work/$1/root/etc" "$work/$1/root/tmp" "$work/$1/owned/home"
    chmod 1777 "$work/$1/root/tmp"
    printf 'root:x:0:0:root:/:/sbin/nologin\nplatformer:x:65532:65532:platformer:/home:/sbin/nologin\n' \
        >"$work/$1/root/etc/passwd"
    printf 'root:x:0:\nplatformer:x:65532:\n' >"$work/$1/root/etc/group"
    # Names from /etc/hosts first, then from the resolver.
    printf 'hosts: files dns\n' >"$work/$1/root/etc/nsswitch.conf"
    bundle=/etc/ssl/certs/ca-certificates.crt
    if [ -f "$bundle" ]; then
        mkdir -p "$work/$1/root/etc/ssl/certs"
        cp "$bundle" "$work/$1/root$bundle"
    fi
}

for part in $PARTS; do
    tree "$part"
    cp "$built/$part" "$work/$part/root/$part"
    mkdir -p "$work/$part/owned/data"
    chmod 0750 "$work/$part/owned/data"
done

tree init
cp "$built/platformer" "$work/init/root/platformer"
mkdir -p "$work/init/owned/data"
chmod 0750 "$work/init/owned/data"

tree platformctl
cp "$built/platformctl" "$work/platformctl/root/platformctl"
mkdir -p "$work/platformctl/root/hello-world"
cp "$built/hello-world" "$ROOT/docs/examples/hello-world/platform.toml" "$work/platformctl/root/hello-world/"

tree app-base
mkdir -p "$work/app-base/root/platformer/bin" "$work/app-base/owned/platformer/instance" "$work/app-base/owned/app"
cp "$built/boot" "$work/app-base/root/platformer/bin/boot"
# A shell for scripts, where this machine has a static one (tools.sh sees to it).
if busybox=$(static_busybox); then
    mkdir -p "$work/app-base/root/bin"
    cp "$busybox" "$work/app-base/root/bin/busybox"
    for name in $("$busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$work/app-base/root/bin/$name"
    done
fi

for image in $IMAGES; do
    log=$work/$image.log
    docker build -q --label "io.platformer.image=$image" -t "platformer/$image:$VERSION" -f "$COMPOSE_DIR/images/$image.Dockerfile" "$work/$image" \
        >"$log" 2>&1 || { cat "$log" >&2; die "cannot build the image platformer/$image"; }
done
# What the new ones replaced; what still runs keeps its own.
docker image prune -f --filter label=io.platformer.image >/dev/null
say "images: platformer/{$(printf '%s' "$IMAGES" | tr ' ' ',')}:$VERSION"
