//! The `docker` and `aws` commands of a job, against a real registry and a real emulator of ECR.

use std::process::Command;

use serde_json::Value;

use crate::services::{self, Service};
use crate::workspace::Workspace;

const ECR: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";

fn prepared() -> (Workspace, Service, Service) {
    let mut workspace = Workspace::new();
    let (registry, moto) = (services::registry(&workspace, false), services::moto());
    services::use_moto(&mut workspace, &moto);
    services::push_base(&workspace, &registry, "base:1");
    workspace.write(
        "config/registries.toml",
        &format!(
            "[[registry]]\nprefix = \"{ECR}\"\nlocation = \"127.0.0.1:{}\"\ninsecure = true\n",
            registry.port
        ),
    );
    (workspace, registry, moto)
}

#[test]
fn login_pull_tag_push_and_the_deploy_file() {
    let (workspace, registry, _moto) = prepared();
    let text = format!(
        r#"version: 0.2
phases:
  pre_build:
    commands:
      - aws ecr get-login-password | docker login --username AWS --password-stdin {ECR}
      - REPOSITORY_URI={ECR}/my-node-app
  build:
    commands:
      - docker pull -q 127.0.0.1:{port}/base:1
      - docker tag 127.0.0.1:{port}/base:1 $REPOSITORY_URI:abc1234
  post_build:
    commands:
      - docker push $REPOSITORY_URI:abc1234
      - printf '[{{"name":"app","imageUri":"%s"}}]' $REPOSITORY_URI:abc1234 > imagedefinitions.json
      - mkdir pinned; roadstead imagedefinitions app=$REPOSITORY_URI:abc1234 --pin --output-dir pinned
artifacts:
  files: [imagedefinitions.json, 'pinned/*']
"#,
        port = registry.port
    );
    workspace.write("src/buildspec.yml", &text);
    let done = workspace.roadstead(&["run", "src"]);
    assert_eq!(done.status, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("\nLogin Succeeded\n"));
    assert!(
        done.stdout
            .contains(&format!("\nThe push refers to repository [{ECR}/my-node-app]\n"))
    );
    // Read back by a tool that shares no code with this one.
    let image = format!("docker://127.0.0.1:{}/my-node-app:abc1234", registry.port);
    let read = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &image])
        .output();
    let digest = String::from_utf8(read.unwrap().stdout).unwrap().trim().to_owned();
    assert!(
        done.stdout.contains(&format!("\nabc1234: digest: {digest} size: ")),
        "{}",
        done.stdout
    );
    let plain: Value = serde_json::from_str(&workspace.read("artifacts/imagedefinitions.json")).unwrap();
    assert_eq!(
        plain,
        serde_json::json!([{"name": "app", "imageUri": format!("{ECR}/my-node-app:abc1234")}])
    );
    let pinned: Value = serde_json::from_str(&workspace.read("artifacts/pinned/imagedefinitions.json")).unwrap();
    assert_eq!(pinned[0]["imageUri"], format!("{ECR}/my-node-app@{digest}"));
    let detail: Value = serde_json::from_str(&workspace.read("artifacts/pinned/imageDetail.json")).unwrap();
    assert_eq!(detail["ImageDigest"], digest);
    assert_eq!(detail["RegistryId"], "123456789012");
    assert_eq!(detail["ImageTags"], serde_json::json!(["abc1234"]));
    assert!(detail["ImageSizeInBytes"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(!workspace.path("home/.docker").exists());
    workspace.assert_tidy();
}

#[test]
fn what_docker_tells_of_local_images() {
    let (workspace, registry, _moto) = prepared();
    let base = format!("127.0.0.1:{}/base", registry.port);
    let done = workspace.run_commands(&[
        &format!("docker pull {base}:1"),
        &format!("docker pull {base}:1 | tail -2; docker tag {base}:1 two; docker tag two:latest {base}:2"),
        "docker images two | sed -n 2p | cut -d\" \" -f1",
        "echo ids=$(docker images -q | wc -l)",
        &format!("docker inspect --format=\"{{{{index .RepoDigests 0}}}}\" {base}:1"),
        "docker inspect -f \"{{.Id}}\" two | cut -c1-7; docker inspect -f \"{{range .X}}{{end}}\" two || echo template $?",
        "docker inspect nothing:1 || echo inspect $?; docker tag nothing:1 x || echo tag $?",
        &format!("docker push -q -a {base}"),
        "docker rmi $(docker images -q two) || echo rmi $?",
        "docker rmi -f $(docker images -q two); docker images -q | wc -l",
        "docker info > /dev/null && docker version > /dev/null && docker --version",
        "python3 -c \"import os,socket; s=socket.socket(socket.AF_UNIX); s.connect(os.environ[\\\"ROADSTEAD_SHIM_SOCKET\\\"]); \
         s.sendall(b\\\"\\xff\\\"*5); print(\\\"answer\\\", len(s.recv(9)))\"",
        "docker compose up || echo compose $?; docker run x || echo run $?",
        "nohup dockerd --host=unix:///var/run/docker.sock & timeout 15 sh -c \"until docker info; do sleep 1; done\" > /dev/null",
    ]);
    assert_eq!(done.status, Some(0), "{}", done.stdout);
    let log = done.stdout.as_str();
    let up_to_date = format!("\nStatus: Image is up to date for {base}:1\n{base}:1\n");
    for line in [
        &format!("\nStatus: Downloaded newer image for {base}:1\n"),
        &up_to_date,
        "\ntwo\n",
        "\nids=1\n",
        &format!("\n{base}@sha256:"),
        "\nsha256:\n",
        "\ntemplate 1\n",
        "is not served by roadstead\n",
        "\nError: No such object: nothing:1\ninspect 1\n",
        "\nError response from daemon: No such image: nothing:1\ntag 1\n",
        &format!("\n{base}:1\n{base}:2\n"),
        "(must be forced)",
        "\nrmi 1\n",
        "\nUntagged: two:latest\n",
        "\n0\n",
        "\nDocker version ",
        "\nanswer 0\n",
        "docker compose is not served by roadstead: no containers run here; build each service's image with `docker build -t NAME CONTEXT`\ncompose 1\n",
        "docker run is not served by roadstead\nrun 1\n",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
}

#[test]
fn aws_calls_that_are_not_served_go_to_the_real_one() {
    let (workspace, _registry, _moto) = prepared();
    let done = workspace.run_commands(&[
        "mkdir bin; printf \"#!/bin/sh\\necho real \\\"\\$@\\\"; cat; exit 7\\n\" > bin/aws; chmod +x bin/aws",
        "PATH=$(echo $PATH | cut -d: -f1):/usr/bin:/bin; aws s3 ls || echo none $?; aws --version",
        "PATH=$PATH:$PWD/bin; echo in | aws s3 cp - \"a b\" || echo real status $?",
        "aws ecr get-login-password --region eu-west-1; eval \"$(aws ecr get-login --no-include-email | sed s/https.*//) 127.0.0.1:1\" || echo login $?",
        "aws ecr get-login-password --no-verify-ssl || echo refused $?",
        "cat > /dev/null; i=0; printf \"1\\n2\\n3\\n\" | while read n; do docker info > /dev/null; echo loop $n; done",
    ]);
    let log = done.stdout.as_str();
    assert_eq!(done.status, Some(0), "{log}");
    for line in [
        "\naws: `aws s3 ls` is not served by roadstead, and there is no other `aws` on PATH\nnone 1\n",
        "\naws-cli/2.0.0 roadstead/",
        "\nreal s3 cp - a b\nin\nreal status 7\n",
        "\n***\n",
        "\nlogin 1\n",
        "\naws: `--no-verify-ssl` of `aws ecr get-login-password` is not served by roadstead\nrefused 1\n",
        "\nloop 1\nloop 2\nloop 3\n",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
}
