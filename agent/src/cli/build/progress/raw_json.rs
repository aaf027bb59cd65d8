//! Progress for machines: BuildKit's SolveStatus documents, one a line.
//!
//! Source: the JSON names of `client/graph.go` in BuildKit. Inputs of a vertex are not told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use roadstead_builder::progress::{Event, Sink, Stream, VertexId};
use roadstead_registry_client::Digest;
use serde::Serialize;

use super::{Renderer, write_line};
use crate::notices;

/// Writes a document for each event.
pub(super) struct RawJson {
    /// Makes the digests of this build's vertices its own.
    build: String,
    running: Mutex<HashMap<VertexId, (String, String)>>,
}

/// Times are in RFC 3339.
#[derive(Debug, Default, Serialize)]
struct SolveStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct Vertex {
    digest: String,
    name: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Debug, Serialize)]
struct Status {
    id: String,
    vertex: String,
    current: i64,
    timestamp: String,
    started: String,
    completed: String,
}

#[derive(Debug, Serialize)]
struct Log {
    vertex: String,
    /// 1 or 2, as file descriptors are numbered.
    stream: u8,
    /// In base64.
    data: String,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct Warning {
    level: u8,
    /// In base64.
    short: String,
}

impl RawJson {
    /// Begins to write; notices become warnings, so that every line is a document.
    pub(super) fn start() -> Arc<Self> {
        notices::redirect(Some(Box::new(|line| write(&warning(line)))));
        Arc::new(Self::new(uuid::Uuid::new_v4().to_string()))
    }

    fn new(build: String) -> Self {
        Self {
            build,
            running: Mutex::default(),
        }
    }

    fn digest(&self, id: VertexId) -> String {
        Digest::of(format!("{} {id}", self.build).as_bytes()).to_string()
    }

    fn document(&self, event: &Event, now: &str) -> SolveStatus {
        let mut status = SolveStatus::default();
        match event {
            Event::Started { id, name } => {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.insert(*id, (name.clone(), now.to_owned()));
                status.vertexes.push(Vertex {
                    digest: self.digest(*id),
                    name: name.clone(),
                    started: now.to_owned(),
                    completed: None,
                    cached: false,
                    error: String::new(),
                });
            }
            Event::Log { id, stream, line, .. } => status.logs.push(Log {
                vertex: self.digest(*id),
                stream: match stream {
                    Stream::Output => 1,
                    Stream::Error => 2,
                },
                data: STANDARD.encode(format!("{line}\n")),
                timestamp: now.to_owned(),
            }),
            Event::Note { id, text } => status.statuses.push(Status {
                id: text.clone(),
                vertex: self.digest(*id),
                current: 0,
                timestamp: now.to_owned(),
                started: now.to_owned(),
                completed: now.to_owned(),
            }),
            Event::Warning { message } => status = warning(message),
            Event::Cached { id } => status.vertexes.extend(self.ended(*id, now, true, "")),
            Event::Done { id, .. } => status.vertexes.extend(self.ended(*id, now, false, "")),
            Event::Failed { id, message } => status.vertexes.extend(self.ended(*id, now, false, message)),
            // The words by which readers of these documents tell this end from a failure.
            Event::Canceled { id } => status.vertexes.extend(self.ended(*id, now, false, "context canceled")),
        }
        status
    }

    fn ended(&self, id: VertexId, now: &str, cached: bool, error: &str) -> Option<Vertex> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, started) = running.remove(&id)?;
        Some(Vertex {
            digest: self.digest(id),
            name,
            started,
            completed: Some(now.to_owned()),
            cached,
            error: error.to_owned(),
        })
    }
}

fn warning(message: &str) -> SolveStatus {
    SolveStatus {
        warnings: vec![Warning {
            level: 1,
            short: STANDARD.encode(message),
        }],
        ..SolveStatus::default()
    }
}

fn write(status: &SolveStatus) {
    if let Ok(text) = serde_json::to_string(status) {
        write_line(&text);
    }
}

impl Sink for RawJson {
    fn event(&self, event: &Event) {
        write(&self.document(event, &Timestamp::now().to_string()));
    }
}

impl Renderer for RawJson {
    fn finish(&self) {
        notices::redirect(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_buildkits() {
        let json = RawJson::new("build".to_owned());
        let other = RawJson::new("other".to_owned());
        let digest = json.digest(1);
        assert!(digest.starts_with("sha256:") && digest != json.digest(2) && digest != other.digest(1));
        let say = |event: &Event, second| {
            let status = json.document(event, &Timestamp::from_second(second).unwrap().to_string());
            serde_json::to_string(&status).unwrap().replace(&digest, "D")
        };
        let started = Event::Started {
            id: 1,
            name: "[1/2] RUN a".to_owned(),
        };
        let log = Event::Log {
            id: 1,
            stream: Stream::Error,
            line: "hello".to_owned(),
            seconds: 1.0,
        };
        let (id, text, message) = (1, "exporting".to_owned(), "no".to_owned());
        for (event, second, want) in [
            (
                &started,
                0,
                r#"{"vertexes":[{"digest":"D","name":"[1/2] RUN a","started":"1970-01-01T00:00:00Z"}]}"#,
            ),
            (
                &log,
                1,
                r#"{"logs":[{"vertex":"D","stream":2,"data":"aGVsbG8K","timestamp":"1970-01-01T00:00:01Z"}]}"#,
            ),
            (
                &Event::Note { id, text },
                2,
                r#"{"statuses":[{"id":"exporting","vertex":"D","current":0,"timestamp":"1970-01-01T00:00:02Z","started":"1970-01-01T00:00:02Z","completed":"1970-01-01T00:00:02Z"}]}"#,
            ),
            (
                &Event::Failed { id, message },
                3,
                r#"{"vertexes":[{"digest":"D","name":"[1/2] RUN a","started":"1970-01-01T00:00:00Z","completed":"1970-01-01T00:00:03Z","error":"no"}]}"#,
            ),
            (
                &started,
                4,
                r#"{"vertexes":[{"digest":"D","name":"[1/2] RUN a","started":"1970-01-01T00:00:04Z"}]}"#,
            ),
            (
                &Event::Cached { id },
                5,
                r#"{"vertexes":[{"digest":"D","name":"[1/2] RUN a","started":"1970-01-01T00:00:04Z","completed":"1970-01-01T00:00:05Z","cached":true}]}"#,
            ),
            (
                &Event::Warning {
                    message: "hi".to_owned(),
                },
                6,
                r#"{"warnings":[{"level":1,"short":"aGk="}]}"#,
            ),
        ] {
            assert_eq!(say(event, second), want);
        }
    }
}
