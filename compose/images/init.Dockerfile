FROM scratch
COPY root/ /
# The volume of the keys begins as this directory.
COPY --chown=0:65532 owned/ /
USER 0:65532
ENTRYPOINT ["/platformer"]
