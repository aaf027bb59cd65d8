//! `--ca-bundle`: there for the command, nowhere else.

use crate::site::Site;

const VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// Makes an authority's certificate.
fn bundle(site: &Site) -> String {
    let path = site.out("corporate.pem");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=corporate",
        ])
        .arg("-keyout")
        .arg(site.out("key.pem"))
        .arg("-out")
        .arg(&path)
        .output()
        .expect("openssl is needed");
    assert!(made.status.success());
    path.to_str().unwrap().to_owned()
}

#[test]
fn it_is_seen_by_commands_and_by_nothing_else() {
    let site = Site::new();
    let path = bundle(&site);
    let names = VARIABLES.map(|name| format!("${name}")).join(" ");
    site.dockerfile(&format!(
        "FROM base\nENV PIP_CERT=/own\nARG AWS_CA_BUNDLE=/arg\nRUN cat $SSL_CERT_FILE | md5sum; echo {names}; (echo x >> $SSL_CERT_FILE) 2>/dev/null || echo read-only; ls /run/roadstead || true\n\
         USER app\nRUN head -c 27 $CURL_CA_BUNDLE; touch /tmp/made\nRUN <<EOF\n#!/bin/sh\ntest -r $SSL_CERT_FILE && echo in a script\nEOF\nUSER root\nRUN rm -rf /run; mkdir /run; echo done\n"
    ));
    let outcome = site.build(&["-t", "with", "--ca-bundle", &path]).good();
    let inside = "/run/roadstead/ca-bundle.pem";
    let said = outcome.said().join("\n");
    let want = VARIABLES
        .map(|n| match n {
            "PIP_CERT" => "/own",
            "AWS_CA_BUNDLE" => "/arg",
            _ => inside,
        })
        .join(" ");
    for line in [
        want.as_str(),
        "read-only",
        "ca-bundle.pem",
        "-----BEGIN CERTIFICATE-----",
        "in a script",
    ] {
        assert!(said.lines().any(|l| l == line), "no line `{line}`: {said}");
    }
    // Nothing of it remains: config, history, layers, and with or without it the steps are the same.
    let image = site.image("with");
    let text = image.document.to_string();
    assert!(
        !text.contains("ca-bundle") && !image.config().to_string().contains("SSL_CERT_FILE"),
        "{text}"
    );
    assert!(
        !image.tree.keys().any(|p| p.contains("roadstead")),
        "{:?}",
        image.layers
    );
    assert_eq!(site.build(&["-t", "without"]).good().ran(), [""; 0]);
    assert_eq!(site.image("without").digest, image.digest);
    let without = site.build(&["--no-cache"]).good();
    assert!(
        without
            .said()
            .iter()
            .any(|l| l.trim() == "/own /arg" || l.contains("/own") && !l.contains(inside)),
        "{}",
        without.log
    );
}

#[test]
fn a_site_may_set_it_for_all_builds() {
    let site = Site::new();
    let path = bundle(&site);
    std::fs::write(
        site.dir().join("config/config.toml"),
        format!("ca-bundle = \"{path}\"\n"),
    )
    .unwrap();
    site.dockerfile("FROM base\nRUN echo $SSL_CERT_FILE\n");
    assert!(site.build(&[]).good().said().contains(&"/run/roadstead/ca-bundle.pem"));
    let log = site.build(&["--ca-bundle", "/no/such.pem"]).bad(2);
    assert!(log.contains("/no/such.pem"), "{log}");
    site.file("bad.pem", "no certificate");
    let bad = site.context().join("bad.pem");
    let log = site.build(&["--ca-bundle", bad.to_str().unwrap()]).bad(1);
    assert!(log.contains("bad.pem"), "{log}");
}
