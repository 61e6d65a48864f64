//! Multiplex: one connection in HTTP/2: a task for each stream, which carries one request as any other is carried.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use lb_core::http1::{HEAD_BYTES_MAX, HeadError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::certificates::Shaken;
use crate::client::Client;
use crate::connection::Connection;
use crate::door::Door;
use crate::exchange;
use crate::http2::served::{self, Served};
use crate::listen::{self, Data};
use crate::refusal::Refusal;

/// Of one connection at once: what RFC 9113, section 6.5.2 recommends as the least.
const STREAMS_MAX: u32 = 100;
/// What a client may send before somebody takes it: of one stream, and of all.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What waits for a client's window, of one stream.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Streams that a client opened and took back before they were looked at; more end the connection ("rapid reset",
/// CVE-2023-44487).
const RESETS_MAX: usize = 20;
/// Streams that lb ended because of the client's mistakes; more end the connection.
const MISTAKES_MAX: usize = 100;
/// A client that was told to go may take so long to read what it has asked for.
const GOING_LIMIT: Duration = Duration::from_secs(10);

/// Serves a connection until it ends.
pub(crate) async fn serve(data: &Rc<Data>, door: Door, client: IpAddr, tls: Option<Arc<Shaken>>) {
    let mut settings = h2::server::Builder::new();
    settings
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(MISTAKES_MAX));
    let handshake = tokio::time::timeout(data.limits.head, settings.handshake::<_, Bytes>(door));
    let Ok(Ok(mut connection)) = handshake.await else { return };

    let mut streams = JoinSet::new();
    let mut stopping = data.stopping.clone();
    let mut stop = pin!(async move { drop(stopping.wait_for(|stopping| *stopping).await) });
    let mut is_going = false;
    let mut idle = pin!(tokio::time::sleep(data.limits.idle));
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn_local(stream(Rc::clone(data), request, respond, client, tls.clone()));
                }
                Some(Err(error)) => {
                    data.balancer.edge.http2_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%client, error = %error, "HTTP/2 connection broke off");
                    break;
                }
                None => break,
            },
            Some(ended) = streams.join_next() => {
                listen::report_panic(&ended);
                idle.as_mut().reset(Instant::now() + if is_going { GOING_LIMIT } else { data.limits.idle });
            }
            () = stop.as_mut(), if !is_going => {
                is_going = true;
                connection.graceful_shutdown();
            }
            () = idle.as_mut(), if streams.is_empty() => {
                if std::mem::replace(&mut is_going, true) {
                    break;
                }
                // It is told first: a request that is on its way then is answered still (RFC 9113, section 6.8).
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + GOING_LIMIT);
            }
        }
    }
    drop(connection);
    // Each sees for itself that its client is gone.
    while let Some(ended) = streams.join_next().await {
        listen::report_panic(&ended);
    }
}

/// Carries the request of a stream.
async fn stream(
    data: Rc<Data>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    client: IpAddr,
    tls: Option<Arc<Shaken>>,
) {
    let connection = Connection::new(client, tls);
    let mut head = lb_core::http1::RequestHead::default();
    let read = served::read_head(&request, &mut head);
    let http = Served::new(request.into_body(), respond);
    let mut client = Client::new(http, Arc::clone(&connection), data.limits);
    client.head = head;
    let carrying = async {
        match read {
            Ok(()) => exchange::carry(&data, &mut client).await,
            Err(HeadError::TooLarge) => exchange::refuse(&data, &mut client, Refusal::head_too_large()).await,
            Err(error) => exchange::refuse(&data, &mut client, Refusal::framing(error)).await,
        };
    };
    until_cut(carrying, &connection).await;
}

async fn until_cut(carrying: impl Future<Output = ()>, connection: &Connection) {
    tokio::select! {
        biased;
        () = carrying => {}
        // Dropping what it does resets the stream.
        () = connection.cut() => {}
    }
}
