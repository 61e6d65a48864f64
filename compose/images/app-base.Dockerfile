# What artifacts run in: boot, and a shell where the building machine had one (busybox-static).
# `docker run platformer/app-base APP REPOSITORY` fetches the live release of APP and runs it.
FROM scratch
COPY root/ /
COPY --chown=65532:65532 owned/ /
USER 65532:65532
ENV PATH=/bin HOME=/home
ENTRYPOINT ["/platformer/bin/boot"]
