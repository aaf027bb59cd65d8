use roadstead_builder::progress::Stream;

use super::*;

const CANVAS: Canvas = Canvas {
    columns: 40,
    rows: 24,
    colour: false,
};

/// A tree to which things happen at given tenths of a second.
struct Build {
    begun: Instant,
    tree: Tree,
}

impl Build {
    fn new() -> Self {
        let begun = Instant::now();
        let tree = Tree::new(begun);
        Self { begun, tree }
    }

    fn at(&self, tenths: u64) -> Instant {
        self.begun + Duration::from_millis(tenths * 100)
    }

    fn starts(&mut self, tenths: u64, id: VertexId, name: &str) {
        let name = name.to_owned();
        self.tree.event(&Event::Started { id, name }, self.at(tenths));
    }

    fn says(&mut self, id: VertexId, line: &str) {
        let event = Event::Log {
            id,
            stream: Stream::Output,
            line: line.to_owned(),
            seconds: 0.5,
        };
        self.tree.event(&event, self.begun);
    }

    fn ends(&mut self, tenths: u64, event: &Event) {
        self.tree.event(event, self.at(tenths));
    }

    fn draw(&self, tenths: u64, canvas: Canvas) -> Vec<String> {
        self.tree.draw(self.at(tenths), canvas)
    }
}

fn some_steps() -> Build {
    let mut build = Build::new();
    build.starts(0, 1, "[internal] load build definition");
    build.ends(0, &Event::Done { id: 1, seconds: 0.0 });
    build.starts(1, 2, "[1/3] WORKDIR /app");
    build.ends(1, &Event::Cached { id: 2 });
    build.starts(2, 3, "[2/3] RUN make \u{6f22}\u{6f22} with a long list of arguments");
    build.says(3, "cc\ta.c");
    build.says(3, "\x1b[31merror\x1b[2J");
    build
}

#[test]
fn a_running_build() {
    assert_eq!(
        some_steps().draw(32, CANVAS),
        [
            "[+] Building 3.2s (2/3)",
            " => [internal] load build definitio 0.0s",
            " => CACHED [1/3] WORKDIR /app       0.0s",
            " => [2/3] RUN make \u{6f22}\u{6f22} with a long 3.0s",
            " => => # cc      a.c",
            " => => # error",
        ]
    );
}

#[test]
fn a_failed_build() {
    let mut build = some_steps();
    build.starts(3, 4, "other");
    build.ends(
        14,
        &Event::Failed {
            id: 3,
            message: "no".to_owned(),
        },
    );
    build.ends(15, &Event::Canceled { id: 4 });
    let text = "exporting".to_owned();
    build.starts(15, 5, "exporting to image");
    build.ends(15, &Event::Note { id: 5, text });
    build.ends(16, &Event::Done { id: 5, seconds: 0.1 });
    let canvas = Canvas { rows: 3, ..CANVAS };
    assert_eq!(
        build.tree.draw_whole(build.at(20), canvas),
        [
            "[+] Building 2.0s (5/5) FINISHED",
            " => [internal] load build definitio 0.0s",
            " => CACHED [1/3] WORKDIR /app       0.0s",
            " => ERROR [2/3] RUN make \u{6f22}\u{6f22} with  1.2s",
            " => CANCELED other                  1.2s",
            " => exporting to image              0.1s",
            " => => exporting",
        ]
    );
    let name = "[2/3] RUN make \u{6f22}\u{6f22} with a long list of arguments";
    let said = ["0.500 cc      a.c".to_owned(), "0.500 error".to_owned()];
    let want = [
        vec!["------".to_owned(), format!(" > {name}:")],
        said.to_vec(),
        vec!["------".to_owned()],
    ];
    assert_eq!(build.tree.failures(), want.concat());
}

#[test]
fn colours_tell_how_a_step_ended() {
    let mut build = some_steps();
    build.starts(4, 4, "x");
    build.ends(
        4,
        &Event::Failed {
            id: 4,
            message: String::new(),
        },
    );
    let lines = build.draw(5, Canvas { colour: true, ..CANVAS });
    let begins: Vec<&str> = lines.iter().map(|line| &line[..5]).collect();
    assert_eq!(
        begins,
        [
            "[+] B", "\x1b[34m", "\x1b[34m", " => [", "\x1b[2m ", "\x1b[2m ", "\x1b[31m"
        ]
    );
    assert!(lines[1].ends_with("0.0s\x1b[0m"));
}

#[test]
fn old_steps_give_way_to_running_ones() {
    let mut build = some_steps();
    for number in 0..8 {
        build.says(3, &format!("line {number}"));
    }
    let names = |rows| -> Vec<String> {
        let lines = build.draw(5, Canvas { rows, ..CANVAS });
        assert!(lines.len() < rows.max(2), "{lines:?}");
        lines
            .iter()
            .skip(1)
            .map(|line| line[..line.len().min(19)].trim().to_owned())
            .collect()
    };
    let output = |from: usize| (from..8).map(|n| format!("=> => # line {n}")).collect::<Vec<_>>();
    let make = "=> [2/3] RUN make".to_owned();
    let with = |first: &[&str], from| -> Vec<String> {
        let first = first.iter().map(|text| (*text).to_owned());
        first.chain([make.clone()]).chain(output(from)).collect()
    };
    assert_eq!(names(11), with(&["=> [internal] load", "=> CACHED [1/3] WO"], 2));
    assert_eq!(names(10), with(&["=> CACHED [1/3] WO"], 2));
    assert_eq!(names(9), with(&[], 2));
    assert_eq!(names(5), with(&[], 6));
    assert_eq!(names(3), with(&[], 8));
    assert_eq!(names(1), Vec::<String>::new());
}

#[test]
fn lines_fit_whatever_the_width() {
    let build = some_steps();
    for columns_wanted in 0..60 {
        let canvas = Canvas {
            columns: columns_wanted,
            ..CANVAS
        };
        let lines = [build.draw(3, canvas), build.tree.draw_whole(build.at(3), canvas)].concat();
        assert!(lines.iter().all(|line| columns(line) <= columns_wanted), "{lines:?}");
    }
}
