//! Multiplex: one connection in HTTP/2: a task for each stream, which carries one request as any other is carried.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request};
use lb_core::http1::{HEAD_BYTES_MAX, HeadError, RequestHead};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::certificates::Shaken;
use crate::client::Client;
use crate::connection::Connection;
use crate::door::Door;
use crate::exchange::{self, After};
use crate::http::Http;
use crate::http2::served::{self, Served};
use crate::kind;
use crate::listen::{self, Data};
use crate::phase::Phase;
use crate::refusal::Refusal;

/// Of one connection at once: what RFC 9113, section 6.5.2 recommends as the least.
const STREAMS_MAX: u32 = 100;
/// What a client may send before somebody takes it: of one stream, and of all, so that none is in another's way.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// Small pieces cost more than what is in them: so much of that may wait.
const OVERHEAD_BYTES_MAX: usize = 2 * CONNECTION_WINDOW_BYTES as usize;
/// What waits for a client's window, of one stream.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Streams that a client opened and took back before they were looked at; more end the connection ("rapid reset",
/// CVE-2023-44487).
const RESETS_MAX: usize = 20;
/// Streams that a client took back later; when these are more, and more than half of all, they end it as well.
const GONE_MAX: u32 = 100;
/// A client that was told to go may take so long to read what it has asked for.
const GOING_LIMIT: Duration = Duration::from_secs(10);
/// Where nothing is under way at shutdown, a last request may come so long.
const LAST_LIMIT: Duration = Duration::from_secs(1);
/// So often what is left of answers may wait for a client for as long as a connection may be idle.
const UNREAD_MAX: u32 = 5;

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
        .data_frame_budget(OVERHEAD_BYTES_MAX);
    let handshake = tokio::time::timeout(data.limits.head, settings.handshake::<_, Bytes>(door));
    let Ok(Ok(mut connection)) = handshake.await else { return };

    let mut streams = JoinSet::new();
    let mut phase = data.phase.clone();
    let mut leaving = pin!(async move { phase.wait_for(|phase| *phase != Phase::Serves).await.map(|phase| *phase) });
    let (mut is_going, mut unread) = (false, 0);
    let (mut ended, mut gone) = (0u32, 0u32);
    let mut idle = pin!(tokio::time::sleep(data.limits.idle));
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, mut respond))) => match Place::take(data) {
                    Some(place) => {
                        streams.spawn_local(stream(Rc::clone(data), place, request, respond, client, tls.clone()));
                    }
                    // Nothing was done with it: it may be sent again at once.
                    None => respond.send_reset(Reason::REFUSED_STREAM),
                },
                Some(Err(error)) => {
                    data.balancer.edge.http2_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%client, error = %error, "HTTP/2 connection broke off");
                    break;
                }
                None => break,
            },
            Some(stream) = streams.join_next() => {
                listen::report_panic(&stream);
                (ended, unread) = (ended + 1, 0);
                gone += u32::from(matches!(stream, Ok(After::Gone)));
                if gone > GONE_MAX && gone > ended / 2 {
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                idle.as_mut().reset(Instant::now() + if is_going { GOING_LIMIT } else { data.limits.idle });
            }
            phase = leaving.as_mut(), if !is_going => {
                is_going = true;
                connection.graceful_shutdown();
                if streams.is_empty() {
                    let limit = if phase.is_ok_and(|phase| phase == Phase::HandedOver) { GOING_LIMIT } else { LAST_LIMIT };
                    idle.as_mut().reset(Instant::now() + limit);
                }
            }
            () = idle.as_mut(), if streams.is_empty() => {
                // The client has not read all that is answered.
                if connection.has_streams() && unread < UNREAD_MAX {
                    unread += 1;
                    idle.as_mut().reset(Instant::now() + data.limits.idle);
                    continue;
                }
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

/// One of the streams of a data thread.
struct Place(Rc<Data>);

impl Place {
    /// None: there are as many as there may be.
    fn take(data: &Rc<Data>) -> Option<Self> {
        let count = data.streams.get();
        (count < listen::STREAMS_MAX).then(|| {
            data.streams.set(count + 1);
            Self(Rc::clone(data))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// Carries the request of a stream.
async fn stream(
    data: Rc<Data>,
    _place: Place,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    client: IpAddr,
    tls: Option<Arc<Shaken>>,
) -> After {
    let connection = Connection::new(client, tls);
    let mut head = RequestHead::default();
    let read = served::read_head(&request, &mut head);
    if read.is_err() && request.method() == Method::HEAD {
        // Its answer has no body, whatever was wrong.
        let _ = head.read(b"HEAD / HTTP/1.1\r\n\r\n");
    }
    let is_call = kind::is_call(&head);
    let http = Served::new(request.into_body(), respond, is_call);
    let mut client = Client::new(http, Arc::clone(&connection), data.limits);
    client.head = head;
    let carrying = async {
        match read {
            Ok(()) => exchange::carry(&data, &mut client).await,
            Err(HeadError::TooLarge) => exchange::refuse(&data, &mut client, Refusal::head_too_large()).await,
            Err(error) => exchange::refuse(&data, &mut client, Refusal::framing(error)).await,
        }
    };
    if let Some(after) = until_cut(carrying, &connection).await {
        return after;
    }
    client.http.break_off();
    After::Closes
}

/// None: it was cut.
async fn until_cut(carrying: impl Future<Output = After>, connection: &Connection) -> Option<After> {
    tokio::select! {
        biased;
        after = carrying => Some(after),
        () = connection.cut() => None,
    }
}
