#!/bin/sh
# dist.sh [PROFILE]: one tar.gz with everything a machine without sources needs: programs, images, compose.yaml, install.sh.
. "$(dirname -- "$0")/common.sh"
profile=${1:-dist}

"$COMPOSE_DIR/tools.sh"
docker_answers || die "the images are built with Docker, which does not answer: $DOCKER_PROBLEM"
"$COMPOSE_DIR/build.sh" "$profile"
"$COMPOSE_DIR/images.sh" "$profile"
name=platformer-$VERSION-$TRIPLE
stage=$TARGET/dist-archive/$name
rm -rf "$stage"
mkdir -p "$stage/bin"
for program in $PROGRAMS; do cp "$TARGET/$TRIPLE/$profile/$program" "$stage/bin/"; done
references=
for image in $IMAGES; do references="$references platformer/$image:$VERSION"; done
# shellcheck disable=SC2086 -- words on purpose
docker save -o "$stage/images.tar" $references
cp "$COMPOSE_DIR/compose.yaml" "$COMPOSE_DIR/install.sh" "$stage/"
cp -r "$COMPOSE_DIR/observability" "$stage/"
printf 'COMPOSE_PROJECT_NAME=%s\nPLATFORMER_VERSION=%s\n' "$PROJECT" "$VERSION" >"$stage/.env"
mkdir -p "$ROOT/bin"
tar -C "$TARGET/dist-archive" --sort=name --owner=0 --group=0 --numeric-owner -czf "$ROOT/bin/$name.tar.gz" "$name"
say "bin/$name.tar.gz ($(du -h "$ROOT/bin/$name.tar.gz" | cut -f1))"
