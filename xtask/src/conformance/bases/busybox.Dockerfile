FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin && mkdir -p /etc /root /tmp /home && chmod 1777 /tmp && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd && echo app:x:1000:1001:App:/home:/bin/sh >> /etc/passwd && printf 'root:x:0:\\nstaff:x:50:app\\napp:x:1001:\\nmore:x:60:app,root\\n' > /etc/group"]
ENV PATH=/bin
CMD ["sh"]
