//! Service: lb as one that is watched over: by systemd, which is told who serves, and by people, who renew it by a signal.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use kit::Tasks;
use tokio::signal::unix::{SignalKind, signal};

/// At each SIGUSR2 starts the program that is now at this one's path, with the same arguments and environment. It takes
/// over and this one ends, or it ends and this one goes on.
pub(crate) fn renew_on_signal(tasks: &Tasks) -> io::Result<()> {
    // Now: once the file is replaced, the system calls this one's path deleted.
    let program = std::env::current_exe()?;
    let mut renew = signal(SignalKind::user_defined2())?;
    tasks.spawn("renew", async move {
        while renew.recv().await.is_some() {
            if std::process::id() == 1 {
                tracing::warn!("cannot be renewed by a signal: this is the first process, and all others end with it");
                continue;
            }
            let mut command = tokio::process::Command::new(&program);
            match command.args(std::env::args_os().skip(1)).spawn() {
                Ok(mut child) => {
                    tracing::info!(pid = child.id(), "another one is started, to take over");
                    // While this one runs the other has not taken over, or this one carries what it had to its end.
                    match child.wait().await {
                        Ok(status) => tracing::warn!(%status, "the other one has ended"),
                        Err(error) => tracing::warn!(error = %error, "the other one is lost"),
                    }
                }
                Err(error) => tracing::error!(program = %program.display(), error = %error, "cannot be started"),
            }
        }
    });
    Ok(())
}

/// Tells systemd, where that asks, that this process serves now, whoever did before.
pub(crate) fn tell_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let told = address(path.as_encoded_bytes()).and_then(|address| {
        let message = format!("READY=1\nMAINPID={}\n", std::process::id());
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::warn!(error = %error, "systemd could not be told that this serves");
    }
}

/// One that begins with `@` has no file.
fn address(path: &[u8]) -> io::Result<SocketAddr> {
    match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => {
            use std::os::unix::ffi::OsStrExt;
            SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))
        }
    }
}
