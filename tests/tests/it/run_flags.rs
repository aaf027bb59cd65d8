//! The flags that are about all RUN commands: names, limits, network, host name, stages that are not taken from the cache.

use crate::site::Site;

#[test]
fn hosts_are_in_etc_hosts_and_their_names_in_the_key() {
    let site = Site::new();
    site.dockerfile("FROM base\nRUN cat /etc/hosts\n");
    let flags = [
        "--add-host",
        "Db=10.1.2.3",
        "--add-host=up:host-gateway",
        "--add-host",
        "six=[2001:db8::1]",
    ];
    let outcome = site.build(&flags).good();
    let said = outcome.said();
    for line in [
        "127.0.0.1\tlocalhost buildkitsandbox",
        "10.1.2.3\tdb",
        "127.0.0.1\tup",
        "2001:db8::1\tsix",
    ] {
        assert!(said.contains(&line), "{line}: {}", outcome.log);
    }
    // As with BuildKit, another address is no other key.
    let moved = [
        "--add-host",
        "db:10.9.9.9",
        "--add-host=up:127.0.0.1",
        "--add-host",
        "six=::1",
    ];
    assert_eq!(site.build(&moved).good().ran(), [""; 0]);
    assert_eq!(site.build(&["--add-host", "db:10.9.9.9"]).good().ran().len(), 1);
    assert_eq!(
        site.image_of("FROM base\nRUN true\n").layers.len(),
        site.image_of("FROM base\n").layers.len()
    );
}

#[test]
fn limits_and_shared_memory_are_set() {
    let site = Site::new();
    site.dockerfile(
        "FROM base\nUSER app\nRUN ulimit -Sn; ulimit -Hn; ulimit -Sc; df -k /dev/shm | tail -1 | awk '{print $2}'\n",
    );
    let flags = ["--ulimit", "nofile=321:654", "--ulimit=core=0", "--shm-size", "3m"];
    let outcome = site.build(&flags).good();
    assert_eq!(outcome.said()[..4], ["321", "654", "0", "3072"], "{}", outcome.log);
    assert_eq!(site.build(&flags).good().ran(), [""; 0]);
    for other in [
        &flags[..3],
        &["--ulimit", "nofile=321:655", "--ulimit=core=0", "--shm-size=3m"],
        &[],
    ] {
        assert_eq!(site.build(other).good().ran().len(), 1, "{other:?}");
    }
    let outcome = site.build(&["--no-cache"]).good();
    assert_eq!(outcome.said()[3], "65536", "{}", outcome.log);
    // A limit beyond what the kernel takes is an error of the step.
    let log = site.build(&["--ulimit", "nofile=1:9999999999999"]).bad(1);
    assert!(
        log.contains("cannot set the limit `nofile=1:9999999999999`") && log.contains("3 | >>> RUN"),
        "{log}"
    );
}

#[test]
fn the_network_of_commands_that_do_not_say() {
    let site = Site::new();
    site.dockerfile(
        "FROM base\nRUN ls /sys/class/net /proc/net/dev > /dev/null; tail -n +3 /proc/net/dev | wc -l\nRUN --network=default tail -n +3 /proc/net/dev | wc -l\n\
         RUN --network=host readlink /proc/self/ns/net\n",
    );
    let own = std::fs::read_link("/proc/self/ns/net")
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let outcome = site.build(&["--network=none"]).good();
    assert_eq!(outcome.said()[..2], ["1", "1"], "{}", outcome.log);
    assert!(outcome.said().contains(&own.as_str()), "{}", outcome.log);
    // The network is part of the key; one that is the same by another name is not.
    assert_eq!(
        site.build(&["--network=host", "--allow=network.host"])
            .good()
            .ran()
            .len(),
        2
    );
    assert_eq!(site.build(&["--network=default"]).good().ran(), [""; 0]);
    assert_eq!(site.build(&[]).good().ran(), [""; 0]);
}

#[test]
fn the_host_name_can_be_chosen() {
    let site = Site::new();
    site.dockerfile("FROM base\nRUN hostname; grep -c here.example /etc/hosts\n");
    let outcome = site
        .build(&["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=here.example"])
        .good();
    assert_eq!(outcome.said()[..2], ["here.example", "1"], "{}", outcome.log);
    assert!(!outcome.log.contains("was not consumed"), "{}", outcome.log);
    let log = site.build(&["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=a b"]).bad(1);
    assert!(log.contains("`a b` is no host name"), "{log}");
}

#[test]
fn stages_can_be_left_out_of_the_cache() {
    let site = Site::new();
    site.dockerfile("FROM base AS one\nRUN echo 1 > /one\nFROM base AS two\nRUN echo 2 > /two\nFROM base\nCOPY --from=one /one /\nCOPY --from=two /two /\nRUN echo 3\n");
    assert_eq!(site.build(&[]).good().ran().len(), 5);
    assert_eq!(
        site.build(&["--no-cache-filter", "ONE"]).good().ran(),
        ["RUN echo 1 > /one"]
    );
    let both = site.build(&["--no-cache-filter=two,2"]).good().ran();
    assert_eq!(both.len(), 4, "{both:?}");
    let log = site.build(&["--no-cache-filter", "three"]).bad(1);
    assert!(log.contains("names `three`, which is no stage"), "{log}");
}

#[test]
fn what_a_command_may_not_have_is_refused_with_its_place() {
    let site = Site::new();
    site.dockerfile("FROM base\nRUN --security=sandbox true\n");
    site.build(&[]).good();
    for (flag, want) in [
        (
            "--security=insecure",
            "cannot honour `--security=insecure`: a RUN never gets more",
        ),
        ("--security=none", "one of sandbox and insecure"),
        (
            "--device=vendor.com/gpu=0,required",
            "cannot honour `--device=vendor.com/gpu=0,required`: a RUN sees no devices",
        ),
    ] {
        let log = site.error_of(&format!("FROM base\nRUN {flag} true\n"));
        let caret = format!("  | {}{}", " ".repeat(4), "^".repeat(flag.len()));
        assert!(
            log.contains(want) && log.contains("Dockerfile:2:5") && log.contains(&caret),
            "{log}"
        );
    }
    for (flags, want) in [
        (
            &["--memory=1g"][..],
            "cannot honour `--memory`: RUN commands have no control group",
        ),
        (&["--cgroup-parent", "x"], "cannot honour `--cgroup-parent`: RUN"),
        (&["--cpuset-cpus=0"], "cannot honour `--cpuset-cpus`: RUN"),
        (
            &["--allow", "security.insecure"],
            "cannot honour `--allow=security.insecure`",
        ),
    ] {
        let log = site.build(flags).bad(2);
        assert!(log.contains(want), "{log}");
    }
}
