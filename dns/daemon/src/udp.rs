//! UDP: one plain task per socket, answers made inline. Only what is forwarded becomes a task of its own.

mod socket;

use std::sync::Arc;
use std::time::Duration;

use dns_core::{TCP_BYTES_MAX, Transport};
use kit::Shutdown;

pub(crate) use self::socket::PacketSocket;
use self::socket::Received;
use crate::counters::add;
use crate::server::{Next, Server};

/// Pause after a socket error, so that a lasting one is no spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Answers what comes in on `socket` until `shutdown`.
pub(crate) async fn serve(server: Arc<Server>, socket: Arc<PacketSocket>, shutdown: Shutdown) {
    let mut asked = std::pin::pin!(shutdown.asked());
    let mut packet = vec![0; usize::from(TCP_BYTES_MAX)];
    let mut reply = Vec::with_capacity(usize::from(TCP_BYTES_MAX));
    // Which address comes first need not be unforeseeable, only different each time.
    let mut seed = u64::from_le_bytes(kit::random::bytes());
    loop {
        let received = tokio::select! {
            () = &mut asked => return,
            received = socket.receive(&mut packet) => received,
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "packet not received");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        seed = seed.wrapping_add(1);
        handle(&server, &socket, &packet, received, seed, &mut reply);
    }
}

fn handle(
    server: &Arc<Server>,
    socket: &Arc<PacketSocket>,
    packet: &[u8],
    received: Received,
    seed: u64,
    reply: &mut Vec<u8>,
) {
    // Nobody asks from port 0 or from this very socket: replies there would go round for ever.
    if received.peer.port() == 0 || received.is_own(socket.port()) {
        add(&server.counters.dropped);
        return;
    }
    match server.answer(&packet[..received.length], received.peer.ip(), Transport::Udp, seed, reply) {
        Next::Nothing => {}
        Next::Send => send(server, socket, reply, received),
        Next::Ask(forward, place) => {
            let (server, socket) = (Arc::clone(server), Arc::clone(socket));
            server.tasks.clone().spawn("dns-forward", async move {
                let _place = place;
                let reply = server.forward(&forward, Transport::Udp).await;
                send(&server, &socket, &reply, received);
            });
        }
    }
}

/// Sent at once or not at all: an asker asks again, a queue would only grow.
fn send(server: &Server, socket: &PacketSocket, reply: &[u8], received: Received) {
    if let Err(error) = socket.send(reply, received) {
        tracing::debug!(%error, "reply not sent");
        add(&server.counters.dropped);
    }
}
