//! Signals that end a run: the first asks, the second insists.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What has been asked of the run so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// End the commands with SIGTERM and some seconds of grace.
    Stop(u8, Instant),
    /// End them at once.
    Kill(u8),
}

impl Asked {
    /// What is asked once a signal has come.
    fn after(self, number: u8, insists: bool, now: Instant) -> Self {
        match self {
            Self::Nothing if insists => Self::Kill(number),
            Self::Nothing => Self::Stop(number, now),
            Self::Stop(_, since) if !insists && now.saturating_duration_since(since) < REPEATED => self,
            Self::Stop(first, _) | Self::Kill(first) => Self::Kill(first),
        }
    }
}

/// Signals that come sooner after the first are the same request: `timeout` tells a process and its group, a terminal may repeat.
const REPEATED: Duration = Duration::from_secs(1);

/// Stands for the time limit where a signal's number stands otherwise; no signal has it.
const TIME_OVER: u8 = 0;

/// Tells whether the run shall end; clones see the same.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    asked: watch::Receiver<Asked>,
    sender: std::sync::Arc<watch::Sender<Asked>>,
}

impl Interrupt {
    /// Listens to SIGINT, SIGTERM and SIGHUP, which ask, and to SIGQUIT, which insists. Needs a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = Self::silent();
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ] {
            let mut signals = signal(kind)?;
            let sender = std::sync::Arc::clone(&interrupt.sender);
            let number = u8::try_from(kind.as_raw_value()).unwrap_or(15);
            let insists = kind == SignalKind::quit();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    sender.send_modify(|asked| *asked = asked.after(number, insists, Instant::now()));
                }
            });
        }
        Ok(interrupt)
    }

    /// One that nobody has asked anything of yet, and that hears no signal.
    pub(crate) fn silent() -> Self {
        let (sender, asked) = watch::channel(Asked::Nothing);
        Self {
            asked,
            sender: std::sync::Arc::new(sender),
        }
    }

    /// Asks for the end after `limit`; [`Interrupt::timed_out`] tells it from a signal. Needs a tokio runtime.
    pub(crate) fn expire_after(&self, limit: Duration) {
        let sender = std::sync::Arc::clone(&self.sender);
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            sender.send_if_modified(|asked| {
                let first = *asked == Asked::Nothing;
                if first {
                    *asked = Asked::Stop(TIME_OVER, Instant::now());
                }
                first
            });
        });
    }

    /// Whether the time limit asked for the end.
    pub(crate) fn timed_out(&self) -> bool {
        self.signal() == Some(TIME_OVER)
    }

    /// The number of the signal that asked for the end, if one did.
    pub(crate) fn signal(&self) -> Option<u8> {
        match *self.asked.borrow() {
            Asked::Nothing => None,
            Asked::Stop(number, _) | Asked::Kill(number) => Some(number),
        }
    }

    /// The signal's number when the end was insisted on.
    pub(crate) fn insisted(&self) -> Option<u8> {
        match *self.asked.borrow() {
            Asked::Kill(number) => Some(number),
            Asked::Nothing | Asked::Stop(..) => None,
        }
    }

    /// Ends when the run shall end.
    pub(crate) async fn wait(&mut self) {
        // The sender lives in `self`, so the channel cannot close.
        drop(self.asked.wait_for(|asked| *asked != Asked::Nothing).await);
    }

    /// Ends when the run shall end at once.
    pub(crate) async fn wait_insisting(&mut self) {
        drop(self.asked.wait_for(|asked| matches!(asked, Asked::Kill(_))).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_signal_is_no_second_one() {
        let first = Instant::now();
        let asked = Asked::Nothing.after(15, false, first);
        assert_eq!(asked, Asked::Stop(15, first));
        assert_eq!(asked.after(15, false, first + REPEATED / 2), asked);
        assert_eq!(asked.after(2, false, first + REPEATED), Asked::Kill(15));
        assert_eq!(asked.after(3, true, first), Asked::Kill(15));
        assert_eq!(Asked::Nothing.after(3, true, first), Asked::Kill(3));
    }

    #[tokio::test]
    async fn the_time_limit_asks_once_and_is_no_signal() {
        let mut interrupt = Interrupt::silent();
        assert!(interrupt.signal().is_none() && !interrupt.timed_out());
        interrupt.expire_after(Duration::from_millis(20));
        interrupt.wait().await;
        assert!(interrupt.timed_out());
        assert_eq!(interrupt.insisted(), None);
    }
}
