//! Faults: what Docker's client says, as what a caller can do about it. The one place that reads its errors.

use std::error::Error as _;
use std::io;
use std::path::Path;

use bollard::errors::Error;

use crate::ComputeError;

pub(crate) const ENGINE: &str = "docker";

/// Docker answered, with this status.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

pub(crate) fn is_missing(error: &Error) -> bool {
    status(error) == Some(404)
}

pub(crate) fn is_conflict(error: &Error) -> bool {
    status(error) == Some(409)
}

/// `what` says what was being done ("create instance x"), and is used when Docker answered at all.
pub(crate) fn compute(error: Error, socket: &Path, what: impl FnOnce() -> String) -> ComputeError {
    match error {
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
            ComputeError::Failed { what: what(), reason: message.trim().to_owned() }
        }
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::StrParseError { .. } => {
            ComputeError::Failed { what: what(), reason: format!("docker answered something unreadable: {error}") }
        }
        error => ComputeError::Unreachable { engine: ENGINE, reason: hint(&error, socket) },
    }
}

/// Why nobody answers, and what to do.
fn hint(error: &Error, socket: &Path) -> String {
    let socket = socket.display();
    if matches!(error, Error::RequestTimeoutError) {
        return format!("no answer on {socket} in time: see `systemctl status docker`");
    }
    if matches!(error, Error::SocketNotFoundError(_)) {
        return missing(&socket.to_string());
    }
    match io_kind(error) {
        Some(io::ErrorKind::NotFound) => missing(&socket.to_string()),
        Some(io::ErrorKind::PermissionDenied) => format!(
            "access to {socket} is denied: run as a member of group docker (`sudo usermod -aG docker $USER`, then log in again), or in a container as user 0:65532"
        ),
        Some(io::ErrorKind::ConnectionRefused) => {
            format!("nothing listens on {socket}: start Docker (`sudo systemctl start docker`)")
        }
        _ => format!("the connection over {socket} broke ({}): see `systemctl status docker`", chain(error)),
    }
}

fn missing(socket: &str) -> String {
    format!(
        "there is no socket {socket}: install or start Docker, or name its socket; without Docker use the process engine"
    )
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    if let Error::IOError { err } = error {
        return Some(err.kind());
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
