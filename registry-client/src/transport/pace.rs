//! Spacing requests that a host counts.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// ECR takes ten PutImage a second for a whole account and region (Service Quotas); a little slower leaves room for others.
const ECR_MANIFEST_INTERVAL: Duration = Duration::from_millis(120);

/// Gives each request its moment.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    next: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    /// Waits until a manifest may be sent to a host. Only Amazon ECR is known to count them.
    pub(crate) async fn manifest(&self, host: &str) {
        if let Some(registry) = crate::ecr::parse_host(host) {
            let key = format!("{} {}", registry.account, registry.region);
            tokio::time::sleep_until(self.book(key, ECR_MANIFEST_INTERVAL)).await;
        }
    }

    fn book(&self, key: String, interval: Duration) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mine = next.get(&key).copied().filter(|booked| *booked > now).unwrap_or(now);
        next.insert(key, mine + interval);
        mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spaced_for_each_account_and_region_apart() {
        let pace = Pace::default();
        let second = Duration::from_secs(1);
        let first = pace.book("a".to_owned(), second);
        assert_eq!(pace.book("a".to_owned(), second) - first, second);
        assert_eq!(pace.book("a".to_owned(), second) - first, 2 * second);
        assert!(pace.book("b".to_owned(), second) < first + second);
    }
}
