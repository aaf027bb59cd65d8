//! `docker buildx` in a job, against a real registry.

use std::process::Command;

use serde_json::Value;

use crate::services::{self, Service};
use crate::workspace::Workspace;

fn prepared() -> (Workspace, Service) {
    let workspace = Workspace::new();
    let registry = services::registry(&workspace, false);
    services::push_base(&workspace, &registry, "base:1");
    (workspace, registry)
}

#[track_caller]
fn assert_has(log: &str, lines: &[&str]) {
    for line in lines {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
}

#[test]
fn one_builder_under_any_name() {
    let workspace = Workspace::new();
    let done = workspace.run_commands(&[
        "docker buildx version | cut -dv -f1; docker buildx create; docker buildx inspect --bootstrap | head -2",
        "docker buildx create --name ci --driver docker-container --driver-opt network=host --platform linux/amd64 --use --bootstrap",
        "docker buildx ls --format \"{{.Name}} {{.Current}}\"; docker buildx ls | cut -c1-9",
        "docker buildx --builder default inspect | head -1; docker buildx inspect | head -1",
        "docker buildx create --name ci || echo again $?; docker buildx create --driver kubernetes || echo driver $?",
        "docker buildx create --buildkitd-flags --debug || echo flags $?; docker buildx create --platform linux/s390x || echo platform $?",
        "docker buildx create --driver-opt image=x || echo option $?",
        "docker buildx use nope || echo use $?; BUILDX_BUILDER=nope docker buildx inspect || echo variable $?",
        "docker buildx rm ci; docker buildx use ci || echo gone $?; docker buildx rm default || echo rm $?",
        "docker buildx bake || echo bake $?; docker buildx --what ls || echo what $?; docker buildx du || echo du $?",
    ]);
    assert_eq!(done.status, Some(0), "{}", done.stdout);
    assert_has(
        &done.stdout,
        &[
            "\nroadstead/buildx \n",
            "\nroadstead has one builder, `default`: no other was made\n",
            "\nName:   default\nDriver: roadstead\n",
            "\ndefault false\nci true\nNAME     \ndefault  \nci*      \n",
            "\nName:   default\nName:   ci\n",
            "\nERROR: existing instance for \"ci\"\nagain 1\n",
            "[possible values: docker, docker-container]",
            "\ndriver 1\n",
            "unexpected argument '--buildkitd-flags'",
            "\nflags 1\n",
            "\nERROR: cannot build for linux/s390x here: this machine is linux/amd64\nplatform 1\n",
            "\noption 1\n",
            "\nERROR: no builder \"nope\" found\nuse 1\n",
            "\nERROR: no builder \"nope\" found\nvariable 1\n",
            "\nci removed\nERROR: no builder \"ci\" found\ngone 1\n",
            "\nERROR: `default` cannot be removed\nrm 1\n",
            "\ndocker buildx bake is not served by roadstead: build each target by itself, with `docker build -f DOCKERFILE -t NAME CONTEXT`\nbake 1\n",
            "\ndocker buildx --what is not served by roadstead\nwhat 1\n",
            "\ndocker buildx du is not served by roadstead\ndu 1\n",
        ],
    );
    workspace.assert_tidy();
}

#[test]
fn builds_with_the_flags_of_buildx() {
    let (workspace, registry) = prepared();
    let name = format!("127.0.0.1:{}/built", registry.port);
    workspace.write("src/Dockerfile", "FROM scratch\nCOPY Dockerfile /file\n");
    let done = workspace.run_commands(&[
        "docker buildx create --name ci --use > /dev/null",
        &format!("docker buildx build --builder ci --load --platform linux/amd64 -t {name}:1 --push ."),
        "docker buildx --builder=ci build --load=true -q -o type=local,dest=out . > /dev/null && ls out",
        "docker build --builder default -q . | cut -c1-7",
        "docker buildx build --builder nope . || echo builder $?; BUILDX_BUILDER=nope docker build . || echo variable $?",
        "docker buildx build --ssh default . || echo ssh $?; docker buildx build --progress=tty . || echo tty $?",
        &format!("docker inspect -f \"{{{{index .RepoTags 0}}}}\" {name}:1; roadstead imagedefinitions app={name}:1 --pin; cat imagedefinitions.json"),
    ]);
    assert_eq!(done.status, Some(0), "{}", done.stdout);
    assert_has(
        &done.stdout,
        &[
            "\nfile\n",
            "\nsha256:\n",
            "\nERROR: no builder \"nope\" found\nbuilder 1\n",
            "\nERROR: no builder \"nope\" found\nvariable 1\n",
            "`--ssh default`: SSH_AUTH_SOCK is not set: start an agent",
            "\nssh 1\n",
            "\ntty 1\n",
            &format!("\n{name}:1\n"),
            &format!("\"imageUri\":\"{name}@sha256:"),
        ],
    );
    workspace.assert_tidy();
}

#[test]
fn imagetools_against_a_registry() {
    let (workspace, registry) = prepared();
    services::push_arm(&workspace, &registry, "arm:1");
    let at = format!("127.0.0.1:{}", registry.port);
    let tools = "docker buildx imagetools";
    let done = workspace.run_commands(&[
        &format!("{tools} create -t {at}/app:multi -t {at}/app:other --annotation index:org.example.by=me {at}/base:1 {at}/arm:1"),
        &format!("{tools} inspect {at}/app:multi | grep -v Digest; {tools} inspect --raw {at}/app:multi > raw.json"),
        &format!("echo digest $({tools} inspect --format \"{{{{.Manifest.Digest}}}}\" {at}/app:multi) $(sha256sum < raw.json | cut -d\" \" -f1)"),
        &format!("{tools} inspect --format \"{{{{json .Image}}}}\" {at}/app:multi > image.json"),
        // A copy of one index keeps its digest, digests are found in the only repository there is, a descriptor is checked.
        &format!("{tools} create --progress=plain -t {at}/copy:1 {at}/app:multi; {tools} create -t {at}/single:1 --prefer-index=false {at}/arm:1"),
        &format!("D=$({tools} inspect --format \"{{{{.Manifest.Digest}}}}\" {at}/base:1); echo \"{{\\\"digest\\\":\\\"$D\\\"}}\" > source"),
        &format!("{tools} create -t {at}/base:index -f source; {tools} create -t {at}/base:index --append {at}/arm:1"),
        &format!("{tools} create --dry-run -t {at}/base:index $D > dry.json; echo \"{{\\\"digest\\\":\\\"$D\\\",\\\"size\\\":1}}\" > source"),
        &format!("{tools} create -t {at}/base:bad -f source || echo size $?; {tools} create -t {at}/app:bad --annotation a=b {at}/arm:1 || echo annotation $?"),
        &format!("{tools} create {at}/arm:1 || echo no tag $?; {tools} create -t {at}/x:1 || echo no source $?; {tools} inspect {at}/base:bad || echo bad $?"),
        &format!("{tools} create -t {at}/x:1 --builder nope {at}/arm:1 || echo builder $?; {tools} prune || echo prune $?"),
        &format!("{tools} inspect --format \"{{{{range .Manifest}}}}\" {at}/base:1 || echo template $?"),
        &format!("roadstead imagedefinitions app={at}/app:multi --pin; cat imagedefinitions.json"),
    ]);
    let log = done.stdout.as_str();
    assert_eq!(done.status, Some(0), "{log}");
    // Read back by a tool that shares no code with this one.
    let raw = |name: &str| -> Vec<u8> {
        let image = format!("docker://{at}/{name}");
        let arguments = ["inspect", "--raw", "--tls-verify=false", &image];
        Command::new("skopeo").args(arguments).output().unwrap().stdout
    };
    let document = |name: &str| -> Value { serde_json::from_slice(&raw(name)).unwrap() };
    let multi = document("app:multi");
    let architectures = |index: &Value| -> Vec<String> {
        let entries = index["manifests"].as_array().unwrap().iter();
        entries
            .map(|entry| entry["platform"]["architecture"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(architectures(&multi), ["amd64", "arm64"]);
    assert_eq!(multi["annotations"]["org.example.by"], "me");
    assert_eq!(raw("app:other"), raw("app:multi"));
    assert_eq!(raw("copy:1"), raw("app:multi"));
    assert_eq!(raw("single:1"), raw("arm:1"));
    assert_eq!(architectures(&document("base:index")), ["amd64", "arm64"]);
    let read = |name: &str| -> Value { serde_json::from_str(&workspace.read(&format!("src/{name}"))).unwrap() };
    assert_eq!(architectures(&read("dry.json")), ["amd64"]);
    assert_eq!(read("image.json")["linux/arm64"]["architecture"], "arm64");
    let digest = |at: usize| multi["manifests"][at]["digest"].as_str().unwrap().to_owned();
    let kind = "application/vnd.oci.image";
    let shown = format!(
        "\nName:      {at}/app:multi\nMediaType: {kind}.index.v1+json\n\nManifests:\n  Name:      {at}/app:multi@{}\n  MediaType: \
         {kind}.manifest.v1+json\n  Platform:  linux/amd64\n\n  Name:      {at}/app:multi@{}\n",
        digest(0),
        digest(1)
    );
    let own = log
        .lines()
        .find_map(|line| line.strip_prefix("digest sha256:"))
        .unwrap();
    let (own, sum) = own.split_once(' ').unwrap();
    assert_eq!(own, sum, "{log}");
    assert_has(
        log,
        &[
            &shown,
            &format!("\n#2 pushing sha256:{own} to {at}/app:other done\n#2 DONE "),
            "\nERROR: the size of sha256:",
            "\nsize 1\n",
            "only the index can be annotated: index:KEY=VALUE",
            "\nannotation 1\n",
            "\nERROR: can't push with no tags specified, please set --tag or --dry-run\nno tag 1\n",
            "\nERROR: no sources specified\nno source 1\n",
            "\nbad 1\n",
            "\nERROR: no builder \"nope\" found\nbuilder 1\n",
            "\ndocker buildx imagetools prune is not served by roadstead\nprune 1\n",
            "is not served by roadstead\ntemplate 1\n",
            &format!("\"imageUri\":\"{at}/app@sha256:{own}\""),
        ],
    );
    workspace.assert_tidy();
}
