//! Experience: what requests have told of one instance. Written and read without a lock by all threads: what two of them
//! write in one moment may mix, which costs a choice that is a little worse.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lb_core::http1::ResponseHead;
use lb_core::latency::{Failures, Latency};

/// An instance may ask for this much (`Retry-After`).
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// Times are nanoseconds of lb's clock; 0 is never.
#[derive(Debug, Default)]
pub(crate) struct Experience {
    mean: AtomicU64,
    mean_at: AtomicU64,
    /// The bits of a float.
    failing: AtomicU64,
    failing_at: AtomicU64,
    backs_off_until: AtomicU64,
    failures_in_a_row: AtomicU32,
}

impl Experience {
    /// The head of an answer came, good or bad.
    pub(crate) fn answered(&self, took: Duration, now: Duration) {
        let latency = Latency::answered(self.latency(), took, now);
        self.mean.store(nanos(latency.mean), Ordering::Relaxed);
        self.mean_at.store(nanos(latency.at).max(1), Ordering::Relaxed);
    }

    /// A whole answer came, and was good.
    pub(crate) fn went_well(&self, now: Duration) {
        if self.failures_in_a_row.load(Ordering::Relaxed) > 0 {
            self.begin_a_new_row();
        }
        if self.failing_at.load(Ordering::Relaxed) > 0 {
            self.judge(false, now);
        }
    }

    /// The app says itself that it failed. That says nothing of the row of gateway failures.
    pub(crate) fn failed(&self, now: Duration) {
        self.judge(true, now);
    }

    /// Gateway failures in a row, this one included.
    pub(crate) fn gateway_failed(&self, now: Duration) -> u32 {
        self.judge(true, now);
        self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(crate) fn begin_a_new_row(&self) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
    }

    /// It asked for this time without requests.
    pub(crate) fn back_off(&self, wanted: Duration, now: Duration) {
        self.backs_off_until.fetch_max(nanos(now + wanted.min(BACK_OFF_MAX)), Ordering::Relaxed);
    }

    pub(crate) fn backs_off(&self, now: Duration) -> bool {
        let until = self.backs_off_until.load(Ordering::Relaxed);
        until > 0 && nanos(now) < until
    }

    /// None: it has not answered yet.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let at = self.mean_at.load(Ordering::Relaxed);
        let mean = self.mean.load(Ordering::Relaxed);
        (at > 0).then(|| Latency { mean: Duration::from_nanos(mean), at: Duration::from_nanos(at) })
    }

    /// Which share of its answers failed of late.
    pub(crate) fn failing(&self, now: Duration) -> f64 {
        self.failures().map_or(0.0, |failures| failures.at(now))
    }

    fn failures(&self) -> Option<Failures> {
        let at = self.failing_at.load(Ordering::Relaxed);
        let share = f64::from_bits(self.failing.load(Ordering::Relaxed));
        (at > 0).then(|| Failures { share, at: Duration::from_nanos(at) })
    }

    fn judge(&self, failed: bool, now: Duration) {
        let failures = Failures::after(self.failures(), failed, now);
        self.failing.store(failures.share.to_bits(), Ordering::Relaxed);
        // What is forgotten is no longer written, so that most instances cost nothing here.
        let at = if failures.share < 0.001 { 0 } else { nanos(failures.at).max(1) };
        self.failing_at.store(at, Ordering::Relaxed);
    }
}

/// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(head: &ResponseHead, unix_ms: u64) -> Option<Duration> {
    let field = head.fields.iter().find(|field| field.name.eq_ignore_ascii_case("retry-after"))?;
    let text = std::str::from_utf8(field.value).ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
