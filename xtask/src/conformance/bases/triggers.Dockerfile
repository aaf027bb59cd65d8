FROM busybox
ONBUILD ARG WHO=nobody
ONBUILD RUN echo "$WHO" > /who
ONBUILD COPY trigger.txt /from-trigger/
ONBUILD ENV TRIGGERED=yes
