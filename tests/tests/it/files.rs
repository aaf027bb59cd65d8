//! What RUN changes becomes a layer: whiteouts, kinds that change, set-uid bits, attributes, hard links.

use crate::binary::is_root;
use crate::site::Site;

#[test]
fn removals_and_changes_of_kind() {
    let site = Site::new();
    let image = site.image_of(
        "FROM base AS a\nRUN mkdir -p /d/sub /e/f /g /again/x /h && touch /d/one /d/sub/two /e/f/three /g/four /again/x/old /h/keep /h/gone /file && ln -s /d /link\n\
         FROM a AS b\nRUN rm /d/one && rm -rf /e && rm -r /g && echo now a file > /g && rm /file && mkdir /file && touch /file/in && rm -rf /again && mkdir -p /again/y && touch /again/y/new && rm /h/gone && rm /link && mkdir /link && touch /link/real\n\
         FROM b\nRUN rm -rf /again/y /g && mkdir /e && touch /e/back\n",
    );
    let layers = &image.layers[image.layers.len() - 2..];
    for path in [
        "d/.wh.one",
        ".wh.e",
        "g",
        "file",
        "again/.wh..wh..opq",
        "h/.wh.gone",
        "link/real",
    ] {
        assert!(layers[0].contains(&path.to_owned()), "{path}: {:?}", layers[0]);
    }
    assert!(
        !layers[0].iter().any(|p| p.contains("d/sub") || p.contains("h/keep")),
        "{:?}",
        layers[0]
    );
    let kinds = |top: &str| {
        image
            .list(top)
            .lines()
            .map(|l| format!("{} {}", &l[..1], l.split(' ').nth(3).unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds("d"), ["d d", "d d/sub", "f d/sub/two"]);
    assert_eq!(kinds("e"), ["d e", "f e/back"]);
    assert_eq!(kinds("file"), ["d file", "f file/in"]);
    assert_eq!(kinds("again"), ["d again"]);
    assert_eq!(kinds("h"), ["d h", "f h/keep"]);
    assert_eq!(kinds("link"), ["d link", "f link/real"]);
    assert!(!image.has("g"));
    // What a later build unpacks from the blobs is the same.
    std::fs::remove_dir_all(site.data().join("layers")).unwrap();
    site.dockerfile("FROM result\nRUN find /d /e /file /again /h /link | sort | tr '\\n' ' '\n");
    let outcome = site.build(&[]).good();
    assert!(
        outcome
            .said()
            .contains(&"/again /d /d/sub /d/sub/two /e /e/back /file /file/in /h /h/keep /link /link/real "),
        "{}",
        outcome.log
    );
}

#[test]
fn metadata_survives() {
    let site = Site::new();
    let image = site.image_of(
        "FROM base\nRUN touch /suid && chown 3:4 /suid && chmod 6755 /suid && mkdir -m 1777 /sticky && mkfifo -m 640 /pipe && ln -s /a/b/../c /link && echo x > /h1 && ln /h1 /h2\n\
         RUN chmod 700 /usr && touch -d '1999-12-31 00:00:00' /old && mkdir -p /deep/a/b && chown 9:9 /deep/a\nRUN true\nRUN touch /etc/passwd\nRUN ln /h1 /h3\n",
    );
    assert_eq!(
        image.list("suid") + &image.list("sticky") + &image.list("pipe"),
        "f 6755 3:4 suid = \nd 1777 0:0 sticky\np 640 0:0 pipe\n"
    );
    assert_eq!(image.list("link"), "l 777 0:0 link -> /a/b/../c\n");
    assert_eq!(image.node("h1").file, image.node("h3").file);
    assert_eq!(image.node("usr").mode, 0o700);
    assert_eq!(
        image.list("deep"),
        "d 755 0:0 deep\nd 755 9:9 deep/a\nd 755 0:0 deep/a/b\n"
    );
    assert!(image.node("old").mtime < 315_532_800 || image.node("old").mtime == 315_532_801);
    // A RUN that changes nothing makes no layer; a directory whose mode alone changed comes without its contents.
    let own = image.layers.len() - 4;
    assert_eq!(
        image.layers[own + 1]
            .iter()
            .filter(|p| p.starts_with("usr"))
            .collect::<Vec<_>>(),
        ["usr"]
    );
}

#[test]
fn privileged_attributes_and_capabilities() {
    if !is_root("privileged_attributes_and_capabilities") {
        return;
    }
    let site = Site::new();
    site.file("tool", "x").file("user", "y");
    // A version 2 capability set: cap_net_bind_service, effective and permitted.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(site.context().join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("tool", "security.capability", &capability);
    set("user", "user.note", b"\0binary=");
    // Debian's setcap with its libraries, to set one in a RUN.
    site.program("/usr/sbin/setcap");
    let image = site.image_of(
        "FROM base AS s\nCOPY tool user /x/\nCOPY root /\nRUN cp /bin/busybox /ping && setcap cap_net_raw+ep /ping\nRUN chmod 711 /x/tool\nFROM base\nCOPY --from=s /x /x\nCOPY --from=s /ping /ping\nCOPY --chown=1:2 tool /owned\n",
    );
    assert_eq!(image.node("x/tool").xattrs["security.capability"], capability);
    assert_eq!(image.node("owned").xattrs["security.capability"], capability);
    assert_eq!(image.node("x/user").xattrs["user.note"], b"\0binary=");
    assert_eq!(image.node("ping").xattrs["security.capability"][4..8], [0, 0x20, 0, 0]);
    // They count for the cache as well.
    set("user", "user.note", b"other");
    assert!(site.build(&[]).good().ran().contains(&"COPY tool user /x/".to_owned()));
}

#[test]
fn a_large_tree_comes_through_whole() {
    let site = Site::new();
    for n in 0..600 {
        site.file(&format!("many/{}/{n}", n % 17), format!("{n}").repeat(n));
    }
    let image = site.image_of("FROM base\nCOPY many /many\nRUN for d in /many/1*; do rm -r $d; done; for i in $(seq 1 500); do echo $i > /many/0/new-$i; done\n");
    assert_eq!(
        image.tree.keys().filter(|p| p.starts_with("many/")).count(),
        9 + (0..600).filter(|n| !(n % 17 == 1 || n % 17 >= 10)).count() + 500
    );
    assert_eq!(image.text("many/0/new-500"), "500\n");
    assert_eq!(image.text("many/5/5"), "55555");
}
