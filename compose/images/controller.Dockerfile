# Holds the Docker socket, which belongs to root: runs as 0:65532 without any capability, so its data is root's.
FROM scratch
COPY root/ /
COPY --chown=0:65532 owned/ /
USER 0:65532
VOLUME /data
EXPOSE 8081
ENTRYPOINT ["/controller"]
