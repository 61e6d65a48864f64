//! Mirror: copies of requests to a release that nobody depends on. The client never waits for one, and what goes wrong with
//! it is counted and nothing else.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_core::http1::{BodyLength, framing};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::connection::Connection;
use crate::counters::ReleaseCounters;
use crate::http::Http;
use crate::http1::Http1;
use crate::listen::Data;
use crate::pool::Instance;
use crate::request;

/// Under way at once, per thread; of more no copies are made.
const COPIES_MAX: usize = 32;
const COPY_LIMIT: Duration = Duration::from_secs(10);
/// Of a longer answer the rest is not read.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Sends a copy of a request without a body on its way, unless too many are. `head`: as it goes out.
pub(crate) fn send(
    data: &Rc<Data>,
    backend: Arc<Backend>,
    counters: Arc<ReleaseCounters>,
    head: Vec<u8>,
    method: &'static str,
) {
    if data.copies.get() >= COPIES_MAX {
        return;
    }
    data.copies.set(data.copies.get() + 1);
    let data = Rc::clone(data);
    tokio::task::spawn_local(async move {
        let sent = tokio::time::timeout(COPY_LIMIT, exchange(&data, &backend, &head, method)).await;
        let status = sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).and_then(|status| status);
        counters.count_copy(status.is_ok_and(|status| status < 500));
        data.copies.set(data.copies.get() - 1);
    });
}

/// The answer's status, once all of it came.
async fn exchange(data: &Data, backend: &Arc<Backend>, head: &[u8], method: &str) -> io::Result<u16> {
    // Inside, so that a drain waits for it.
    let (connection, number) = (Connection::new(std::net::Ipv4Addr::UNSPECIFIED.into(), None), request::number());
    connection.begin_request(number);
    let Some(_entry) = backend.enter(&connection, number) else { return Err(io::ErrorKind::NotConnected.into()) };
    tokio::select! {
        biased;
        () = connection.cut() => Err(io::ErrorKind::TimedOut.into()),
        status = carry(data, backend, head, method) => status,
    }
}

async fn carry(data: &Data, backend: &Backend, head: &[u8], method: &str) -> io::Result<u16> {
    let mut instance = match data.pool.take(backend, true) {
        Some(instance) => instance,
        None => data.pool.connect(backend).await?,
    };
    instance.http.begin_outgoing(BodyLength::None);
    instance.http.wire.out().extend_from_slice(head);
    poll_fn(|cx| instance.http.wire.poll_flush(cx)).await?;
    let keep_alive = poll_fn(|cx| poll_head(&mut instance, cx, method)).await?;
    let mut read = 0;
    loop {
        let more = poll_fn(|cx| instance.http.poll_data(cx)).await.map_err(|_| io::ErrorKind::InvalidData)?;
        if more == 0 {
            break;
        }
        read += more;
        if read > ANSWER_BYTES_MAX {
            return Ok(instance.head.status());
        }
        instance.http.consume(more);
    }
    let status = instance.head.status();
    if keep_alive && instance.http.wire.ahead().is_empty() {
        data.pool.give_back(instance);
    }
    Ok(status)
}

/// Reads up to the head of the answer; whether the connection can carry another request.
fn poll_head(instance: &mut Instance<Http1<TcpStream>>, cx: &mut Context<'_>, method: &str) -> Poll<io::Result<bool>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    loop {
        if instance.http.take_head(&mut instance.head).map_err(|_| invalid())? {
            if !instance.head.is_interim() {
                let framing = framing::of_response(&instance.head, method).map_err(|_| invalid())?;
                instance.http.begin_incoming(framing.body);
                // What asks for another protocol is not copied.
                return Poll::Ready(if instance.head.status() == 101 {
                    Err(invalid())
                } else {
                    Ok(framing.keep_alive)
                });
            }
            continue;
        }
        if ready!(instance.http.wire.poll_fill(cx))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
