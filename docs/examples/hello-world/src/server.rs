//! Server: listens, serves each connection, and on SIGTERM stops accepting and finishes what is in flight.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answers::{App, answer};
use crate::counts::Counts;
use crate::say;
use crate::switches::Switches;

/// A client that goes on for ever does not keep a stopping app alive for ever.
const FINISH_MAX: Duration = Duration::from_secs(600);

pub(crate) async fn run(switches: Switches) -> Result<(), String> {
    if switches.crash_at_once {
        return Err("crashing at once, on purpose".to_owned());
    }
    let tasks = TaskTracker::new();
    let stopping = asked_to_stop(&tasks, switches.ignore_sigterm).map_err(|error| error.to_string())?;
    let crash_after = switches.crash_after;
    let before = tokio::time::sleep(switches.slow_start);
    tokio::select! {
        () = before, if !switches.never_listen => {}
        () = stopping.cancelled() => return Ok(()),
    }
    let port = switches.port.clone()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener = listener.map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    say(&format!("version {} listens on port {port}", switches.version));
    let app = Arc::new(App { switches, counts: Counts::default(), stopping, tasks });
    tokio::select! {
        () = serve(listener, app) => Ok(()),
        () = tokio::time::sleep(crash_after.unwrap_or_default()), if crash_after.is_some() => {
            Err("crashing after a while, on purpose".to_owned())
        }
    }
}

/// Cancelled on SIGTERM or SIGINT.
fn asked_to_stop(tasks: &TaskTracker, ignore: bool) -> std::io::Result<CancellationToken> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = CancellationToken::new();
    let asked = stopping.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !ignore {
                break;
            }
            say("ignoring the signal to stop, on purpose");
        }
        say("stopping: finishing what is in flight");
        asked.cancel();
    });
    Ok(stopping)
}

async fn serve(listener: TcpListener, app: Arc<App>) {
    let stopping = app.stopping.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => drop(app.tasks.spawn(converse(Arc::clone(&app), connection))),
                // Too many open files, for example: others may end in a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            () = stopping.cancelled() => break,
        }
    }
    drop(listener);
    app.tasks.close();
    let _ = tokio::time::timeout(FINISH_MAX, app.tasks.wait()).await;
}

/// One connection: when the app stops, the request in flight is answered with `connection: close`.
async fn converse(app: Arc<App>, connection: TcpStream) {
    let _ = connection.set_nodelay(true);
    let stopping = app.stopping.clone();
    let service = service_fn(move |request| answer(Arc::clone(&app), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stopping.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
