//! Every instruction in its forms, as image config, history, and what RUN sees.

use crate::site::Site;
use serde_json::json;

#[test]
fn config_of_everything() {
    let site = Site::new();
    let image = site.image_of(
        "# syntax=docker/dockerfile:1.7\n# escape=`\nfrom base as one\nMAINTAINER Some One\nENV a=1 b=\"two words\" c='x y' d=e`\n  f=$a\nENV legacy form with  spaces\nENV a=2 g=${a}\n\
         LABEL one=1 \"two words\"=\"a`\nb\" three=$a\nEXPOSE 80 443/tcp 53/udp 7000-7002\nVOLUME /data /logs\nVOLUME [\"/a b\"]\nSTOPSIGNAL SIGTERM\nUSER app:extra\nWORKDIR /srv\nWORKDIR app/$a\n\
         SHELL [\"/bin/sh\", \"-ec\"]\nENTRYPOINT [\"/bin/echo\", \"x\"]\nCMD echo hi\nHEALTHCHECK --interval=30s --timeout=1m30s --start-period=500ms --start-interval=2s --retries=3 CMD true || false\n",
    );
    let config = image.config();
    assert_eq!(
        config["Env"],
        json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "a=2",
            "b=two words",
            "c=x y",
            "d=e",
            "f=",
            "legacy=form with  spaces",
            "g=1"
        ])
    );
    assert_eq!(config["Labels"], json!({"one": "1", "two words": "ab", "three": "2"}));
    assert_eq!(
        config["ExposedPorts"],
        json!({"80/tcp": {}, "443/tcp": {}, "53/udp": {}, "7000/tcp": {}, "7001/tcp": {}, "7002/tcp": {}})
    );
    assert_eq!(config["Volumes"], json!({"/data": {}, "/logs": {}, "/a b": {}}));
    assert_eq!(
        (&config["StopSignal"], &config["User"], &config["WorkingDir"]),
        (&json!("SIGTERM"), &json!("app:extra"), &json!("/srv/app/2"))
    );
    assert_eq!(config["Shell"], json!(["/bin/sh", "-ec"]));
    assert_eq!(config["Entrypoint"], json!(["/bin/echo", "x"]));
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-ec", "echo hi"]));
    assert_eq!(
        config["Healthcheck"],
        json!({"Test": ["CMD-SHELL", "true || false"], "Interval": 30_000_000_000_u64, "Timeout": 90_000_000_000_u64, "StartPeriod": 500_000_000,
               "StartInterval": 2_000_000_000_u64, "Retries": 3})
    );
    assert_eq!(image.document["author"], json!("Some One"));
    assert!(!image.has("data"), "VOLUME makes no directory");
    // WORKDIR belongs to USER, its parents too.
    assert_eq!(
        image.list("srv"),
        "d 755 1000:77 srv\nd 755 1000:77 srv/app\nd 755 1000:77 srv/app/2\n"
    );
}

#[test]
fn commands_of_a_child_image() {
    let site = Site::new();
    let parent =
        "FROM base AS p\nENTRYPOINT [\"/e\"]\nCMD [\"c\"]\nHEALTHCHECK CMD [\"/h\", \"1\"]\nENV V=parent\nUSER app\n";
    let image = site.image_of(&format!("{parent}FROM p\nENTRYPOINT other\n"));
    assert_eq!(image.config()["Entrypoint"], json!(["/bin/sh", "-c", "other"]));
    assert_eq!(
        image.config()["Cmd"],
        json!(null),
        "an ENTRYPOINT resets an inherited CMD"
    );
    assert_eq!(image.config()["Healthcheck"]["Test"], json!(["CMD", "/h", "1"]));
    let image = site.image_of(&format!(
        "{parent}FROM p\nCMD [\"d\"]\nENTRYPOINT [\"f\"]\nHEALTHCHECK NONE\n"
    ));
    assert_eq!(
        (&image.config()["Cmd"], &image.config()["Healthcheck"]["Test"]),
        (&json!(["d"]), &json!(["NONE"]))
    );
    let image = site.image_of(&format!("{parent}FROM p\nENTRYPOINT []\nCMD []\n"));
    assert_eq!(
        (&image.config()["Entrypoint"], &image.config()["Cmd"]),
        (&json!([]), &json!([]))
    );
}

#[test]
fn run_in_all_forms() {
    let site = Site::new();
    let image = site.image_of(
        "FROM base\nRUN echo shell $HOME > /shell\nRUN [\"/bin/sh\", \"-c\", \"echo exec $HOME > /exec\"]\nRUN [\"echo\", \"$HOME\"]\n\
         RUN one=1 \\\n# a comment\n\n  && echo joined $one \\\n  > /joined\n\
         RUN <<EOF\nx='kept $HOME'\necho \"$x\" > /heredoc\necho $HOME >> /heredoc\nEOF\n\
         RUN <<'EOF' cat > /fed\nraw $HOME\nEOF\nRUN cat <<a >/two && cat <<b >>/two\nfrom a\na\nfrom b\nb\n\
         RUN <<EOF\n#!/bin/sh -eu\necho script $0 > /script\nset -- 1 2\necho $# >> /script\nEOF\nRUN <<-EOF\n\techo tabs > /tabs\n\tEOF\n\
         SHELL [\"/bin/sh\", \"-c\", \"echo shelled $0 $* > /shelled\"]\nRUN a b\n",
    );
    assert_eq!(
        image.text("shell") + &image.text("exec") + &image.text("joined"),
        "shell /root\nexec /root\njoined 1\n"
    );
    assert_eq!(image.text("heredoc"), "kept $HOME\n/root\n");
    assert_eq!(image.text("fed"), "raw $HOME\n");
    assert_eq!(image.text("two"), "from a\nfrom b\n");
    assert_eq!(image.text("script"), "script /dev/pipes/EOF\n2\n");
    assert_eq!(image.text("tabs"), "tabs\n");
    assert_eq!(image.text("shelled"), "shelled a b\n");
    assert!(!image.has("run/roadstead"), "{}", image.list("run"));
}

#[test]
fn triggers_wait_for_the_stages_that_stand_on_theirs() {
    let site = Site::new();
    site.file("f", "of the child");
    let parent = "FROM base AS p\nENV WHO=parent\nONBUILD ARG WHAT=unset\nONBUILD COPY f /\nONBUILD RUN echo $WHO $WHAT > /ran\n\
        ONBUILD ENV WHO=trigger\nRUN test ! -e /f\n";
    let image = site.image_of(parent);
    let triggers = [
        "ARG WHAT=unset",
        "COPY f /",
        "RUN echo $WHO $WHAT > /ran",
        "ENV WHO=trigger",
    ];
    assert_eq!(image.config()["OnBuild"], json!(triggers));
    assert!(!image.has("f") && !image.has("ran"));
    // From the store, and from a stage of the same file; in both the triggers come first, and are spent.
    for from in ["FROM result".to_owned(), format!("{parent}FROM p")] {
        site.dockerfile(&format!("{from}\nRUN echo $WHO >> /ran\n"));
        site.build(&["-t", "child", "--build-arg", "WHAT=given"]).good();
        let child = site.image("child");
        assert_eq!(child.text("ran"), "parent given\ntrigger\n");
        assert_eq!(
            (child.text("f").as_str(), &child.config()["OnBuild"]),
            ("of the child", &json!(null))
        );
    }
    // An error shows where the image is named.
    let log = site.error_of("FROM base AS q\nONBUILD RUN exit 4\nFROM q\nRUN true\n");
    assert!(
        log.contains("exit code: 4") && log.contains("   3 | >>> FROM q\n"),
        "{log}"
    );
}

#[test]
fn users_groups_and_homes() {
    let site = Site::new();
    let log = |text: &str| {
        site.dockerfile(&format!(
            "FROM base\n{text}\nRUN echo $(id -u):$(id -g):$(id -G | tr ' ' ,):$HOME\n"
        ));
        site.build(&[]).good().said()[0].to_owned()
    };
    assert_eq!(log(""), "0:0:0,78:/root");
    assert_eq!(log("USER root"), "0:0:0,78:/root");
    assert_eq!(log("USER app"), "1000:1000:1000,77,78:/home/app");
    assert_eq!(log("USER app:extra"), "1000:77:77:/home/app");
    assert_eq!(log("USER 1000"), "1000:1000:1000,77,78:/home/app");
    assert_eq!(log("USER 55"), "55:0:0:/");
    assert_eq!(log("USER 55:66"), "55:66:66:/");
    assert_eq!(log("ARG u=app\nUSER $u"), "1000:1000:1000,77,78:/home/app");
    assert_eq!(log("ENV HOME=/else\nUSER app"), "1000:1000:1000,77,78:/else");
    for user in ["nobody", "app:nogroup"] {
        let text = site.error_of(&format!("FROM base\nUSER {user}\nRUN true\n"));
        assert!(
            text.contains("in the image's /etc/") && text.contains("   3 | >>> RUN true\n"),
            "{text}"
        );
    }
}

#[test]
fn arguments_and_environment() {
    let site = Site::new();
    site.dockerfile(
        "ARG base=base\nARG global=g\nARG both=global\nFROM $base AS one\nARG global\nARG both=stage\nARG given=default\nARG unset\nARG shadowed=arg\nENV shadowed=env\nARG twice=1 thrice=${global}-3\n\
         RUN echo \"[$global|$both|$given|${unset-none}|$shadowed|$twice|$thrice|${base-none}]\"\n\
         ENV late=${given:-x}${nope:+y}${given#d}\nFROM one\nRUN echo \"[$global|$given|$late]\"\nARG TARGETARCH\nARG TARGETSTAGE=\nRUN echo \"[${TARGETARCH:+set}|$http_proxy|$HTTPS_PROXY]\"\n",
    );
    let lines = |arguments: &[&str]| -> Vec<String> {
        let outcome = site.build(arguments).good();
        outcome
            .said()
            .iter()
            .filter(|l| l.starts_with('['))
            .map(|l| (*l).to_owned())
            .collect()
    };
    assert_eq!(
        lines(&["--no-cache", "--build-arg", "http_proxy=http://p:1"]),
        [
            "[g|stage|default|none|env|1|g-3|none]",
            "[g|default|defaultefault]",
            "[set|http://p:1|]"
        ]
    );
    assert_eq!(
        lines(&[
            "--no-cache",
            "--build-arg",
            "given=G",
            "--build-arg",
            "global=X",
            "--build-arg",
            "shadowed=no",
            "--build-arg",
            "unset="
        ]),
        ["[X|stage|G||env|1|X-3|none]", "[X|G|GG]", "[set||]"]
    );
    let mut command = site.command(&["--no-cache", "--build-arg", "given", "--build-arg", "unset"]);
    let outcome = crate::site::Outcome::of(
        command
            .env("given", "from-caller")
            .env_remove("unset")
            .output()
            .unwrap(),
    )
    .good();
    assert_eq!(outcome.said()[0], "[g|stage|from-caller|none|env|1|g-3|none]");
    let log = site.build(&["--build-arg", "unknown=1"]).good().log;
    assert!(
        log.contains("warning: build argument `unknown` was not consumed"),
        "{log}"
    );
    // Proxies given on the command line leave no trace.
    site.build(&["-t", "p", "--build-arg", "http_proxy=http://secret-proxy:1"])
        .good();
    assert!(!site.image("p").document.to_string().contains("secret-proxy"));
}

#[test]
fn history_says_what_was_done() {
    let site = Site::new();
    let history = site
        .image_of("FROM base\nARG x=1\nRUN echo $x > /a\nCOPY <<f /f\nf\nENV k=v\nWORKDIR /w\nCMD [\"c\"]\n")
        .history();
    let own: Vec<&str> = history.iter().rev().take(6).rev().map(String::as_str).collect();
    assert_eq!(own[0], "ARG x=1");
    assert!(own[1].starts_with("RUN |1 x=1 /bin/sh -c echo $x > /a"), "{own:?}");
    assert!(own[2].starts_with("COPY <<f /f"), "{own:?}");
    assert_eq!(own[3..], ["ENV k=v", "WORKDIR /w", "CMD [\"c\"]"]);
    let image = site.image("result");
    let layers = image.document["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|h| h["empty_layer"] != true)
        .count();
    assert_eq!(layers, image.layers.len(), "one entry without `empty_layer` a layer");
}

#[test]
fn targets_labels_and_ids() {
    let site = Site::new();
    site.dockerfile("FROM base AS one\nLABEL a=file b=file\nRUN echo in one\nFROM base AS two\nRUN exit 9\nFROM nowhere.invalid/x:1 AS three\nFROM one AS four\nRUN echo in four\n");
    let id = site.out("id");
    let outcome = site
        .build(&[
            "--target",
            "ONE",
            "-t",
            "x",
            "-t",
            "y",
            "--label",
            "b=line",
            "--label",
            "c",
            "-q",
            "--iidfile",
            id.to_str().unwrap(),
        ])
        .good();
    assert_eq!(outcome.log, "");
    let image = site.image("x");
    let config_digest = image.manifest["config"]["digest"].as_str().unwrap();
    assert_eq!(String::from_utf8(outcome.stdout).unwrap().trim(), config_digest);
    assert_eq!(std::fs::read_to_string(&id).unwrap(), config_digest);
    assert_eq!(image.config()["Labels"], json!({"a": "file", "b": "line", "c": ""}));
    assert_eq!(site.image("y").digest, image.digest);
    // Stages that are not needed are not even looked at, and a number is no name.
    let log = site.build(&["--target", "0"]).bad(2);
    assert!(log.contains("target stage `0` could not be found"), "{log}");
    let outcome = site.build(&[]).good();
    assert!(
        outcome.said().contains(&"in four") && !outcome.log.contains("nowhere.invalid"),
        "{}",
        outcome.log
    );
    let log = site.build(&["--target", "five"]).bad(2);
    assert!(log.contains("target stage `five` could not be found"), "{log}");
}

#[test]
fn what_is_not_taken_is_an_error_with_its_place() {
    let site = Site::new();
    for (line, want) in [
        (
            "RUN --mount=type=cache,target=/x,sharing=lock true",
            "did you mean locked?",
        ),
        ("RUN --mount=target=/x,source=missing true", "missing"),
        ("RUN --network=bridge true", "--network"),
        ("RUN --security=insecure true", "--security"),
        ("ADD --checksum=sha256:00 a /x", "--checksum"),
        ("ADD git@github.com:a/b.git /x", "git"),
        ("ONBUILD FROM base", "isn't allowed as an ONBUILD trigger"),
        ("FRUM base", "unknown instruction"),
        ("EXPOSE 99999", "99999"),
        ("STOPSIGNAL SIGNOPE", "SIGNOPE"),
        ("ENV ${a:=b}=1", "="),
        ("ENV a=${b:?not given}", "not given"),
        ("WORKDIR", "at least one argument"),
        ("VOLUME [\"\"]", "empty"),
        ("ENV a='open", "quote"),
        ("RUN <<EOF\nnever closed", "unterminated heredoc"),
        ("COPY --from=$x a /", "--from"),
    ] {
        let log = site.error_of(&format!("FROM base\n\n{line}\n"));
        // What only the step itself finds out is shown as a failed step.
        let pointed = log.contains("Dockerfile:3:") && log.contains("\n3 | ") && log.contains('^');
        assert!(
            log.contains(want) && (pointed || log.contains(&format!("   3 | >>> {line}\n"))),
            "{line}: {log}"
        );
    }
    for text in [
        "",
        "# only a comment\n",
        "RUN x\n",
        "FROM\n",
        "FROM base AS\n",
        "FROM $none\n",
        "ARG x=${y?z}\nFROM base\n",
    ] {
        let log = site.error_of(text);
        assert!(log.contains("Dockerfile:1:") && log.contains('^'), "{text}: {log}");
    }
    std::fs::remove_file(site.context().join("Dockerfile")).unwrap();
    assert!(site.build(&[]).bad(2).contains("cannot read Dockerfile"));
    site.file("Dockerfile", [0xff, 0xfe, b'F']);
    assert!(site.build(&[]).bad(2).contains("Dockerfile"));
}
