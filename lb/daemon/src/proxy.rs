//! Proxy: one request through lb, as pingora's callbacks.
//!
//! find → choose → enter the gate → forward → perhaps once more elsewhere → account. Decisions are lb-core's.
//!
//! Streams, which drain by their own deadline, are upgraded connections (WebSocket), `text/event-stream` and
//! `multipart/x-mixed-replace`; everything else is a request, however long it takes.
//!
//! A request that is not idempotent never rides on a connection that was idle for more than a second, because it could
//! not be sent again if the app had just closed it: such requests have a pool of their own ([`IDLE_UNSAFE`]).
//! Forwarding fields are set, not appended: lb is the edge, what a client claims about itself is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use lb_core::retry::{self, Failure, Sent};
use lb_core::{host, path};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::sync::watch;

use crate::balancer::Balancer;
use crate::connection::CONNECTION;
use crate::entrance::Entrance;
use crate::framing;
use crate::refusal::Refusal;
use crate::request::{Access, End, RequestContext};

/// Instances are near: what takes longer is gone.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Silence of either side within a request.
const READ_LIMIT: Duration = Duration::from_secs(60);
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// Silence within a stream.
const STREAM_READ_LIMIT: Duration = Duration::from_secs(3600);
/// Below the keep-alive of common app servers (5 s and more).
const IDLE_SAFE: Duration = Duration::from_secs(4);
/// Below those of all (2 s and more), for requests that cannot be sent twice.
const IDLE_UNSAFE: Duration = Duration::from_secs(1);
/// A refused request's body is read so far, so that the client gets to read the answer and may go on.
const REFUSED_BODY_BYTES_MAX: u64 = 64 << 10;
const REFUSED_BODY_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_ID_BYTES_MAX: usize = 128;

/// One per data thread: pooled connections stay on their thread.
pub(crate) struct Proxy {
    balancer: Arc<Balancer>,
    stopping: watch::Receiver<bool>,
    access_log: bool,
    entrance: Entrance,
}

impl Proxy {
    pub(crate) fn new(balancer: Arc<Balancer>, stopping: watch::Receiver<bool>, access_log: bool) -> Self {
        let entrance = Entrance::new(Arc::clone(&balancer));
        Self { balancer, stopping, access_log, entrance }
    }

    /// Checks the head and reads from it what routing needs.
    fn read_head(&self, session: &Session, ctx: &mut RequestContext) -> Result<(), Refusal> {
        let head = session.req_header();
        framing::check(&session.downstream_session.to_h1_raw(), head)?;
        let host = head.headers.get(header::HOST).map(|value| value.to_str().map_err(|_| host::HostError));
        ctx.host = host.map(|host| host::canonical(host?)).transpose().map_err(Refusal::host)?;
        let raw = std::str::from_utf8(head.raw_path()).map_err(|_| Refusal::path("its path is not text"))?;
        let target = if raw.starts_with('/') || raw == "*" { raw } else { head.uri.path() };
        ctx.path = path::canonical(target).map_err(Refusal::path)?.into_owned();
        Ok(())
    }

    fn peer(&self, session: &Session, ctx: &RequestContext) -> Option<Box<HttpPeer>> {
        let backend = ctx.entry.as_ref()?.backend();
        let head = session.req_header();
        let safe = retry::is_idempotent(head.method.as_str());
        let mut peer = HttpPeer::new(backend.address, false, String::new());
        // The serial, not the address, names a pool: an address may come again with another instance. A pool that
        // only this request has is empty.
        let pool = backend.serial * 2 + u64::from(safe);
        peer.group_key = if ctx.distrusts_pool { u64::MAX - ctx.number } else { pool };
        let options = &mut peer.options;
        options.connection_timeout = Some(CONNECT_LIMIT);
        options.total_connection_timeout = Some(CONNECT_LIMIT);
        options.read_timeout = Some(if asks_for_stream(head) { STREAM_READ_LIMIT } else { READ_LIMIT });
        options.write_timeout = Some(WRITE_LIMIT);
        options.idle_timeout = Some(match (ctx.distrusts_pool, safe) {
            (true, _) => Duration::ZERO,
            (false, true) => IDLE_SAFE,
            (false, false) => IDLE_UNSAFE,
        });
        Some(Box::new(peer))
    }

    /// There will be another attempt: leaves the instance. When it was the pooled connection that failed, that says
    /// nothing of the instance, and it may be chosen again, on a new connection.
    fn retry(&self, ctx: &mut RequestContext, reused: bool) {
        self.balancer.edge.retries.fetch_add(1, Ordering::Relaxed);
        ctx.distrusts_pool |= reused;
        if let Some(entry) = ctx.entry.take().filter(|_| !reused) {
            ctx.tried.push(entry.backend().serial);
        }
    }

    /// Writes what lb itself answers. An error means the client is gone.
    async fn answer(&self, session: &mut Session, ctx: &mut RequestContext, refusal: Refusal) -> Result<()> {
        let body = Bytes::from(format!("{}\n", refusal.text));
        let mut head = ResponseHeader::build(refusal.status, Some(8))?;
        head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header("x-platform-error", refusal.code)?;
        if !ctx.id.is_empty() {
            head.insert_header("x-request-id", ctx.id.as_str())?;
        }
        if let Some(seconds) = refusal.retry_after_s {
            head.insert_header(header::RETRY_AFTER, seconds)?;
        }
        ctx.status = Some(refusal.status);
        ctx.refusal = Some(refusal);
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(body), true).await
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(CONNECTION.with(Arc::clone), Arc::clone(&self.balancer))
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        ctx.connection.end_head(ctx.number);
        let downstream = &mut session.downstream_session;
        downstream.set_read_timeout(Some(READ_LIMIT));
        downstream.set_write_timeout(Some(WRITE_LIMIT));
        downstream.set_total_drain_timeout(Some(REFUSED_BODY_LIMIT));
        ctx.id = match session.req_header().headers.get("x-request-id").and_then(|id| id.to_str().ok()) {
            Some(id) if is_request_id(id) => id.to_owned(),
            _ => format!("{:016x}{:016x}", self.entrance.draw(), self.entrance.draw()),
        };
        if self.access_log {
            ctx.access = Some(Access { method: session.req_header().method.to_string(), ..Access::default() });
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        let head_read = self.read_head(session, ctx);
        let ambiguous = head_read.is_err();
        let entered = match head_read {
            Ok(()) => self.entrance.enter(ctx).await,
            Err(refusal) => Err(refusal),
        };
        let Err(refusal) = entered else { return Ok(false) };
        if ambiguous {
            // What follows on this connection could be anything.
            session.set_keepalive(None);
        } else if has_small_body(session.req_header()) {
            let _ = session.downstream_session.drain_request_body().await;
        }
        self.answer(session, ctx, refusal).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        if ctx.entry.is_none() {
            // Another attempt. When none is left, the first failure is the better answer.
            let first = ctx.refusal.take();
            if let Err(refusal) = self.entrance.enter(ctx).await {
                ctx.refusal = first.or(Some(refusal));
                return Error::err_in(ErrorType::Custom("no instance is left to try"));
            }
        }
        ctx.attempts += 1;
        self.peer(session, ctx).ok_or_else(|| Error::new_in(ErrorType::InternalError))
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Others say something of this machine (no ports, no descriptors), nothing of the instance.
        let its_own =
            matches!(error.etype(), ErrorType::ConnectRefused | ErrorType::ConnectTimedout | ErrorType::ConnectNoRoute);
        if let Some(entry) = ctx.entry.as_ref().filter(|_| its_own) {
            self.balancer.connection_failed(entry.backend());
        }
        let again = retry::allowed(&Failure {
            method: session.req_header().method.as_str(),
            sent: Sent::Nothing,
            answered: ctx.answered,
            attempts: ctx.attempts,
            idempotency_key: false,
            reused: false,
            replayable: !session.as_ref().retry_buffer_truncated(),
        });
        error.set_retry(again);
        ctx.refusal = Refusal::of(&error);
        if again {
            self.retry(ctx, false);
        }
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        let nothing_of_body = session.upstream_body_bytes_sent() == Some(0);
        let sent = if nothing_of_body && !session.as_mut().is_body_empty() { Sent::HeadOnly } else { Sent::Body };
        let head = session.req_header();
        let again = *error.esource() == ErrorSource::Upstream
            && !matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
            && retry::allowed(&Failure {
                method: head.method.as_str(),
                sent,
                answered: ctx.answered || session.response_written().is_some(),
                attempts: ctx.attempts,
                idempotency_key: head.headers.contains_key("idempotency-key"),
                reused,
                replayable: !session.as_ref().retry_buffer_truncated(),
            });
        error.set_retry(again);
        if again {
            ctx.refusal = Refusal::of(&error);
            self.retry(ctx, reused);
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        request.remove_header("forwarded");
        request.insert_header("x-forwarded-for", ctx.connection.client.to_string())?;
        request.insert_header("x-forwarded-proto", "http")?;
        request.insert_header("x-request-id", ctx.id.as_str())?;
        match session.req_header().headers.get(header::HOST) {
            Some(host) => request.insert_header("x-forwarded-host", host.clone()),
            None => {
                request.remove_header("x-forwarded-host");
                Ok(())
            }
        }
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.answered = true;
        ctx.refusal = None;
        let status = response.status.as_u16();
        if status >= 200 || status == 101 {
            ctx.status = Some(status);
        }
        if status == 101 || is_stream(response) {
            ctx.become_stream();
            session.downstream_session.set_read_timeout(Some(STREAM_READ_LIMIT));
        }
        if status == 101 {
            ctx.connection.set_websocket();
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if *self.stopping.borrow() {
            session.set_keepalive(None);
        }
        response.insert_header("x-request-id", ctx.id.as_str())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
        let refusal = ctx.refusal.take().or_else(|| Refusal::of(error));
        let begun = session.response_written().is_some_and(|head| !head.status.is_informational());
        session.set_keepalive(None);
        let code = match refusal {
            Some(refusal) if !begun => {
                let status = refusal.status;
                match self.answer(session, ctx, refusal).await {
                    Ok(()) => status,
                    Err(_) => 0,
                }
            }
            _ => 0,
        };
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    async fn logging(&self, _session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
        ctx.end = match error {
            None => End::Complete,
            Some(error) if *error.esource() == ErrorSource::Downstream => End::ClientGone,
            Some(_) => End::BrokeOff,
        };
        if let Some(error) = error {
            tracing::debug!(request_id = ctx.id, error = %error, "request failed");
        }
        drop(ctx.entry.take());
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &RequestContext, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &RequestContext,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// The request says itself that the answer may be silent for long.
fn asks_for_stream(head: &RequestHeader) -> bool {
    let accepts = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    head.headers.contains_key(header::UPGRADE) || accepts.is_some_and(|accept| accept.contains("text/event-stream"))
}

fn is_stream(response: &ResponseHeader) -> bool {
    let kind = response.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["text/event-stream", "multipart/x-mixed-replace"]
        .iter()
        .any(|stream| kind.get(..stream.len()).is_some_and(|start| start.eq_ignore_ascii_case(stream)))
}

fn is_request_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether to read the body of a request that is refused. One that waits for `100 Continue` sends none.
fn has_small_body(head: &RequestHeader) -> bool {
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    !head.headers.contains_key(header::EXPECT) && length.is_some_and(|length| length <= REFUSED_BODY_BYTES_MAX)
}
