//! Serving an axum router: bind first, answer the address, then serve until shutdown.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::{Shutdown, Tasks};

/// A second in all: far longer than from fork to exec, far shorter than anybody's patience.
const TAKEN_TRIES: u32 = 20;
const TAKEN_PAUSE: Duration = Duration::from_millis(50);

/// A listener could not be had: says which address and who has it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", taken_by(*address, source))]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

/// Binds; a port that is taken is tried again for a moment. A program that was killed while it started another one leaves
/// its listener open in that one until it is executed.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    for _ in 0..TAKEN_TRIES {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(TAKEN_PAUSE).await,
            outcome => return outcome.map_err(|source| BindError { address, source }),
        }
    }
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// Serves `router` on `listener`; ends when asked and what is in flight is answered.
pub fn http(
    tasks: &Tasks,
    name: &'static str,
    listener: TcpListener,
    router: axum::Router,
    shutdown: &Shutdown,
) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let asked = shutdown.asked();
    tasks.spawn(name, async move {
        // An answer in two writes would wait for the first to be acknowledged: 40 ms.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(asked).await {
            tracing::error!(error = %crate::problem::chain(&error), server = name, "serving ended");
        }
    });
    Ok(address)
}

/// ` (taken by <program>, pid <pid>)` when the port is taken and /proc tells by whom.
fn taken_by(address: SocketAddr, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return String::new();
    }
    match listening_process(address.port()) {
        Some((pid, program)) => format!(": port {} is taken by {program} (pid {pid})", address.port()),
        None => format!(": port {} is taken by another program", address.port()),
    }
}

/// Every TCP port on which something listens, on any address of this machine (its network namespace).
pub fn listening_ports() -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (_, port) = fields.next()?.rsplit_once(':')?;
        (fields.nth(1)? == "0A").then_some(())?;
        u16::from_str_radix(port, 16).ok()
    };
    tables.iter().flat_map(|table| table.lines().skip(1).filter_map(port)).collect()
}

/// Who listens on this TCP or UDP port, as far as /proc shows it to this user.
pub fn listening_process(port: u16) -> Option<(u32, String)> {
    let wanted = format!(":{port:04X}");
    let inodes: Vec<String> = ["tcp", "tcp6", "udp", "udp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(format!("/proc/net/{table}")).ok().map(|text| (table, text)))
        .flat_map(|(table, text)| {
            let wanted = &wanted;
            text.lines()
                .skip(1)
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    let listens = table.starts_with("udp") || fields.get(3) == Some(&"0A");
                    (listens && fields.get(1)?.ends_with(wanted.as_str()))
                        .then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    if inodes.is_empty() {
        return None;
    }
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path())
                .is_ok_and(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
        });
        let program = || std::fs::read_to_string(entry.path().join("comm")).ok().map(|text| text.trim().to_owned());
        holds.then(|| program().map(|program| (pid, program))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert!(listening_ports().contains(&port));
        assert_eq!(listening_process(port).map(|(pid, _)| pid), Some(std::process::id()));
        drop(listener);
        assert!(!listening_ports().contains(&port));
    }
}
