//! Proofs: passwords that were right a short while ago, and how others are checked. A check takes a tenth of a second of a
//! core on purpose, so it is never made on a thread that carries requests, and few are made at once.
//!
//! What is remembered is a keyed hash of all that the answer hung on, the user's hash among it: one whose password was
//! changed, or who was taken away, is not let in by a memory. The key is of this process alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use appbase_core::v1::{Basic, PasswordHash, Rate, RateOf};
use dashmap::DashMap;
use lb_core::basic::Credentials;
use ring::hmac;
use tokio::sync::Semaphore;

/// Then it is checked once more.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// When there are more, all are checked once more.
const KNOWN_MAX: usize = 10_000;
/// At once: the other cores carry requests.
const CHECKS_MAX: usize = 2;
/// Requests that wait for a check; at a tenth of a second each that is some seconds.
const WAITING_MAX: usize = 100;
/// Who is wrong may try so often.
pub(crate) const TRIES: Rate = Rate { requests: 10, seconds: 60, burst: None, of: RateOf::Client };

type Proof = [u8; 32];

pub(crate) struct Proofs {
    key: hmac::Key,
    /// Until when.
    known: DashMap<Proof, Duration>,
    checks: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Too many wait already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// A place among those that are checked or wait for it.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Proofs {
    fn default() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &kit::random::bytes::<32>());
        Self { key, known: DashMap::new(), checks: Arc::new(Semaphore::new(CHECKS_MAX)), waiting: AtomicUsize::new(0) }
    }
}

impl Proofs {
    /// Whether these were right a short while ago.
    pub(crate) fn knows(&self, basic: &Basic, credentials: &Credentials, now: Duration) -> bool {
        let Some(hash) = basic.users.get(&credentials.user) else { return false };
        self.known.get(&self.proof(hash, credentials)).is_some_and(|until| *until > now)
    }

    /// Whether these are right. `may_try` is asked before work begins; its refusal is the answer.
    pub(crate) async fn check<E>(
        &self,
        basic: &Basic,
        credentials: &Credentials,
        now: Duration,
        may_try: impl FnOnce() -> Result<(), E>,
    ) -> Result<Result<bool, E>, Busy> {
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Busy);
        }
        // It is never closed.
        let Ok(permit) = Arc::clone(&self.checks).acquire_owned().await else { return Err(Busy) };
        if self.knows(basic, credentials, now) {
            return Ok(Ok(true));
        }
        if let Err(refusal) = may_try() {
            return Ok(Err(refusal));
        }
        // Somebody who is not there takes as long as somebody who is.
        let hash = basic.users.get(&credentials.user);
        let Some(tried) = hash.or_else(|| basic.users.values().next()).cloned() else { return Ok(Ok(false)) };
        let password = credentials.password.clone();
        let checking = tokio::task::spawn_blocking(move || {
            let is_right = kit::password::is_of(&tried, &password);
            drop(permit);
            is_right
        });
        let is_right = checking.await.unwrap_or(false);
        drop(waiting);
        let Some(hash) = hash.filter(|_| is_right) else { return Ok(Ok(false)) };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(self.proof(hash, credentials), now + KNOWN_FOR);
        Ok(Ok(true))
    }

    fn proof(&self, hash: &PasswordHash, credentials: &Credentials) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        // Neither a hash nor a name has a line end.
        for part in [hash.as_str().as_bytes(), b"\n", credentials.user.as_bytes(), b"\n", &credentials.password] {
            context.update(part);
        }
        let mut proof = Proof::default();
        proof.copy_from_slice(context.sign().as_ref());
        proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.to_owned(), password: password.as_bytes().to_vec() }
    }

    fn basic(password: &str) -> Basic {
        let hash = kit::password::hash_in(10_000, password.as_bytes());
        Basic { realm: Basic::usual_realm(), users: [("ada".to_owned(), hash)].into() }
    }

    #[tokio::test]
    async fn what_was_right_is_known_for_a_while_and_until_the_password_changes() {
        let (proofs, basic, now) = (Proofs::default(), basic("secret"), Duration::from_secs(5));
        let fine = || Ok::<(), ()>(());
        let right = credentials("ada", "secret");
        assert!(!proofs.knows(&basic, &right, now));
        assert_eq!(proofs.check(&basic, &right, now, fine).await, Ok(Ok(true)));
        assert_eq!(proofs.check(&basic, &right, now, || Err(())).await, Ok(Ok(true)), "no try at all");
        assert!(proofs.knows(&basic, &right, now) && !proofs.knows(&basic, &right, now + KNOWN_FOR));
        for wrong in [credentials("ada", "secre"), credentials("ada", ""), credentials("eve", "secret")] {
            assert!(!proofs.knows(&basic, &wrong, now));
            assert_eq!(proofs.check(&basic, &wrong, now, fine).await, Ok(Ok(false)));
            assert_eq!(proofs.check(&basic, &wrong, now, || Err(())).await, Ok(Err(())));
        }
        assert!(!proofs.knows(&self::basic("secret"), &right, now), "a new hash, of the same password even");
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let (proofs, basic) = (Proofs::default(), basic("secret"));
        let _all = Arc::clone(&proofs.checks).acquire_many_owned(CHECKS_MAX as u32).await.expect("free");
        let right = credentials("ada", "secret");
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(proofs.check(&basic, &right, Duration::ZERO, || Ok::<(), ()>(()))))
            .collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert_eq!(proofs.check(&basic, &right, Duration::ZERO, || Ok::<(), ()>(())).await, Err(Busy));
        drop(waiting);
        assert_eq!(proofs.waiting.load(Ordering::Relaxed), 0);
    }
}
