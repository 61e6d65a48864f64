//! Bind: listeners that share one port, so that the kernel gives each data thread connections of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};

use kit::serve::BindError;
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) const BACKLOG: i32 = 4_096;

/// At least one listener per thread, all bound before anything is served, and where. Those that are `inherited` are among
/// them, all of them: connections may wait in the queue of each.
pub(crate) fn listeners(
    address: SocketAddr,
    count: usize,
    inherited: Vec<TcpListener>,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let failed = |source| BindError { address, source };
    if let Some(first) = inherited.first() {
        let bound = first.local_addr().map_err(failed)?;
        let more = (inherited.len()..count).map(|_| socket(bound, true)).collect::<io::Result<Vec<_>>>();
        return Ok((bound, inherited.into_iter().chain(more.map_err(failed)?).collect()));
    }
    // Another program with SO_REUSEPORT would silently share the port: a plain bind tells whether there is one.
    drop(socket(address, false).map_err(failed)?);
    let first = socket(address, true).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let rest = (1..count.max(1)).map(|_| socket(bound, true));
    let all = std::iter::once(Ok(first)).chain(rest).collect::<io::Result<Vec<_>>>();
    Ok((bound, all.map_err(failed)?))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}
