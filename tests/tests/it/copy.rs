//! COPY by BuildKit's rules.

use crate::site::Site;
use std::os::unix::fs::MetadataExt as _;

fn site() -> Site {
    let site = Site::new();
    site.file("src/a", "A")
        .file("src/sub/b", "B")
        .file("src/empty/x", "")
        .link("src/link", "a");
    std::fs::remove_file(site.context().join("src/empty/x")).unwrap();
    site.mode("src/sub", 0o750)
        .mode("src/empty", 0o711)
        .mode("src/sub/b", 0o600)
        .mode("src", 0o700);
    site
}

#[test]
fn a_directory_gives_its_contents_and_existing_ones_keep_what_they_are() {
    let image = site().image_of(
        "FROM base\nRUN mkdir -p /have/sub && chown -R 1000:1000 /have && chmod -R 700 /have\nCOPY src /have\nCOPY src /new/deep/\n",
    );
    // The top directory that stood there keeps owner and mode; a nested one takes the source's.
    let want = "d 700 1000:1000 have\nf 644 0:0 have/a = A\nd 711 0:0 have/empty\nl 777 0:0 have/link -> a\nd 750 0:0 have/sub\nf 600 0:0 have/sub/b = B\n";
    assert_eq!(image.list("have"), want);
    let want = want
        .replace("700 1000:1000 have", "755 0:0 have")
        .replace("have", "new/deep");
    assert_eq!(image.list("new"), format!("d 755 0:0 new\n{want}"));
}

#[test]
fn where_a_file_goes() {
    let site = site();
    site.file("t.txt", "T").file("a b", "space");
    let image = site.image_of(
        "FROM base\nRUN mkdir /there && echo old > /file && chmod 400 /file && chown 5:5 /file\n\
         COPY t.txt /x\nCOPY t.txt /dir/\nCOPY t.txt src/a /two/\nCOPY t.txt /there\nCOPY t.txt /file\n\
         WORKDIR /w\nCOPY t.txt .\nCOPY t.txt rel/\nCOPY t.txt rel/name\nCOPY [\"a b\", \"/sp ace/\"]\nCOPY /t.txt /clipped\nCOPY ../../src/../t.txt /clipped2\nCOPY ./src/sub/ /slash\n",
    );
    for path in [
        "x",
        "dir/t.txt",
        "two/t.txt",
        "there/t.txt",
        "file",
        "w/t.txt",
        "w/rel/t.txt",
        "w/rel/name",
        "clipped",
        "clipped2",
    ] {
        assert_eq!(image.list(path), format!("f 644 0:0 {path} = T\n"));
    }
    assert_eq!(image.text("two/a"), "A");
    assert_eq!(image.text("sp ace/a b"), "space");
    assert_eq!(image.list("slash"), "d 755 0:0 slash\nf 600 0:0 slash/b = B\n");
}

#[test]
fn wildcards() {
    let site = Site::new();
    for name in [
        "a.txt",
        "b.txt",
        "c.md",
        ".hidden.txt",
        "d1/x",
        "d2/y",
        "d2/deep/z.txt",
        "star*",
    ] {
        site.file(&format!("g/{name}"), name);
    }
    let image = site.image_of(
        "FROM base\nCOPY g/*.txt /all/\nCOPY g/[a-b].txt /class/\nCOPY g/d? /dirs/\nCOPY g/*/*.txt /none/\nCOPY g/d2/*/z.* /deep/\nCOPY g/nothing* /void/\nCOPY g/star\\* /exact/\nCOPY g/?.m[!x] /neg/\n",
    );
    let names = |top: &str| {
        let prefix = format!("{top}/");
        image
            .tree
            .keys()
            .filter_map(|p| p.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(names("all"), [".hidden.txt", "a.txt", "b.txt"]);
    assert_eq!(names("class"), ["a.txt", "b.txt"]);
    // Directories give their contents, one into the other.
    assert_eq!(names("dirs"), ["deep", "deep/z.txt", "x", "y"]);
    assert_eq!(names("deep"), ["z.txt"]);
    assert_eq!(names("exact"), ["star*"]);
    assert!(!image.has("none") && !image.has("void"));
}

#[test]
fn owners_and_modes() {
    let site = site();
    site.file("run.sh", "#!/bin/sh\n").mode("run.sh", 0o755);
    let image = site.image_of(
        "FROM base\nARG who=app\nUSER app\nCOPY run.sh /plain\nCOPY --chown=app run.sh /n/ame\nCOPY --chown=app:extra run.sh /group\nCOPY --chown=55 run.sh /number\n\
         COPY --chown=55:66 src /tree\nCOPY --chown=$who:${who} run.sh /var\nCOPY --chmod=4711 run.sh /octal\nCOPY --chmod=0640 src /octal-tree\n\
         COPY --chmod=u+s,go=rX src /symbolic\nCOPY --chmod=a-x,u=rw run.sh /minus\n",
    );
    assert_eq!(image.list("plain"), "f 755 0:0 plain = #!/bin/sh\n");
    assert_eq!(
        image.list("n"),
        "d 755 1000:1000 n\nf 755 1000:1000 n/ame = #!/bin/sh\n"
    );
    assert_eq!(image.list("group"), "f 755 1000:77 group = #!/bin/sh\n");
    assert_eq!(image.list("number"), "f 755 55:55 number = #!/bin/sh\n");
    assert_eq!(image.list("var"), "f 755 1000:1000 var = #!/bin/sh\n");
    assert_eq!(image.list("octal"), "f 4711 0:0 octal = #!/bin/sh\n");
    assert_eq!(
        image.list("tree"),
        "d 755 55:66 tree\nf 644 55:66 tree/a = A\nd 711 55:66 tree/empty\nl 777 55:66 tree/link -> a\nd 750 55:66 tree/sub\nf 600 55:66 tree/sub/b = B\n"
    );
    assert_eq!(
        image.list("octal-tree"),
        "d 755 0:0 octal-tree\nf 640 0:0 octal-tree/a = A\nd 640 0:0 octal-tree/empty\nl 777 0:0 octal-tree/link -> a\nd 640 0:0 octal-tree/sub\nf 640 0:0 octal-tree/sub/b = B\n"
    );
    assert_eq!(image.list("symbolic/a"), "f 4644 0:0 symbolic/a = A\n");
    assert_eq!(
        image.list("symbolic/sub"),
        "d 4755 0:0 symbolic/sub\nf 4644 0:0 symbolic/sub/b = B\n"
    );
    assert_eq!(image.list("minus"), "f 644 0:0 minus = #!/bin/sh\n");
}

#[test]
fn through_links_of_the_destination() {
    let site = site();
    site.file("t", "T").file("bin/tool", "tool");
    let image = site.image_of(
        "FROM base\nRUN mkdir -p /real/dir && ln -s /real/dir /abs && ln -s real/dir /rel && ln -s /real/file /to-file && echo old > /real/file\n\
         RUN ln -s /later/file /dangling && ln -s /later/dir /dangling-dir && ln -s ../../../../../later/up /up && ln -s chain2 /chain1 && ln -s /chain3/x /chain2 && ln -s later /chain3\n\
         COPY t /bin/t\nCOPY bin /bin/\nCOPY t /abs/\nCOPY t /rel/new/\nCOPY t /to-file\nCOPY t /dangling\nCOPY t /dangling-dir/\nCOPY src /dangling-dir/tree\nCOPY t /up\nCOPY t /chain1\n",
    );
    assert_eq!(image.list("bin"), "l 777 0:0 bin -> usr/bin\n");
    assert_eq!(image.text("usr/bin/tool"), "tool");
    for path in [
        "usr/bin/t",
        "real/dir/t",
        "real/dir/new/t",
        "real/file",
        "later/file",
        "later/dir/t",
        "later/up",
        "later/x",
    ] {
        assert_eq!(image.list(path), format!("f 644 0:0 {path} = T\n"));
    }
    assert_eq!(image.text("later/dir/tree/sub/b"), "B");
    for link in [
        "abs",
        "rel",
        "to-file",
        "dangling",
        "dangling-dir",
        "up",
        "chain1",
        "chain2",
        "chain3",
    ] {
        assert_eq!(image.node(link).kind, 'l', "{link}");
    }
    let log = site.error_of("FROM base\nRUN ln -s loop2 /loop && ln -s loop /loop2\nCOPY t /loop/x\n");
    assert!(log.contains("   3 | >>> COPY t"), "{log}");
}

#[test]
fn links_in_a_stage_lead_nowhere_else() {
    let site = Site::new();
    std::fs::write(site.dir().join("host-secret"), "HOST").unwrap();
    let secret = site.dir().join("host-secret");
    let (path, dir) = (secret.display(), site.dir().display());
    let text = |copy: &str| {
        format!(
            "FROM base AS evil\nRUN ln -s {path} /steal && ln -s {dir} /outside && ln -s /../../../../../..{path} /up && ln -s /proc/self/root{path} /magic\nFROM base\n{copy}\n"
        )
    };
    for copy in [
        "COPY --from=evil /steal /x",
        "COPY --from=evil /outside/host-secret /x",
        "COPY --from=evil /up /x",
        "COPY --from=evil /magic /x",
    ] {
        let log = site.error_of(&text(copy));
        assert!(
            log.contains("not found") && log.contains("   4 | >>> COPY"),
            "{copy}: {log}"
        );
    }
    // A link as part of a tree is a link again.
    let image = site.image_of("FROM base AS evil\nRUN mkdir /t && ln -s /etc/shadow /t/s\nFROM base\nCOPY --from=evil /t /t\nCOPY --from=evil /t/../../../../etc/passwd /p\n");
    assert_eq!(image.list("t"), "d 755 0:0 t\nl 777 0:0 t/s -> /etc/shadow\n");
    assert!(image.text("p").starts_with("root:x:0:0:root:/root:/bin/sh\napp:"));
}

#[test]
fn the_context_ends_at_its_root() {
    let site = Site::new();
    std::fs::write(site.dir().join("secret"), "OUT").unwrap();
    site.link("up", "../secret")
        .link("abs", &site.dir().join("secret").display().to_string())
        .link("dir", "..")
        .file("in", "IN")
        .link("ok", "in");
    for source in ["up", "abs", "dir/secret", "../secret"] {
        let log = site.error_of(&format!("FROM base\nCOPY {source} /x\n"));
        assert!(
            log.contains(&format!("`{source}` not found")) && log.contains("   2 | >>> COPY"),
            "{log}"
        );
    }
    let image = site.image_of("FROM base\nCOPY ok /ok\nCOPY . /all/\n");
    assert_eq!(image.list("ok"), "f 644 0:0 ok = IN\n");
    assert_eq!(image.list("all/up"), "l 777 0:0 all/up -> ../secret\n");
}

#[test]
fn odd_files_of_the_context() {
    let site = Site::new();
    site.file("t/plain", "x");
    let mkfifo = std::process::Command::new("mkfifo")
        .arg(site.context().join("t/pipe"))
        .status()
        .unwrap();
    assert!(mkfifo.success());
    let _socket = std::os::unix::net::UnixListener::bind(site.context().join("t/socket")).unwrap();
    let name = "t/n\u{e4}me with \u{1f980}".to_owned() + &"x".repeat(150);
    site.file(&name, "long");
    let image = site.image_of("FROM base\nCOPY t /t\n");
    assert_eq!(image.node("t/pipe").kind, 'p');
    assert!(!image.has("t/socket"));
    assert_eq!(image.text(&name), "long");
}

#[test]
fn hard_links_stay_hard_links() {
    let site = Site::new();
    site.file("h/one", "same").file("other", "x");
    for name in ["h/two", "h/sub"] {
        if name == "h/sub" {
            std::fs::create_dir(site.context().join(name)).unwrap();
            std::fs::hard_link(site.context().join("h/one"), site.context().join("h/sub/three")).unwrap();
        } else {
            std::fs::hard_link(site.context().join("h/one"), site.context().join(name)).unwrap();
        }
    }
    assert_eq!(std::fs::metadata(site.context().join("h/one")).unwrap().nlink(), 3);
    let image = site.image_of("FROM base AS s\nCOPY h /h\nRUN ln /h/one /h/four\nFROM base\nCOPY --from=s /h /from\nRUN ln /etc/passwd /etc/passwd2\n");
    // Linking a file of a lower layer copies it up: the new pair and the old pair are two files, as in docker.
    assert_eq!(image.node("from/one").file, image.node("from/four").file);
    assert_eq!(image.node("from/two").file, image.node("from/sub/three").file);
    assert_eq!(image.text("from/four") + &image.text("from/two"), "samesame");
    let plain = site.image_of("FROM base\nCOPY h /h\n");
    for path in ["h/two", "h/sub/three"] {
        assert_eq!(plain.node(path).file, plain.node("h/one").file, "{path}");
    }
    assert_eq!(image.node("etc/passwd").file, image.node("etc/passwd2").file);
}

#[test]
fn from_stages_and_images() {
    let site = Site::new();
    let image = site.image_of(
        "FROM base AS first\nRUN echo 1 > /one && chown 7:8 /one && chmod 751 /one\nFROM base\nRUN echo 2 > /two\nFROM first AS Third\nRUN echo 3 > /three\n\
         FROM scratch\nCOPY --from=first /one /\nCOPY --from=1 /two /\nCOPY --from=third three one /t/\nCOPY --from=base /etc/group /g\nCOPY --from=FIRST --chown=9 /one /own\n",
    );
    assert_eq!(
        image.list("one") + &image.list("own") + &image.list("two") + &image.list("t"),
        "f 751 7:8 one = 1\nf 751 9:9 own = 1\nf 644 0:0 two = 2\nd 755 0:0 t\nf 751 7:8 t/one = 1\nf 644 0:0 t/three = 3\n"
    );
    assert!(image.text("g").contains("extra:x:77:app"));
    for (text, want) in [
        ("FROM base AS a\nFROM base\nCOPY --from=2 /x /\n", "Dockerfile:3:"),
        ("FROM base AS a\nCOPY --from=a /x /\n", "Dockerfile:2:"),
        ("FROM base\nCOPY --from=base /no/such /\n", "   2 | >>> COPY"),
    ] {
        let log = site.error_of(text);
        assert!(
            log.contains(want) && (log.contains('^') || log.contains("`/no/such` not found")),
            "{log}"
        );
    }
}

#[test]
fn heredocs_become_files() {
    let site = Site::new();
    let image = site.image_of(
        "FROM base\nARG v=value\nENV e=env\nCOPY <<one /file\n$v ${e} \\$v \"q\" 'r'\none\nCOPY <<'two' <<-\"three\" /dir/\n$v\ntwo\n\t\ttabs $v\n\tthree\nCOPY --chown=app --chmod=700 <<EOF /run.sh\n#!/bin/sh\necho \\\\n\nEOF\nCOPY <<EOF /empty\nEOF\n",
    );
    assert_eq!(image.list("file"), "f 644 0:0 file = value env $v \"q\" 'r'\n");
    assert_eq!(
        image.list("dir"),
        "d 755 0:0 dir\nf 644 0:0 dir/three = tabs $v\nf 644 0:0 dir/two = $v\n"
    );
    assert_eq!(image.list("run.sh"), "f 700 1000:1000 run.sh = #!/bin/sh\necho \\n\n");
    assert_eq!(image.text("empty"), "");
}

#[test]
fn conflicts_and_missing_files_show_their_line() {
    let site = site();
    for (copy, want) in [
        ("COPY nope /", "`nope` not found"),
        ("COPY src/a /etc/passwd/x", "/etc/passwd"),
        ("COPY src /etc/passwd", "/etc/passwd"),
        ("COPY src/a src/sub/b /x", "must be a directory"),
        ("COPY --chown=nobody src /x", "no user `nobody`"),
        ("COPY --chown=app:nogroup src /x", "no group `nogroup`"),
        ("COPY --chown=:nogroup src /x", "no group `nogroup`"),
        ("COPY --chmod=999 src /x", "invalid `--chmod=999`"),
        ("COPY [a /x", "syntax error in pattern"),
        ("COPY --from=base /etc/passwd /etc/passwd/y/", "/etc/passwd"),
    ] {
        let log = site.error_of(&format!("FROM base\n# a comment\n{copy}\n"));
        assert!(
            log.contains(want) && (log.contains("   3 | >>> COPY") || log.contains("Dockerfile:3:")),
            "{copy}: {log}"
        );
    }
}

#[test]
fn dockerignore() {
    let site = Site::new();
    for path in [
        "keep",
        "a.log",
        "sub/b.log",
        "sub/keep.log",
        "node_modules/x/y",
        "docs/a.md",
        "docs/README.md",
        "deep/er/secret",
        "deep/er/open",
        "tmp1",
        "logs/x",
        "logs/keep/y",
    ] {
        site.file(path, path);
    }
    site.file(".dockerignore", "# comment\n\n**/*.log\n!sub/keep.log\nnode_modules\n/docs/*.md\n!docs/README.md\n**/secret\ntemp\ntmp?\nlogs\n!logs/keep\n.dockerignore\nDockerfile*\n");
    let image = site.image_of("FROM base\nCOPY . /c/\nCOPY docs /d/\n");
    let found: Vec<&str> = image
        .tree
        .iter()
        .filter(|(p, n)| p.starts_with("c/") && n.kind == 'f')
        .map(|(p, _)| &p[2..])
        .collect();
    assert_eq!(
        found,
        ["deep/er/open", "docs/README.md", "keep", "logs/keep/y", "sub/keep.log"]
    );
    assert_eq!(image.list("d"), "d 755 0:0 d\nf 644 0:0 d/README.md = docs/README.md\n");
    let log = site.error_of("FROM base\nCOPY a.log /\n");
    assert!(
        log.contains("`a.log` not found: the ignore file leaves it out"),
        "{log}"
    );
    // The Dockerfile's own ignore file beats the context's; stages are not ignored.
    site.file(
        "other.Dockerfile",
        "FROM base AS s\nRUN echo x > /x.log\nFROM base\nCOPY . /c/\nCOPY --from=s /x.log /\n",
    )
    .file("other.Dockerfile.dockerignore", "*\n!a.log\n");
    let file = site.context().join("other.Dockerfile");
    site.build(&["-t", "other", "-f", file.to_str().unwrap()]).good();
    let image = site.image("other");
    assert_eq!(image.list("c"), "d 755 0:0 c\nf 644 0:0 c/a.log = a.log\n");
    assert!(image.has("x.log"));
    site.file(".dockerignore", "ok\n[\n");
    let log = site.build(&[]).bad(2);
    assert!(log.contains(".dockerignore") && log.contains("line 2"), "{log}");
}
