//! Bind: listeners that share one port, so that the kernel gives each data thread connections of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};

use kit::serve::BindError;
use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4_096;

/// One listener per thread, all bound before anything is served, and where.
pub(crate) fn listeners(address: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let failed = |source| BindError { address, source };
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
