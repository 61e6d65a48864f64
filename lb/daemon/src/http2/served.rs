//! Served: a stream that a client opened.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use lb_core::http1::{BodyLength, HEAD_BYTES_MAX, HeadError, RequestHead, ResponseHead};

use super::{Heading, Incoming, Outgoing, broken};
use crate::compose::{self, Lines};
use crate::door::Door;
use crate::http::{BodyError, Http};
use crate::wire::Wire;

pub(crate) struct Served {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    outgoing: Outgoing,
    /// The request is a call of gRPC.
    is_call: bool,
}

/// The head of a request, in the form in which all of lb reads one. Whatever HTTP/1.1 could not say is refused like there.
pub(crate) fn read_head(request: &Request<RecvStream>, head: &mut RequestHead) -> Result<(), HeadError> {
    let (uri, fields) = (request.uri(), request.headers());
    let method = request.method().as_str();
    let target = uri.path_and_query().map_or("*", |target| target.as_str());
    let mut text = Vec::with_capacity(512);
    text.begin_request(method, if method == "CONNECT" { "/" } else { target });
    let authority = uri.authority().map(|authority| authority.as_str());
    if let Some(authority) = authority {
        text.line("Host", authority.as_bytes());
    }
    let mut cookies = Vec::new();
    for (name, value) in fields {
        match name.as_str() {
            // The same once more is no other host.
            "host" if authority.is_some_and(|authority| authority.as_bytes() == value.as_bytes()) => {}
            // RFC 9113, section 8.2.3: a client may cut them, and in HTTP/1.1 they are one line.
            "cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            name => text.line(name, value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        text.line("cookie", &cookies);
    }
    if !fields.contains_key(http::header::CONTENT_LENGTH) {
        let is_expected = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
        match request.body().is_end_stream() {
            false => text.length(BodyLength::Chunked),
            // RFC 9110, section 8.6: some servers ask for a length where there could be content.
            true if is_expected => text.length(BodyLength::Bytes(0)),
            true => {}
        }
    }
    text.end();
    if text.len() > HEAD_BYTES_MAX {
        return Err(HeadError::TooLarge);
    }
    head.read(&text)
}

fn open(respond: &mut SendResponse<Bytes>, head: &mut Heading, is_all: bool) -> io::Result<SendStream<Bytes>> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = std::mem::take(&mut head.fields);
    respond.send_response(response, is_all).map_err(broken)
}

impl Served {
    pub(crate) fn new(body: RecvStream, respond: SendResponse<Bytes>, is_call: bool) -> Self {
        Self { incoming: Incoming::new(body), respond, outgoing: Outgoing::default(), is_call }
    }

    fn send_unavailable(&mut self) -> Result<(), h2::Error> {
        let mut last = HeaderMap::new();
        last.insert("grpc-status", HeaderValue::from_static("14"));
        last.insert("grpc-message", HeaderValue::from_static("the app's instance ended the call"));
        match &mut self.outgoing.stream {
            Some(stream) => stream.send_trailers(last),
            None => {
                last.insert("content-type", HeaderValue::from_static("application/grpc"));
                let mut response = Response::new(());
                *response.headers_mut() = last;
                self.respond.send_response(response, true).map(drop)
            }
        }
    }
}

impl Http for Served {
    const IS_SHARED: bool = true;

    type Lines = Heading;
    type Stream = Door;

    fn lines(&mut self) -> &mut Heading {
        &mut self.outgoing.head
    }

    fn interim(&mut self, head: &ResponseHead) {
        let mut lines = Heading::default();
        compose::interim(&mut lines, head);
        let mut response = Response::new(());
        *response.status_mut() = lines.status;
        *response.headers_mut() = lines.fields;
        // Nobody depends on one: the answer itself follows.
        let _ = self.respond.send_informational(response);
    }

    fn begin_incoming(&mut self, _: BodyLength) {}

    fn begin_outgoing(&mut self, _: BodyLength) {
        self.outgoing.begin();
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        self.incoming.poll_data(cx)
    }

    fn data(&self) -> &[u8] {
        self.incoming.data()
    }

    fn consume(&mut self, data: usize) {
        self.incoming.consume(data);
    }

    fn is_incoming_over(&self) -> bool {
        self.incoming.is_over()
    }

    fn incoming_left(&self) -> Option<u64> {
        self.incoming.is_over().then_some(0)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.outgoing.send_head(|head, is_all| open(&mut self.respond, head, is_all))?;
        self.outgoing.poll_send(cx, data)
    }

    fn finish(&mut self) -> bool {
        self.outgoing.is_finished = true;
        true
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.send_head(|head, is_all| open(&mut self.respond, head, is_all))?;
        Poll::Ready(self.outgoing.flush())
    }

    fn is_flushed(&self) -> bool {
        self.outgoing.is_flushed()
    }

    fn written(&self) -> u64 {
        self.outgoing.written
    }

    fn take_back(&mut self) -> bool {
        std::mem::take(&mut self.outgoing.waits)
    }

    /// A call of gRPC is told that it may be made again.
    fn break_off(&mut self) {
        if self.is_call && !self.outgoing.is_closed && self.send_unavailable().is_ok() {
            return;
        }
        match &mut self.outgoing.stream {
            Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_ended(cx)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.outgoing.poll_reset(cx) {
            Some(polled) => polled,
            None => self.respond.poll_reset(cx).map(drop),
        }
    }

    fn put_trailers(&mut self, trailers: HeaderMap) {
        self.outgoing.trailers = Some(trailers);
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.incoming.trailers.take()
    }

    fn wire(&mut self) -> Option<&mut Wire<Door>> {
        None
    }
}
