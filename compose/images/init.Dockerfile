FROM scratch
COPY root/ /
COPY --chown=65532:65532 owned/ /
USER 65532:65532
ENTRYPOINT ["/platformer"]
