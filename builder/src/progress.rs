//! What a build tells while it works. Renderers live with the command line.

/// Numbers a step of one build, from 1, in the order the steps began.
pub type VertexId = u64;

/// Tells the two outputs of a command apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step began.
    Started {
        /// The step.
        id: VertexId,
        /// Its name, such as `[build 2/5] RUN npm ci`.
        name: String,
    },
    /// A step wrote a line, without its line feed.
    Log {
        /// The step.
        id: VertexId,
        /// Where it was written.
        stream: Stream,
        /// The text; bytes that are no UTF-8 are replaced.
        line: String,
        /// Seconds since the step began.
        seconds: f64,
    },
    /// The builder itself did a part of a step that is worth telling.
    Note {
        /// The step.
        id: VertexId,
        /// What was done, such as `exporting manifest sha256:…`.
        text: String,
    },
    /// A step's result was remembered; nothing ran.
    Cached {
        /// The step.
        id: VertexId,
    },
    /// A step ended well.
    Done {
        /// The step.
        id: VertexId,
        /// How long it took.
        seconds: f64,
    },
    /// A step failed.
    Failed {
        /// The step.
        id: VertexId,
        /// Why, in one line.
        message: String,
    },
    /// A step was stopped because another one failed or the user asked.
    Canceled {
        /// The step.
        id: VertexId,
    },
    /// Something the user should know that belongs to no step.
    Warning {
        /// What.
        message: String,
    },
}

/// Takes the events of a build. Called from several threads.
pub trait Sink: Send + Sync {
    /// Takes one event. Must not block for long: the build waits.
    fn event(&self, event: &Event);
}

/// Numbers steps and times them on the way to a sink.
#[derive(Clone)]
pub struct Progress {
    sink: std::sync::Arc<dyn Sink>,
    next: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

/// One step under way. Dropped without an ending it counts as canceled.
#[derive(Debug)]
pub struct Vertex {
    progress: Progress,
    id: VertexId,
    begun: std::time::Instant,
    ended: std::sync::atomic::AtomicBool,
}

impl Progress {
    /// Sends everything to `sink`.
    pub fn new(sink: std::sync::Arc<dyn Sink>) -> Self {
        Self {
            sink,
            next: std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1)),
        }
    }

    /// Begins a step.
    #[must_use]
    pub fn start(&self, name: impl Into<String>) -> Vertex {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.sink.event(&Event::Started { id, name: name.into() });
        Vertex {
            progress: self.clone(),
            id,
            begun: std::time::Instant::now(),
            ended: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Passes on a line about the step `id`, `seconds` after it began.
    pub(crate) fn tell(&self, id: VertexId, line: impl Into<String>, seconds: f64) {
        self.sink.event(&Event::Log {
            id,
            stream: Stream::Error,
            line: line.into(),
            seconds,
        });
    }

    /// Warns the user.
    pub fn warn(&self, message: impl Into<String>) {
        self.sink.event(&Event::Warning {
            message: message.into(),
        });
    }
}

impl Vertex {
    /// Its number, for those who speak of it after it was handed on.
    #[must_use]
    pub(crate) fn id(&self) -> VertexId {
        self.id
    }

    fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Passes on one line of the step's output.
    pub fn log(&self, stream: Stream, line: impl Into<String>) {
        self.progress.sink.event(&Event::Log {
            id: self.id,
            stream,
            line: line.into(),
            seconds: self.seconds(),
        });
    }

    /// Tells a part of the step that was done.
    pub fn note(&self, text: impl Into<String>) {
        self.progress.sink.event(&Event::Note {
            id: self.id,
            text: text.into(),
        });
    }

    fn end(&self, event: &Event) {
        if !self.ended.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.progress.sink.event(event);
        }
    }

    /// Ends the step as remembered.
    pub fn cached(&self) {
        self.end(&Event::Cached { id: self.id });
    }

    /// Ends the step well.
    pub fn done(&self) {
        self.end(&Event::Done {
            id: self.id,
            seconds: self.seconds(),
        });
    }

    /// Ends the step as failed.
    pub fn failed(&self, message: impl Into<String>) {
        self.end(&Event::Failed {
            id: self.id,
            message: message.into(),
        });
    }
}

impl Drop for Vertex {
    fn drop(&mut self) {
        self.end(&Event::Canceled { id: self.id });
    }
}
