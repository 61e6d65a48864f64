//! hello-world: a small HTTP service with everything a deploy can break: requests that take long, streams, WebSockets,
//! state in memory, a health check, and switches that make it misbehave.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /`, `GET /greeting` | `hello from hello-world <version>`, or another word from `GREETING` |
//! | `GET /health` | 200 while healthy |
//! | `GET /instance` | version, instance and process id |
//! | `GET /slow?ms=500` | after that time |
//! | `GET /stream?n=10&ms=100` | that many lines, one each that long; as events with `Accept: text/event-stream` |
//! | `GET /ws` | a WebSocket that echoes |
//! | `POST /count/<key>`, `GET /count/<key>`, `GET /counts` | counters |

mod answers;
mod counts;
mod server;
mod switches;
mod websocket;

use std::process::ExitCode;

use switches::Switches;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let switches = Switches::from_environment();
    match server::run(switches).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// A line in the app's log.
#[expect(clippy::print_stderr, reason = "an app's log is its stderr")]
fn say(text: &str) {
    eprintln!("hello-world: {text}");
}
