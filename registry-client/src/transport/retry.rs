//! Trying an operation again.
//!
//! Whole operations are tried again, not requests: an upload starts over with a session of its own, as ECR wants it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{RegistryError, Result};

/// Tries in all, for most errors.
const ATTEMPTS: u32 = 5;
/// A registry that is down should be reported soon; a restart takes about a second.
const CONNECT_ATTEMPTS: u32 = 3;
/// ECR takes ten manifests a second for a whole account: a fleet needs patience.
const RATE_ATTEMPTS: u32 = 8;
const FIRST_DELAY: Duration = Duration::from_millis(300);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// A registry that asks for more is not obeyed: the user should hear of it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Says how much trying again one whole push or pull may do, over all of its blobs and manifests.
///
/// Each operation has its own bounds besides: five tries, eight when the registry limits the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Tries beyond the first ones.
    pub retries: u32,
    /// Time spent waiting between tries.
    pub wait: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            retries: 100,
            wait: Duration::from_secs(15 * 60),
        }
    }
}

/// What is left of a budget. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Mutex<RetryBudget>>);

impl Budget {
    pub(crate) fn new(budget: RetryBudget) -> Self {
        Self(Arc::new(Mutex::new(budget)))
    }

    /// For a place beside which there is another: that one is asked rather than this one again.
    pub(crate) fn none() -> Self {
        Self::new(RetryBudget {
            retries: 0,
            wait: Duration::ZERO,
        })
    }

    /// Returns how long to wait after a failed try; `None` means to give up.
    pub(crate) fn delay(&self, error: &RegistryError, attempt: u32) -> Option<Duration> {
        let delay = delay(error, attempt)?;
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if left.retries == 0 || left.wait < delay {
            tracing::debug!("the budget for trying again is spent");
            return None;
        }
        left.retries -= 1;
        left.wait -= delay;
        Some(delay)
    }
}

/// Runs an operation until it succeeds, fails for good, or has been tried often enough.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(
    budget: &Budget,
    mut notify: impl FnMut(&RegistryError),
    mut operation: impl FnMut() -> F,
) -> Result<T> {
    let mut attempt = 1;
    loop {
        match operation().await {
            Err(error) => match budget.delay(&error, attempt) {
                Some(delay) => {
                    tracing::debug!(%error, attempt, ?delay, "trying again");
                    notify(&error);
                    tokio::time::sleep(delay).await;
                    attempt += 1;
                }
                None => return Err(error),
            },
            success => return success,
        }
    }
}

/// Returns how long to wait after a failed try of one operation; `None` means that it was tried often enough.
fn delay(error: &RegistryError, attempt: u32) -> Option<Duration> {
    let attempts = match error {
        RegistryError::Connect { .. } => CONNECT_ATTEMPTS,
        RegistryError::Status { status: 429, .. } => RATE_ATTEMPTS,
        _ => ATTEMPTS,
    };
    if !error.is_transient() || attempt >= attempts {
        return None;
    }
    let ceiling = FIRST_DELAY.saturating_mul(1 << attempt.min(10)).min(LONGEST_DELAY);
    // Half is fixed, half is random: clients that failed together must not come back together.
    let jittered = ceiling / 2 + ceiling.mul_f64(random_fraction() / 2.0);
    match error.retry_after() {
        Some(wanted) if wanted > LONGEST_RETRY_AFTER => None,
        Some(wanted) => Some(wanted.max(jittered)),
        None => Some(jittered),
    }
}

/// The standard library seeds each hasher anew, which is random enough to spread retries.
fn random_fraction() -> f64 {
    f64::from(u16::try_from(RandomState::new().build_hasher().finish() & 0xffff).unwrap_or_default()) / 65536.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn status(status: u16, retry_after: Option<u64>) -> RegistryError {
        RegistryError::Status {
            host: "r.example".to_owned(),
            operation: "x".to_owned(),
            status,
            detail: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn delays_grow_end_and_honour_the_registry() {
        for attempt in 1..ATTEMPTS {
            let ceiling = FIRST_DELAY * (1 << attempt);
            let delay = delay(&status(503, None), attempt).unwrap();
            assert!(delay >= ceiling / 2 && delay <= ceiling, "{attempt}: {delay:?}");
        }
        assert_eq!(delay(&status(503, None), ATTEMPTS), None);
        assert_eq!(delay(&status(404, None), 1), None);
        assert_eq!(delay(&status(429, Some(20)), 1), Some(Duration::from_secs(20)));
        assert_eq!(delay(&status(429, Some(3600)), 1), None);
    }

    #[tokio::test]
    async fn an_operation_is_tried_until_it_succeeds_or_fails_for_good() {
        let tries = Cell::new(0);
        let mut told = 0;
        let again = || async {
            tries.set(tries.get() + 1);
            if tries.get() < 2 {
                Err(status(503, None))
            } else {
                Ok(tries.get())
            }
        };
        assert_eq!(
            retry(&Budget::new(RetryBudget::default()), |_| told += 1, again)
                .await
                .unwrap(),
            2
        );
        assert_eq!(told, 1);
        let for_good = || async {
            tries.set(tries.get() + 1);
            Err::<(), _>(status(400, None))
        };
        assert_eq!(
            retry(&Budget::none(), |_| (), for_good).await.unwrap_err().to_string(),
            status(400, None).to_string()
        );
        assert_eq!(tries.get(), 3);
    }

    #[test]
    fn a_budget_is_shared_and_ends() {
        let budget = Budget::new(RetryBudget {
            retries: 2,
            wait: Duration::from_secs(25),
        });
        let other = budget.clone();
        assert!(budget.delay(&status(503, None), 1).is_some());
        assert_eq!(
            other.delay(&status(429, Some(25)), 1),
            None,
            "longer than what is left to wait"
        );
        assert!(other.delay(&status(503, None), 1).is_some());
        assert_eq!(budget.delay(&status(503, None), 1), None, "no tries left");
    }
}
