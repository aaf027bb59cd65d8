//! One call of a shim, as the runner sees it.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

use super::frame::{self, Kind, PIECE_BYTES, Request};
use crate::error::chain;

/// Tells that the shim is gone or the run ends.
#[derive(Debug, Clone)]
pub(super) struct Gone(pub(super) watch::Receiver<bool>);

impl Gone {
    /// Ends when nobody wants the call's result any more.
    pub(super) async fn wait(&mut self) {
        // An error means that the watching task has ended, which comes to the same.
        drop(self.0.wait_for(|gone| *gone).await);
    }
}

/// A call.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) request: Request,
    writer: OwnedWriteHalf,
    stdin: mpsc::Receiver<Vec<u8>>,
    gone: Gone,
}

impl Session {
    pub(super) fn new(request: Request, writer: OwnedWriteHalf, stdin: mpsc::Receiver<Vec<u8>>, gone: Gone) -> Self {
        Self {
            request,
            writer,
            stdin,
            gone,
        }
    }

    /// The caller's directory.
    pub(super) fn directory(&self) -> PathBuf {
        PathBuf::from(&self.request.directory)
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        self.writer.write_all(&frame::encode(kind, payload)?).await
    }

    async fn stream(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.send(kind, piece).await?;
        }
        Ok(())
    }

    pub(super) async fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream(Kind::Stdout, bytes).await
    }

    pub(super) async fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream(Kind::Stderr, bytes).await
    }

    /// Writes a line to stdout.
    pub(super) async fn line(&mut self, text: &str) -> io::Result<()> {
        self.stdout(format!("{text}\n").as_bytes()).await
    }

    /// Writes a document to stdout.
    pub(super) async fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(value).map_err(io::Error::other)?;
        self.stdout(&text).await
    }

    /// Writes an error and gives the status it ends with.
    pub(super) async fn fail(&mut self, text: &str) -> io::Result<u8> {
        self.stderr(format!("{text}\n").as_bytes()).await?;
        Ok(1)
    }

    /// Writes an error of the registry client, its causes and what to do about it.
    pub(super) async fn fail_with(&mut self, error: &roadstead_registry_client::Error) -> io::Result<u8> {
        let hint = error.hint().map(|hint| format!("\n\nhint: {hint}")).unwrap_or_default();
        self.fail(&format!("error: {}{hint}", chain(error))).await
    }

    pub(super) async fn exit(&mut self, status: u8) -> io::Result<()> {
        self.send(Kind::Exit, &[status]).await
    }

    /// Asks the shim for its stdin.
    pub(super) async fn ask_stdin(&mut self) -> io::Result<()> {
        self.send(Kind::SendStdin, &[]).await
    }

    /// The next piece of stdin; `None` at its end. Safe to drop before it ends.
    pub(super) async fn next_stdin(&mut self) -> Option<Vec<u8>> {
        self.stdin.recv().await.filter(|piece| !piece.is_empty())
    }

    /// All of stdin, at most `limit` bytes.
    pub(super) async fn read_stdin(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        self.ask_stdin().await?;
        let mut bytes = Vec::new();
        while let Some(piece) = self.next_stdin().await {
            bytes.extend_from_slice(&piece);
            if bytes.len() > limit {
                return Err(io::Error::other("stdin is too large"));
            }
        }
        Ok(bytes)
    }

    /// A copy of the flag that the shim is gone or the run ends.
    pub(super) fn gone(&self) -> Gone {
        self.gone.clone()
    }
}
