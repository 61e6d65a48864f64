//! Client: the client's end of a connection in HTTP/1: waits for a request, reads its head, writes what lb itself answers.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lb_core::http1::{BodyLength, HeadError, HeadScan, RequestHead};
use lb_core::proxied;
use tokio::net::TcpStream;

use crate::compose;
use crate::config::Limits;
use crate::connection::Connection;
use crate::http1::Http1;
use crate::page;
use crate::patience::Patience;
use crate::refusal::Refusal;

/// An answer of lb itself is small.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A refused request's body is read so far, so that the client gets to read the answer and may go on.
const REFUSED_BODY_BYTES_MAX: u64 = 64 << 10;
const REFUSED_BODY_LIMIT: Duration = Duration::from_secs(5);
/// After the last answer of a connection the client may still send so much without its answer being lost.
const LINGER_BYTES_MAX: usize = 1 << 20;
const LINGER_LIMIT: Duration = Duration::from_secs(2);

pub(crate) struct Client {
    pub(crate) http: Http1<TcpStream>,
    pub(crate) head: RequestHead,
    pub(crate) patience: Patience,
    pub(crate) connection: Arc<Connection>,
    pub(crate) limits: Limits,
}

/// What stands in an answer of lb's own beside what it says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) notice: Option<&'a str>,
    pub(crate) preview: bool,
}

/// What came on a connection that waited for a request.
pub(crate) enum Next {
    Request,
    /// It ended, or nothing came in time.
    Nothing,
    /// No request that could be carried: this is the answer, and the end of the connection.
    Refused(Refusal),
}

impl Client {
    pub(crate) fn new(stream: TcpStream, connection: Arc<Connection>, limits: Limits) -> Self {
        let patience = Patience::new(limits.idle);
        Self { http: Http1::new(stream), head: RequestHead::default(), patience, connection, limits }
    }

    /// Takes what a proxy says of the client, before the first request. False: it says nothing that could be believed, or
    /// not in time.
    pub(crate) async fn take_proxied(&mut self) -> bool {
        self.patience.wait(self.limits.head);
        loop {
            match proxied::read(self.http.wire.ahead()) {
                Ok(Some(header)) => {
                    self.http.wire.consume(header.length);
                    if let Some(client) = header.client {
                        self.connection = Connection::new(client.to_canonical());
                    }
                    return true;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(peer = %self.connection.client, error = %error, "connection refused");
                    return false;
                }
            }
            let wire = &mut self.http.wire;
            let filled = poll_fn(|cx| match wire.poll_fill(cx) {
                Poll::Ready(read) => Poll::Ready(read.unwrap_or(0)),
                Poll::Pending => self.patience.poll_over(cx).map(|()| 0),
            });
            if filled.await == 0 {
                return false;
            }
        }
    }

    /// Waits for a request and reads its head.
    pub(crate) async fn next(&mut self) -> Next {
        self.patience.wait(self.limits.idle);
        self.connection.set_idle(true);
        self.head.fields.release();
        let wire = &mut self.http.wire;
        let came = poll_fn(|cx| match wire.poll_first_byte(cx) {
            Poll::Ready(came) => Poll::Ready(came.unwrap_or(false)),
            Poll::Pending => self.patience.poll_over(cx).map(|()| false),
        });
        if !came.await {
            return Next::Nothing;
        }
        self.connection.set_idle(false);
        match self.read_head().await {
            Ok(true) => Next::Request,
            Ok(false) => Next::Nothing,
            Err(refusal) => Next::Refused(refusal),
        }
    }

    async fn read_head(&mut self) -> Result<bool, Refusal> {
        let refused = |error| match error {
            HeadError::TooLarge => Refusal::head_too_large(),
            error => Refusal::framing(error),
        };
        let (mut scan, mut limited) = (HeadScan::default(), false);
        loop {
            if let Some(place) = scan.find(self.http.wire.ahead()).map_err(refused)? {
                let end = place.end;
                self.head.read(&self.http.wire.ahead()[place]).map_err(refused)?;
                self.http.wire.consume(end);
                return Ok(true);
            }
            if !std::mem::replace(&mut limited, true) {
                self.patience.wait(self.limits.head);
            }
            let wire = &mut self.http.wire;
            let filled = poll_fn(|cx| match wire.poll_fill(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read.unwrap_or(0))),
                Poll::Pending => self.patience.poll_over(cx).map(|()| None),
            });
            match filled.await {
                Some(0) => return Ok(false),
                Some(_) => {}
                None => return Err(Refusal::late_head()),
            }
        }
    }

    /// Writes what lb itself answers. False: the client did not take it.
    pub(crate) async fn answer(&mut self, refusal: &Refusal, told: &Told<'_>, goes_on: bool) -> bool {
        let request_id = told.request_id;
        let has_body = self.head.method() != "HEAD";
        let page = page::is_wanted(&self.head, refusal).then(|| page::html(refusal, request_id));
        let (kind, mut text) = match page {
            Some(page) => ("text/html; charset=utf-8", page),
            None => ("text/plain; charset=utf-8", refusal.text.clone()),
        };
        text.push('\n');
        let out = self.http.wire.out();
        let status = http::StatusCode::from_u16(refusal.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        compose::status_line(out, refusal.status, status.canonical_reason().unwrap_or_default());
        compose::line(out, "Content-Type", kind.as_bytes());
        compose::display(out, "Content-Length", text.len());
        match &refusal.location {
            Some(location) => compose::line(out, "Location", location.as_bytes()),
            None => {
                compose::line(out, "Cache-Control", b"no-store");
                compose::line(out, "X-Platform-Error", refusal.code.as_bytes());
            }
        }
        compose::add(out, refusal.rule.as_ref().map(|rule| &rule.route.response_headers));
        if !request_id.is_empty() {
            compose::line(out, "X-Request-Id", request_id.as_bytes());
        }
        compose::told(out, told.notice, told.preview);
        if let Some(seconds) = refusal.retry_after_s {
            compose::display(out, "Retry-After", seconds);
        }
        if let Some(connection) = compose::connection(goes_on, self.head.is_http10()) {
            compose::line(out, "Connection", connection.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if has_body {
            out.extend_from_slice(text.as_bytes());
        }
        self.http.begin_outgoing(BodyLength::None);
        self.flush().await
    }

    /// Writes what waits. False: the client did not take it.
    pub(crate) async fn flush(&mut self) -> bool {
        self.patience.wait(ANSWER_LIMIT);
        let wire = &mut self.http.wire;
        poll_fn(|cx| match wire.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending => self.patience.poll_over(cx).map(|()| false),
        })
        .await
    }

    /// Reads what is left of a body that nobody wants. True: it is over, another request may follow.
    pub(crate) async fn discard_body(&mut self) -> bool {
        if self.http.incoming_left().is_some_and(|left| left > REFUSED_BODY_BYTES_MAX) {
            return false;
        }
        self.patience.wait(REFUSED_BODY_LIMIT);
        let mut left = REFUSED_BODY_BYTES_MAX;
        poll_fn(|cx| {
            loop {
                match self.http.poll_data(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(true),
                    Poll::Ready(Ok(data)) if data as u64 <= left => {
                        left -= data as u64;
                        self.http.consume(data);
                    }
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.patience.poll_over(cx).map(|()| false),
                }
            }
        })
        .await
    }

    /// The last thing on a connection. One that is closed while something unread waits on it is reset, and the client
    /// may lose the answer with it (RFC 9112, section 9.6).
    pub(crate) async fn linger(&mut self) {
        self.patience.wait(LINGER_LIMIT);
        let wire = &mut self.http.wire;
        let mut read = 0;
        poll_fn(|cx| {
            if wire.poll_shutdown(cx).is_pending() {
                return self.patience.poll_over(cx);
            }
            loop {
                wire.consume(wire.ahead().len());
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(more)) if more > 0 && read < LINGER_BYTES_MAX => read += more,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.patience.poll_over(cx),
                }
            }
        })
        .await;
    }
}
