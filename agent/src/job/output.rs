//! The one pipe all commands of a run write to, so that their lines keep their order.
//!
//! It stays open for the whole run: a background job that a command leaves behind goes on writing without harm.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use crate::logs::Log;

const BUFFER_BYTES: usize = 64 * 1024;

/// The commands' output on its way to the log.
#[derive(Debug)]
pub(crate) struct Output {
    reader: Receiver,
    writer: OwnedFd,
    log: Log,
}

impl Output {
    pub(crate) fn new(log: Log) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            reader: Receiver::from_owned_fd(OwnedFd::from(reader))?,
            writer: OwnedFd::from(writer),
            log,
        })
    }

    /// An end to write to, for a command's stdout or stderr.
    pub(crate) fn writer(&self) -> io::Result<Stdio> {
        Ok(Stdio::from(self.writer.try_clone()?))
    }

    /// Copies output to the log until `done` ends, then what is left of what was written before that.
    pub(crate) async fn copy_until<T>(&mut self, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut buffer = vec![0; BUFFER_BYTES];
        tokio::pin!(done);
        let result = loop {
            tokio::select! {
                read = self.reader.read(&mut buffer) => self.log.raw(&buffer[..read?]),
                result = &mut done => break result?,
            }
        };
        // What the command wrote is in the pipe by now; a background job may add to it for ever, so count what is there.
        let mut left = usize::try_from(rustix::io::ioctl_fionread(&self.reader)?).unwrap_or(usize::MAX);
        while left > 0 {
            let limit = left.min(BUFFER_BYTES);
            let read = self.reader.read(&mut buffer[..limit]).await?;
            self.log.raw(&buffer[..read]);
            left = left.saturating_sub(read.max(1));
        }
        Ok(result)
    }
}
