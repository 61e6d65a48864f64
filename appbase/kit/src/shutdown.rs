//! Shutdown: one token that everything waits on. The first signal asks, the second ends the process at once.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Asked to stop, or not yet. Clones share one fate.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that SIGTERM and SIGINT ask for. A second signal exits with 130 without waiting.
    ///
    /// The task that listens ends with the process: it is not among those that a stop waits for.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let shutdown = Self::new();
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked = shutdown.clone();
        crate::Tasks::new().spawn("signals", async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if asked.is_asked() {
                    tracing::warn!("second signal: ending now");
                    std::process::exit(130);
                }
                tracing::info!("asked to stop");
                asked.ask();
            }
        });
        Ok(shutdown)
    }

    pub fn ask(&self) {
        self.token.cancel();
    }

    pub fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Ends when asked; owned, so that it can be handed to servers.
    pub fn asked(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// Asked when the parent is asked, but can be asked alone.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }
}
