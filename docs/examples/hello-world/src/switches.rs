//! Switches: who this instance is, and how it is to misbehave. Read once, at the start.

use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Switches {
    pub(crate) port: Result<u16, String>,
    pub(crate) version: String,
    pub(crate) instance: String,
    /// The first word of `/greeting`.
    pub(crate) greeting: String,
    /// `/health` answers 503.
    pub(crate) never_healthy: bool,
    /// Ends with code 1 before it listens.
    pub(crate) crash_at_once: bool,
    /// Ends with code 1 this long after it began to listen.
    pub(crate) crash_after: Option<Duration>,
    pub(crate) ignore_sigterm: bool,
    /// `/greeting` answers 500.
    pub(crate) status_500: bool,
    /// Runs and never listens.
    pub(crate) never_listen: bool,
    /// Listens only after this time.
    pub(crate) slow_start: Duration,
}

impl Switches {
    pub(crate) fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let on = |name: &str| text(name).is_some_and(|text| text != "0" && text != "false");
        let ms = |name: &str| text(name).and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let port = text("PORT").unwrap_or_else(|| "8080".to_owned());
        Self {
            port: port.parse().map_err(|_| format!("PORT={port} is not a port")),
            version: text("HELLO_VERSION")
                .or_else(version_file)
                .or_else(|| text("PLATFORM_VERSION"))
                .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            instance: text("PLATFORM_INSTANCE").unwrap_or_default(),
            greeting: text("GREETING").unwrap_or_else(|| "hello".to_owned()),
            never_healthy: on("HELLO_NEVER_HEALTHY"),
            crash_at_once: on("HELLO_CRASH_AT_ONCE"),
            crash_after: ms("HELLO_CRASH_AFTER_MS"),
            ignore_sigterm: on("HELLO_IGNORE_SIGTERM"),
            status_500: on("HELLO_STATUS_500"),
            never_listen: on("HELLO_NEVER_LISTEN"),
            slow_start: ms("HELLO_SLOW_START_MS").unwrap_or_default(),
        }
    }
}

/// The version an artifact carries, in the file `version` beside the program's working directory.
fn version_file() -> Option<String> {
    let text = std::fs::read_to_string("version").ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
