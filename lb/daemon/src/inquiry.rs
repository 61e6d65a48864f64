//! Inquiry: another app of the platform is asked whether a request may go on. It is a request of lb's own, carried like any
//! other: the asked app's probes, flips, drains, holds and retries are the same. Without a sound answer nothing goes on.
//!
//! It has no body, whatever the request has: that waits with the client until it is decided.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use appbase_core::v1::Forward;
use lb_core::basic;
use lb_core::forward::{self, Inquiry};
use lb_core::http1::{BodyLength, Known, RequestHead, ResponseHead};
use lb_core::rule::Rule;

use crate::client::Client;
use crate::compose::Lines;
use crate::connection::Connection;
use crate::door::Door;
use crate::entrance::Asked;
use crate::exchange;
use crate::http::{BodyError, Http};
use crate::listen::Data;
use crate::refusal::{Refusal, Said};
use crate::request::RequestContext;
use crate::wire::Wire;

/// Of an answer that goes to the client: a page to sign in on.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the app behind the route is told, when the request may go on; else what the client is.
pub(crate) async fn ask(
    data: &Rc<Data>,
    ctx: &RequestContext,
    asked: &Asked<'_>,
    rule: &Rule,
    forward: &Forward,
) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
    let inquiry = Inquiry::new(&rule.section.published.environment, forward, asked.method, asked.target);
    let connection = Connection::new(ctx.connection.client, ctx.connection.tls.clone());
    let mut asks = Client::new(Asking::default(), std::sync::Arc::clone(&connection), data.limits);
    asks.head = head(asked, rule, forward, &ctx.id).ok_or_else(|| Refusal::inquiry_failed(502))?;
    let mut own = RequestContext::new(&connection, &data.balancer);
    own.inquiry = Some(Box::new(inquiry));
    connection.begin_request(own.number);
    let carrying = async {
        tokio::select! {
            biased;
            after = exchange::carry_as(data, &mut asks, &mut own) => Some(after),
            // The asked instance drained for too long.
            () = connection.cut() => None,
        }
    };
    let carried = tokio::time::timeout(data.limits.inquiry, carrying).await;
    let refusal = own.refusal().map(|refusal| refusal.status);
    drop(own);
    let Asking { heard, body, is_over, is_too_large } = asks.http;
    match (carried, refusal) {
        (Err(_), _) | (_, Some(504)) => Err(Refusal::inquiry_timeout()),
        (_, Some(503)) => Err(Refusal::inquiry_failed(503)),
        (Ok(None), _) | (_, Some(_)) => Err(Refusal::inquiry_failed(502)),
        (Ok(Some(_)), None) if (200..300).contains(&heard.status) => {
            let is_copied = |name: &str| forward.copy.iter().any(|copied| copied.eq_ignore_ascii_case(name));
            Ok(heard.lines.into_iter().filter(|(name, _)| is_copied(name)).collect())
        }
        (Ok(Some(_)), None) if !is_over || is_too_large => Err(Refusal::inquiry_failed(502)),
        (Ok(Some(_)), None) => {
            let mut lines = heard.lines;
            lines.retain(|(name, _)| Known::of(name) == Known::Other || Known::of(name) == Known::ContentType);
            Err(Refusal::said(heard.status, Said { lines, body }))
        }
    }
}

/// The head of the request that asks: `X-Forwarded-*` are of its rule.
fn head(asked: &Asked<'_>, rule: &Rule, forward: &Forward, request_id: &str) -> Option<RequestHead> {
    let mut text = Vec::with_capacity(512);
    text.begin_request("GET", &forward.path);
    for field in asked.fields.iter() {
        // A password that lb itself asks for is nobody else's.
        let is_lbs = rule.route.guard.basic.is_some() && field.name.eq_ignore_ascii_case(basic::FIELD);
        if field.known == Known::Host || (!is_lbs && forward::is_sent(forward, field.name)) {
            text.line(field.name, field.value);
        }
    }
    text.line("X-Request-Id", request_id.as_bytes());
    text.end();
    let mut head = RequestHead::default();
    head.read(&text).ok()?;
    Some(head)
}

/// The side of lb itself: an answer is kept, so far as it is short.
#[derive(Default)]
struct Asking {
    heard: Heard,
    body: Vec<u8>,
    is_over: bool,
    is_too_large: bool,
}

/// A head as it came.
#[derive(Default)]
struct Heard {
    status: u16,
    lines: Vec<(String, Vec<u8>)>,
}

impl Lines for Heard {
    fn begin_request(&mut self, _: &str, _: &str) {}

    fn begin_answer(&mut self, status: u16, _: &str) {
        self.status = status;
        self.lines.clear();
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        self.lines.push((name.to_owned(), value.to_vec()));
    }

    fn display(&mut self, name: &str, value: impl std::fmt::Display) {
        self.lines.push((name.to_owned(), value.to_string().into_bytes()));
    }

    fn end(&mut self) {}
}

impl Http for Asking {
    const IS_SHARED: bool = true;

    type Lines = Heard;
    type Stream = Door;

    fn lines(&mut self) -> &mut Heard {
        &mut self.heard
    }

    fn interim(&mut self, _: &ResponseHead) {}

    fn begin_incoming(&mut self, _: BodyLength) {}

    fn begin_outgoing(&mut self, _: BodyLength) {
        self.body.clear();
        (self.is_over, self.is_too_large) = (false, false);
    }

    fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        Poll::Ready(Ok(0))
    }

    fn data(&self) -> &[u8] {
        b""
    }

    fn consume(&mut self, _: usize) {}

    fn is_incoming_over(&self) -> bool {
        true
    }

    fn incoming_left(&self) -> Option<u64> {
        Some(0)
    }

    fn poll_send(&mut self, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.body.len() + data.len() > ANSWER_BYTES_MAX {
            self.is_too_large = true;
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.body.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn finish(&mut self) -> bool {
        self.is_over = true;
        true
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn is_flushed(&self) -> bool {
        true
    }

    fn written(&self) -> u64 {
        0
    }

    /// Nobody has seen any of it.
    fn take_back(&mut self) -> bool {
        true
    }

    fn break_off(&mut self) {}

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn poll_ended(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn wire(&mut self) -> Option<&mut Wire<Door>> {
        None
    }
}
