//! Client: the client's end of an exchange, and what lb itself answers on it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use appbase_core::v1::Cors;
use lb_core::guard;
use lb_core::http1::{BodyLength, RequestHead};

use crate::compose::{self, Lines};
use crate::config::Limits;
use crate::connection::Connection;
use crate::http::Http;
use crate::marks::Marks;
use crate::page;
use crate::patience::Patience;
use crate::refusal::{Refusal, Said};

/// An answer of lb itself is small.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A refused request's body is read so far, so that the client gets to read the answer and may go on.
const REFUSED_BODY_BYTES_MAX: u64 = 64 << 10;
const REFUSED_BODY_LIMIT: Duration = Duration::from_secs(5);
pub(crate) struct Client<H> {
    pub(crate) http: H,
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
    pub(crate) marks: Marks,
    /// The route's.
    pub(crate) cors: Option<&'a Cors>,
}

impl<H: Http> Client<H> {
    pub(crate) fn new(http: H, connection: Arc<Connection>, limits: Limits) -> Self {
        let patience = Patience::new(limits.idle);
        Self { http, head: RequestHead::default(), patience, connection, limits }
    }

    /// Writes what lb itself answers. False: the client did not take it.
    pub(crate) async fn answer(&mut self, refusal: &Refusal, told: &Told<'_>, goes_on: bool) -> bool {
        if let Some(said) = &refusal.said {
            return self.relay(refusal.status, said, told, goes_on).await;
        }
        let request_id = told.request_id;
        let has_body = self.head.method() != "HEAD" && refusal.status != 204;
        let page = page::is_wanted(&self.head, refusal).then(|| page::html(refusal, request_id));
        let (kind, mut text) = match page {
            Some(page) => ("text/html; charset=utf-8", page),
            None => ("text/plain; charset=utf-8", refusal.text.clone()),
        };
        if refusal.code != "challenge" {
            text.push('\n');
        }
        let out = self.http.lines();
        let status = http::StatusCode::from_u16(refusal.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        out.begin_answer(refusal.status, status.canonical_reason().unwrap_or_default());
        if refusal.status != 204 {
            out.line("Content-Type", kind.as_bytes());
            out.display("Content-Length", text.len());
        }
        match &refusal.wanted {
            Some(lines) => lines.iter().for_each(|(name, value)| out.line(name, value.as_bytes())),
            None => {
                out.line("Cache-Control", b"no-store");
                out.line("X-Platform-Error", refusal.code.as_bytes());
            }
        }
        if let Some(cors) = told.cors.filter(|_| refusal.wanted.is_none()) {
            let crossing = guard::crossing(cors, self.head.method(), &self.head.fields);
            guard::cors_lines(cors, &crossing, |name, value| out.line(name, value.as_bytes()));
        }
        compose::add(out, refusal.rule.as_ref().map(|rule| &rule.route.response_headers));
        if !request_id.is_empty() {
            out.line("X-Request-Id", request_id.as_bytes());
        }
        compose::told(out, told.notice, &told.marks);
        if let Some(realm) = &refusal.realm {
            out.display("WWW-Authenticate", format_args!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        }
        if let Some(seconds) = refusal.retry_after_s {
            out.display("Retry-After", seconds);
        }
        if let Some(connection) = compose::connection(goes_on, self.head.is_http10()) {
            out.line("Connection", connection.as_bytes());
        }
        out.end();
        let body = if has_body { text.as_bytes() } else { b"" };
        self.http.begin_outgoing(BodyLength::Bytes(body.len() as u64));
        self.send(body).await
    }

    /// Writes another app's answer. False: the client did not take it.
    async fn relay(&mut self, status: u16, said: &Said, told: &Told<'_>, goes_on: bool) -> bool {
        let out = self.http.lines();
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        out.begin_answer(status, reason.unwrap_or_default());
        for (name, value) in &said.lines {
            out.line(name, value);
        }
        if let Some(cors) = told.cors {
            let crossing = guard::crossing(cors, self.head.method(), &self.head.fields);
            guard::cors_lines(cors, &crossing, |name, value| out.line(name, value.as_bytes()));
        }
        out.line("X-Request-Id", told.request_id.as_bytes());
        compose::told(out, told.notice, &told.marks);
        if let Some(connection) = compose::connection(goes_on, self.head.is_http10()) {
            out.line("Connection", connection.as_bytes());
        }
        let is_bare = matches!(status, 204 | 304);
        if !is_bare {
            out.display("Content-Length", said.body.len());
        }
        out.end();
        let body = if is_bare || self.head.method() == "HEAD" { &[][..] } else { &said.body };
        self.http.begin_outgoing(BodyLength::Bytes(body.len() as u64));
        self.send(body).await
    }

    /// Writes what waits. False: the client did not take it.
    pub(crate) async fn flush(&mut self) -> bool {
        self.patience.wait(ANSWER_LIMIT);
        poll_fn(|cx| match self.http.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending => self.patience.poll_over(cx).map(|()| false),
        })
        .await
    }

    /// Writes what waits, and this as the whole body.
    async fn send(&mut self, mut body: &[u8]) -> bool {
        self.patience.wait(ANSWER_LIMIT);
        let sent = poll_fn(|cx| {
            while !body.is_empty() {
                match self.http.poll_send(cx, body) {
                    Poll::Ready(Ok(sent)) => body = &body[sent..],
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return self.patience.poll_over(cx).map(|()| false),
                }
            }
            Poll::Ready(true)
        });
        sent.await && self.http.finish() && self.flush().await
    }

    /// Reads what is left of a body that nobody wants. True: it is over, another request may follow.
    pub(crate) async fn discard_body(&mut self) -> bool {
        if H::IS_SHARED {
            return true;
        }
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
}
