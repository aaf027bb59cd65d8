use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;
use crate::logs::{Log, Secrets};
use crate::scratch::Scratch;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Session {
    shell: Shell,
    output: Output,
    shared: Shared,
    interrupt: Interrupt,
    scratch: Scratch,
}

impl Session {
    fn new(kind: ShellKind, version: Version) -> Self {
        let scratch = Scratch::new().unwrap();
        let state = scratch.directory("state").unwrap();
        let start = scratch.directory("it's a start").unwrap().canonicalize().unwrap();
        let variables = [
            ("PATH".to_owned(), std::env::var_os("PATH").unwrap()),
            ("X;echo injected;".to_owned(), "".into()),
            ("ODD".to_owned(), "a'b\nc $HOME \\ \"".into()),
        ];
        let shell = Shell::new(kind, version, &state, &start, &variables.into()).unwrap();
        let shared = Shared::default();
        let log = Log::new(Secrets::default(), Box::new(shared.clone()));
        Self {
            shell,
            output: Output::new(log).unwrap(),
            shared,
            interrupt: Interrupt::silent(),
            scratch,
        }
    }

    /// Runs a command; gives its status text and output.
    async fn run(&mut self, command: &str) -> (String, String) {
        self.shared.0.lock().unwrap().clear();
        let ended = self
            .shell
            .run(command, &mut self.output, &mut self.interrupt)
            .await
            .unwrap();
        let Ended::Exited(status) = ended else {
            panic!("interrupted")
        };
        let mut log = Vec::new();
        log.append(&mut self.shared.0.lock().unwrap());
        (status_text(status), String::from_utf8(log).unwrap())
    }

    async fn out(&mut self, command: &str) -> String {
        let (status, output) = self.run(command).await;
        assert_eq!(status, "exit status 0", "{command}: {output}");
        output
    }
}

const KINDS: [ShellKind; 2] = [ShellKind::Sh, ShellKind::Bash];

#[tokio::test]
async fn what_carries_over_and_what_does_not() {
    for kind in KINDS {
        let mut s = Session::new(kind, Version::V0_2);
        // Nothing of the name that is none is to be seen.
        assert_eq!(s.out("printf %s \"$ODD\"").await, "a'b\nc $HOME \\ \"");
        s.out("FOO=bar; LINES_=$(printf 'a\\nb'); EMPTY=").await;
        assert_eq!(
            s.out("printf '%s|%s|%s' \"$FOO\" \"$LINES_\" \"${EMPTY-unset}\"").await,
            "bar|a\nb|"
        );
        s.out("unset FOO; mkdir -p \"d e\"; cd \"d e\"").await;
        assert!(s.out("echo ${FOO-gone}; pwd").await.ends_with("it's a start/d e\n"));
        assert!(s.out("cd \"$OLDPWD\"; pwd").await.ends_with("it's a start\n"));
        s.out("f() { echo hi; }; set -e; alias x=y").await;
        let (status, text) = s.run("false\nf").await;
        assert_eq!(status, "exit status 127");
        assert!(text.contains("not found"), "{text}");
    }
}

#[tokio::test]
async fn exit_and_exec_save_nothing() {
    for kind in KINDS {
        let mut s = Session::new(kind, Version::V0_2);
        for leave in ["exit 0", "exec true"] {
            s.out(&format!("KEPT=no; cd /; {leave}")).await;
            let shown = s.out("echo ${KEPT-unset}; pwd").await;
            assert!(
                shown.starts_with("unset\n") && shown.ends_with("it's a start\n"),
                "{shown}"
            );
        }
    }
}

#[tokio::test]
async fn errors_name_line_four() {
    let mut s = Session::new(ShellKind::Bash, Version::V0_2);
    let (status, text) = s.run("no-such-command").await;
    assert_eq!(status, "exit status 127");
    assert!(
        text.contains("script.sh: line 4: no-such-command: command not found"),
        "{text}"
    );
    let (_, text) = s.run("true\nno-such-command").await;
    assert!(text.contains("line 5:"), "{text}");
}

#[tokio::test]
async fn statuses_blocks_and_the_last_exit() {
    for kind in KINDS {
        let mut s = Session::new(kind, Version::V0_2);
        assert_eq!(s.run("sh -c 'exit 3'").await.0, "exit status 3");
        assert_eq!(s.out("echo $CODEBUILD_LAST_EXIT").await, "3\n");
        assert_eq!(
            s.run("set -x; false").await,
            ("exit status 1".into(), "+ false\n".into())
        );
        assert_eq!(s.run("false \\").await.0, "exit status 1");
        assert_eq!(s.out("KEPT=yes \\").await, "");
        assert_eq!(s.out("echo $KEPT \\").await, "yes\n");
        assert_eq!(s.run("false\necho masked").await.0, "exit status 0");
        assert_eq!(s.run("kill -9 $$").await.0, "signal: killed");
        assert_eq!(s.run("trap 'echo bye' EXIT").await.1, "bye\n");
        assert_eq!(s.run("sleep 0 & echo $! > p").await.0, "exit status 0");
        assert_eq!(s.run("wait $(cat p)").await.0, "exit status 127");
    }
}

#[tokio::test]
async fn version_0_1_starts_afresh() {
    let mut s = Session::new(ShellKind::Sh, Version::V0_1);
    s.out("FOO=bar; cd /").await;
    let shown = s.out("echo ${FOO-unset}; pwd").await;
    assert!(
        shown.starts_with("unset\n") && shown.ends_with("it's a start\n"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_background_job_neither_hangs_nor_loses_its_output() {
    let mut s = Session::new(ShellKind::Sh, Version::V0_2);
    s.out("(while [ ! -e go ]; do sleep 0.05; done; echo late; : > done) & echo early")
        .await;
    let shown = s.out(": > go; while [ ! -e done ]; do sleep 0.05; done").await;
    assert_eq!(shown, "late\n");
}

#[tokio::test]
async fn large_output_and_large_values_are_whole() {
    let mut s = Session::new(ShellKind::Sh, Version::V0_2);
    let shown = s
        .out("head -c 3000000 /dev/zero | tr '\\0' x; BIG=$(head -c 100000 /dev/zero | tr '\\0' y)")
        .await;
    assert_eq!(shown.len(), 3_000_000);
    assert_eq!(s.out("echo ${#BIG}").await, "100000\n");
    drop(s.scratch);
}

#[tokio::test]
async fn queries_see_the_last_state() {
    for kind in KINDS {
        let mut s = Session::new(kind, Version::V0_2);
        s.out("A='x y\n'; EMPTY=").await;
        let names = ["A", "EMPTY", "NONE"].map(str::to_owned);
        let values = s.shell.exported(&names).await.unwrap();
        assert_eq!(
            values.into_iter().collect::<Vec<_>>(),
            [("A".into(), "x y\n".into()), ("EMPTY".into(), String::new())]
        );
        assert_eq!(s.shell.expand("n-$(echo 1)-$EMPTY").await.unwrap(), b"n-1-");
    }
}
