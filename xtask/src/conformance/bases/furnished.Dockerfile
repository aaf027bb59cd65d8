# Links, odd modes, hard links and owners to copy onto and from.
FROM busybox
RUN mkdir -p /usr/lib /data/sub /owned /sticky /deep/a/b/c \
 && ln -s usr/lib /lib && ln -s /data /absolute && ln -s nowhere /dead && ln -s ../../../../etc /usr/up \
 && echo one > /data/one && echo two > /data/sub/two && ln /data/one /data/again && ln -s one /data/link \
 && chmod 4755 /data/one && chown -R 1000:1001 /owned && chmod 700 /owned && chmod 3777 /sticky \
 && echo file > /file && mkfifo /data/pipe && touch -d '2001-02-03 04:05:06' /data/sub/two /data/sub \
 && for i in 1 2 3; do echo $i > /deep/a/b/c/$i; done
