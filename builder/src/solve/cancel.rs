//! Stopping a build: running commands are killed, waiting steps give up, and everything made is cleaned up on the way out.

use crate::sandbox;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// A switch shared by all steps of a build. Cloning gives the same switch.
#[derive(Debug, Clone)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    thrown: watch::Sender<bool>,
    running: Mutex<HashSet<u32>>,
}

/// Forgets a running command when dropped.
#[derive(Debug)]
pub(super) struct Registered {
    cancel: Cancel,
    id: u32,
}

/// Throws one switch after another one, until dropped.
#[derive(Debug)]
pub(super) struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                thrown: watch::Sender::new(false),
                running: Mutex::new(HashSet::new()),
            }),
        }
    }
}

impl Cancel {
    /// A switch of its own that is thrown with this one, as long as what comes with it lives. Throwing it leaves this one alone.
    pub(super) fn child(&self) -> (Self, Following) {
        let (parent, child) = (self.clone(), Self::default());
        let thrown = child.clone();
        let following = tokio::spawn(async move {
            parent.canceled().await;
            thrown.cancel();
        });
        (child, Following(following))
    }

    /// Throws the switch. Later calls change nothing.
    pub fn cancel(&self) {
        self.inner.thrown.send_replace(true);
        for id in self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sandbox::kill(*id);
        }
    }

    /// Tells whether the switch is thrown.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        *self.inner.thrown.borrow()
    }

    /// Returns when the switch is thrown.
    pub async fn canceled(&self) {
        let mut thrown = self.inner.thrown.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        drop(thrown.wait_for(|thrown| *thrown).await);
    }

    /// Has the command `id` killed when the switch is thrown, or at once when it is already.
    pub(super) fn register(&self, id: u32) -> Registered {
        self.inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id);
        if self.is_canceled() {
            sandbox::kill(id);
        }
        Registered {
            cancel: self.clone(),
            id,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancel
            .inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
