//! Proxied: what a proxy in front of lb says of a client, before the client's own bytes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use lb_core::proxied;
use tokio::io::AsyncReadExt;

use crate::door::Socket;

/// Takes the PROXY header off a connection: who the client is; none: the proxy speaks for itself. Error: it says nothing
/// that could be believed, or not in time.
pub(crate) async fn take(socket: &mut Socket, limit: Duration) -> Result<Option<IpAddr>, String> {
    tokio::time::timeout(limit, read(socket)).await.unwrap_or_else(|_| Err("it did not come in time".to_owned()))
}

async fn read(socket: &mut Socket) -> Result<Option<IpAddr>, String> {
    let mut ahead = BytesMut::new();
    loop {
        if let Some(header) = proxied::read(&ahead).map_err(|error| error.to_string())? {
            let rest = ahead.split_off(header.length);
            socket.put_back(rest.freeze());
            return Ok(header.client.map(|client| client.to_canonical()));
        }
        let read = socket.read_buf(&mut ahead).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the connection ended before it".to_owned());
        }
    }
}
