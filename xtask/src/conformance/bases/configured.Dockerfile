# Every value that a config can have.
FROM busybox
LABEL kept=base replaced=base
ENV FROM_BASE=1 PATH=/bin:/opt
EXPOSE 80 53/udp
VOLUME /vol
WORKDIR /srv/dir
USER app
ENTRYPOINT ["/bin/echo"]
CMD ["base"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=3s --retries=2 CMD true
SHELL ["/bin/sh", "-e", "-c"]
