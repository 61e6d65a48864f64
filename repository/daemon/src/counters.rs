//! Counters: what the metrics say, counted where it happens.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Answers by status class, 1xx to 5xx.
    answers: [AtomicU64; 5],
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) blobs_stored: AtomicU64,
    pub(crate) manifests_stored: AtomicU64,
}

impl Counters {
    pub(crate) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.answers[class].fetch_add(1, Relaxed);
    }

    pub(crate) fn render(&self, text: &mut String) {
        use std::fmt::Write;
        text.push_str("# TYPE platform_repository_requests_total counter\n");
        for (class, count) in self.answers.iter().enumerate() {
            let _ = writeln!(
                text,
                "platform_repository_requests_total{{code=\"{}xx\"}} {}",
                class + 1,
                count.load(Relaxed)
            );
        }
        for (name, count) in [
            ("received_bytes", &self.received_bytes),
            ("sent_bytes", &self.sent_bytes),
            ("blobs_stored", &self.blobs_stored),
            ("manifests_stored", &self.manifests_stored),
        ] {
            let _ = writeln!(text, "# TYPE platform_repository_{name}_total counter");
            let _ = writeln!(text, "platform_repository_{name}_total {}", count.load(Relaxed));
        }
    }
}
