//! TCP: messages behind their length, several at once on a connection, replies as they are ready (RFC 7766).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns_core::{TCP_BYTES_MAX, Transport};
use kit::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::counters::add;
use crate::limits::{Limits, Place};
use crate::server::{Next, Server};

/// Connections of one source, and of all.
const CONNECTIONS_EACH_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 512;
/// How long a connection may be silent, and how long one message may take in either direction.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Replies that wait for a slow reader; then no more of its questions are read.
const REPLIES_MAX: usize = 32;
/// Pause when the machine has no descriptor left for a new connection: others have to end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown`.
pub(crate) async fn serve(server: Arc<Server>, listener: TcpListener, shutdown: Shutdown) {
    let mut asked = std::pin::pin!(shutdown.asked());
    let limits = Limits::new(CONNECTIONS_EACH_MAX, CONNECTIONS_MAX);
    loop {
        let accepted = tokio::select! {
            () = &mut asked => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => accept(&server, &limits, stream, peer, &shutdown),
            Err(error) => {
                tracing::debug!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn accept(server: &Arc<Server>, limits: &Arc<Limits>, stream: TcpStream, peer: SocketAddr, shutdown: &Shutdown) {
    let source = peer.ip().to_canonical();
    let Some(place) = limits.enter(source) else {
        add(&server.counters.connections_refused);
        return;
    };
    let _ = stream.set_nodelay(true);
    let (server, shutdown) = (Arc::clone(server), shutdown.clone());
    server.tasks.clone().spawn("dns-connection", connection(server, place, stream, source, shutdown));
}

async fn connection(server: Arc<Server>, _place: Place, stream: TcpStream, source: IpAddr, shutdown: Shutdown) {
    let (read, write) = stream.into_split();
    let (replies, waiting) = mpsc::channel(REPLIES_MAX);
    // The reader ends at silence, at shutdown and when nobody takes replies; the writer when all replies are written,
    // those of forwarded questions included.
    let gone = replies.clone();
    let reading = async {
        tokio::select! {
            () = shutdown.asked() => {}
            () = gone.closed() => {}
            () = read_questions(&server, read, source, replies) => {}
        }
        drop(gone);
    };
    tokio::join!(reading, write_replies(write, waiting));
}

async fn read_questions(server: &Arc<Server>, mut read: OwnedReadHalf, source: IpAddr, replies: mpsc::Sender<Vec<u8>>) {
    let mut packet = vec![0; usize::from(TCP_BYTES_MAX)];
    let mut seed = u64::from_le_bytes(kit::random::bytes());
    while let Ok(Some(length)) = timeout(IDLE_LIMIT, read_message(&mut read, &mut packet)).await {
        seed = seed.wrapping_add(1);
        let mut reply = Vec::new();
        match server.answer(&packet[..length], source, Transport::Tcp, seed, &mut reply) {
            // Whoever sends no questions here has nothing to gain from us.
            Next::Nothing => return,
            Next::Send => {
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
            Next::Ask(forward, place) => {
                let (server, replies) = (Arc::clone(server), replies.clone());
                server.tasks.clone().spawn("dns-forward", async move {
                    let _place = place;
                    let reply = server.forward(&forward, Transport::Tcp).await;
                    let _ = replies.send(reply).await;
                });
            }
        }
    }
}

/// One message; none at the end of the connection.
async fn read_message(read: &mut OwnedReadHalf, packet: &mut [u8]) -> Option<usize> {
    let length = usize::from(read.read_u16().await.ok()?);
    read.read_exact(&mut packet[..length]).await.ok()?;
    Some(length)
}

async fn write_replies(mut write: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(reply) = waiting.recv().await {
        let Ok(length) = u16::try_from(reply.len()) else { continue };
        // One write: a length in a packet of its own makes some clients give up.
        let mut message = Vec::with_capacity(reply.len() + 2);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(&reply);
        if !matches!(timeout(IDLE_LIMIT, write.write_all(&message)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = write.shutdown().await;
}
