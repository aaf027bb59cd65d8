//! `RUN --mount` and `RUN --network`: contents, what is discarded, what is kept, and that a secret is found nowhere.

use crate::site::{Site, files_below};
use std::path::Path;
use std::process::Command;

/// Looks into every file of the data directory, and through its compression.
fn nothing_holds(site: &Site, value: &str) {
    for path in files_below(&site.data()).iter().filter(|path| path.is_file()) {
        let mut bytes = std::fs::read(path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            bytes = Command::new("gzip").arg("-dc").arg(path).output().unwrap().stdout;
        }
        let found = bytes.windows(value.len()).any(|window| window == value.as_bytes());
        assert!(!found, "the secret is in {}", path.display());
    }
}

#[test]
fn binds_show_the_context_stages_and_images_and_writes_are_discarded() {
    let site = Site::new();
    site.file("src/a", "one")
        .file("src/deep/b", "two")
        .file("hidden", "x")
        .file(".dockerignore", "hidden\n");
    let text = "FROM base AS other\nRUN mkdir /made && echo three > /made/c\nFROM base\nWORKDIR /w\n\
        RUN --mount=target=. cat src/a src/deep/b && test ! -e hidden && test \"$(stat -c %u:%g src/a)\" = 0:0\n\
        RUN --mount=type=bind,source=src/a,target=here/file cat here/file && ! sh -c 'echo x > here/file' 2>/dev/null\n\
        RUN --mount=from=other,source=/made,target=/m,rw cat /m/c && echo changed > /m/c && echo new > /m/d\n\
        RUN --mount=from=other,source=/made/c,target=/single cat /single && echo kept > /kept\n\
        RUN --mount=from=base,target=/image ls /image/bin > /list && ! touch /image/x 2>/dev/null\n";
    site.dockerfile(text);
    let log = site.build(&["-t", "x"]).good().log;
    let image = site.image("x");
    assert_eq!(image.text("kept"), "kept\n", "{log}");
    for absent in ["single", "m", "image", "w/here", "w/src", "made"] {
        assert!(!image.has(absent), "{absent} is in the image");
    }
    // What is shown is what counts: the whole context in the first of these, one file in the second.
    assert_eq!(site.build(&[]).good().ran(), Vec::<String>::new());
    site.file("elsewhere", "y");
    let ran = site.build(&[]).good().ran();
    assert!(
        ran.iter().any(|step| step.contains("target=.")) && !ran.iter().any(|step| step.contains("target=here")),
        "{ran:?}"
    );
    site.file("hidden", "y");
    assert_eq!(site.build(&[]).good().ran(), Vec::<String>::new());
    site.file("src/a", "new");
    let ran = site.build(&[]).good().ran();
    assert!(ran.iter().any(|step| step.contains("target=here")), "{ran:?}");
}

#[test]
fn caches_outlive_the_build_and_are_no_part_of_the_image() {
    let site = Site::new();
    let build = |extra: &str| {
        let text = format!(
            "FROM base AS seed\nRUN mkdir /s && echo seeded > /s/f\nFROM base\n\
             RUN --mount=type=cache,target=/root/.cache/x echo {extra} >> /root/.cache/x/log && cat /root/.cache/x/log > /seen\n\
             RUN --mount=type=cache,id=own,target=/c,uid=7,gid=8,mode=0710 stat -c '%u:%g %a' /c > /access\n\
             RUN --mount=type=cache,target=/d,from=seed,source=/s cat /d/f > /seeded && : {extra}\n\
             RUN --mount=type=cache,target=/root/.cache/x,ro ! touch /root/.cache/x/y 2>/dev/null\n"
        );
        site.dockerfile(&text);
        site.build(&["-t", "x"]).good();
        site.image("x")
    };
    let image = build("first");
    assert_eq!(
        (image.text("access").as_str(), image.text("seeded").as_str()),
        ("7:8 710\n", "seeded\n")
    );
    assert_eq!(image.text("seen"), "first\n");
    assert!(!image.has("root/.cache") && !image.has("c") && !image.has("d"));
    assert_eq!(build("second").text("seen"), "first\nsecond\n");
}

#[test]
fn locked_caches_are_used_by_one_command_at_a_time() {
    let site = Site::new();
    let stage = |name: &str| {
        format!(
            "FROM base AS {name}\nRUN --mount=type=cache,id=l,target=/l,sharing=locked \
             mkdir /l/busy && sleep 0.3 && rmdir /l/busy && echo {name} > /{name}\n"
        )
    };
    // One cache twice, and two caches the other way round.
    let twice = "RUN --mount=type=cache,id=m,target=/m,sharing=locked --mount=type=cache,id=m,target=/n,sharing=locked \
        touch /m/x && ls /n/x && sleep 0.2\n";
    let crossed = |one: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,id={one},target=/{one},sharing=locked --mount=type=cache,id={other},target=/{other},sharing=locked sleep 0.2\n"
        )
    };
    let stage = |name: &str, one: &str, other: &str| format!("{}{twice}{}", stage(name), crossed(one, other));
    let text = format!(
        "{}{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        stage("a", "v", "w"),
        stage("b", "w", "v")
    );
    site.dockerfile(&text);
    site.build(&[]).good();
}

#[test]
fn caches_of_one_id_are_locked_in_one_order() {
    let site = Site::new();
    // Filled from many files, the first is held for a while before the second is asked for.
    let mount = |target: &str, mode: &str| {
        format!("--mount=type=cache,id=x,from=seed,source=/many,mode={mode},target={target},sharing=locked")
    };
    let stage = |name: &str, one: String, other: String| {
        format!("FROM base AS {name}\nRUN {one} {other} ls /one/1 /other/1 > /{name}\n")
    };
    let text = format!(
        "FROM base AS seed\nRUN mkdir /many && cd /many && for i in $(seq 3000); do echo $i > $i; done\n\
         {}{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        stage("a", mount("/one", "0755"), mount("/other", "0700")),
        stage("b", mount("/one", "0700"), mount("/other", "0755"))
    );
    site.dockerfile(&text);
    let (status, log) = site.start(&[]).wait();
    assert!(status.success(), "{log}");
}

#[test]
fn one_of_its_mounts_is_enough_to_lock_a_cache() {
    let site = Site::new();
    let stage = |name: &str, first: &str| {
        format!(
            "FROM base AS {name}\nRUN --mount=type=cache,id=t,target=/one{first} --mount=type=cache,id=t,target=/other,sharing=locked \
             mkdir /one/busy && ls -d /other/busy && sleep 0.3 && rmdir /one/busy && echo {name} > /{name}\n"
        )
    };
    let text = format!(
        "{}{}{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n",
        stage("a", ""),
        stage("b", ",sharing=shared"),
        stage("c", ",sharing=private")
    );
    site.dockerfile(&text);
    site.build(&[]).good();
}

#[test]
fn a_tmpfs_begins_empty_and_is_gone() {
    let site = Site::new();
    site.dockerfile(
        "FROM base\nRUN mkdir -m 0750 /old && echo x > /old/x\n\
         RUN --mount=type=tmpfs,target=/old --mount=type=tmpfs,target=/new,size=1m \
         ls -A /old > /list && touch /old/y /new/z && stat -c %a /old /new > /modes && \
         ! head -c 2000000 /dev/zero > /new/big 2>/dev/null\n",
    );
    site.build(&["-t", "x"]).good();
    let image = site.image("x");
    assert_eq!(
        (image.text("list").as_str(), image.text("modes").as_str()),
        ("", "750\n1777\n")
    );
    assert!(image.has("old/x") && !image.has("old/y") && !image.has("new"));
}

#[test]
fn a_secret_is_found_nowhere() {
    const VALUE: &str = "hunter2-very-secret-value";
    let site = Site::new();
    let file = site.out("secret");
    std::fs::write(&file, VALUE).unwrap();
    site.dockerfile(
        "FROM base\nRUN --mount=type=secret,id=s,mode=0440,uid=5 stat -c '%a %u' /run/secrets/s > /how && wc -c < /run/secrets/s > /size\n\
         RUN --mount=type=secret,id=s,env=TOKEN test ${#TOKEN} = 25 && test ! -e /run/secrets/s\n\
         RUN --mount=type=secret,id=s,target=/etc/token wc -c < /etc/token\n\
         RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent && test ! -e /run/secrets/s && test ! -e /etc/token\n",
    );
    let flag = format!("id=s,src={}", file.display());
    let outcome = site.build(&["-t", "x", "--secret", &flag]).good();
    assert!(!outcome.log.contains(VALUE));
    let image = site.image("x");
    assert_eq!(
        (image.text("how").as_str(), image.text("size").as_str()),
        ("440 5\n", "25\n")
    );
    assert!(!image.has("run/secrets") && !image.has("etc/token"));
    nothing_holds(&site, VALUE);
    // Another value is no other step: what a secret holds is no part of a cache key.
    std::fs::write(&file, "another-secret-value-of-it").unwrap();
    assert_eq!(site.build(&["--secret", &flag]).good().ran(), Vec::<String>::new());
    // A failing command does not bring it out either.
    std::fs::write(&file, VALUE).unwrap();
    site.dockerfile("FROM base\nRUN --mount=type=secret,id=s,env=TOKEN exit 3\n");
    let log = site.build(&["--secret", &flag]).bad(1);
    assert!(log.contains("exit code: 3") && !log.contains(VALUE), "{log}");
    nothing_holds(&site, VALUE);
    site.dockerfile("FROM base\nRUN --mount=type=secret,id=other,required true\n");
    let log = site.build(&["--secret", &flag]).bad(1);
    assert!(
        log.contains("secret `other` is required") && log.contains("   2 | >>> RUN --mount"),
        "{log}"
    );
}

#[test]
fn links_of_the_image_and_the_context_lead_no_mount_astray() {
    let site = Site::new();
    site.file("a", "mine").link("out", "/etc/shadow");
    site.dockerfile(
        "FROM base\nRUN ln -s /../../../../../../../../tmp/roadstead-escape /link && mkdir /esc && ln -s / /esc/up\n\
         RUN --mount=source=a,target=/link cat /tmp/roadstead-escape\n\
         RUN --mount=type=tmpfs,target=/esc/up/tmp/in-root touch /tmp/in-root/x\n",
    );
    site.build(&[]).good();
    assert!(!Path::new("/tmp/roadstead-escape").exists() && !Path::new("/tmp/in-root").exists());
    for source in ["../../../../etc/shadow", "out"] {
        site.dockerfile(&format!(
            "FROM base\nRUN --mount=source={source},target=/x ! grep root /x\n"
        ));
        let outcome = site.build(&[]);
        assert!(!outcome.log.contains("root:"), "{}", outcome.log);
    }
    site.dockerfile("FROM base AS s\nRUN ln -s /../../../etc/hostname /out\nFROM base\nRUN --mount=from=s,source=/out,target=/x cat /x\n");
    site.build(&[]).bad(1);
}

#[test]
fn no_network_means_a_loopback_interface_only() {
    let site = Site::new();
    site.dockerfile(
        "FROM base\nRUN --network=none ls /sys/class/net > /none; cat /proc/net/dev | tail -n +3 | wc -l > /count; ip addr show lo | grep -c UP > /up || true\n\
         RUN --network=host true\nRUN --network=default true\n",
    );
    site.build(&["-t", "x"]).good();
    let image = site.image("x");
    assert_eq!(
        (image.text("count").as_str(), image.text("up").as_str()),
        ("1\n", "1\n")
    );
    let log = site.error_of("FROM base\nRUN --network=bridge true\n");
    assert!(log.contains("one of default, none and host"), "{log}");
}

/// The key is made of the files before the command has its turn; they are copied then.
#[test]
fn files_that_change_before_they_are_mounted_are_not_remembered() {
    let site = Site::new();
    site.file("a", "one");
    let text = "FROM base AS slow\nRUN echo waiting && sleep 2\nFROM base\n\
         RUN --mount=source=a,target=/a --mount=from=slow,target=/slow cat /a > /got\n";
    site.dockerfile(text);
    let started = site.start_until(&["-t", "result"], "waiting");
    site.file("a", "two");
    let (status, log) = started.wait();
    assert!(status.success() && log.contains("not remembered"), "{log}");
    assert_eq!(site.image("result").text("got"), "two");
    for content in ["one", "two"] {
        site.file("a", content);
        site.build(&["-t", "result"]).good();
        assert_eq!(site.image("result").text("got"), content);
    }
}
