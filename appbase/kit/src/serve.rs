//! Serving an axum router: bind first, answer the address, then serve until shutdown.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::{Shutdown, Tasks};

/// A listener could not be had: says which address and who has it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", taken_by(*address, source))]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
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
