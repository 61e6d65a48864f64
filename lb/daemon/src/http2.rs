//! Http2: one stream of a connection in HTTP/2, as an exchange needs it. Frames, windows and floods are the `h2` crate's.
//!
//! What is written is handed to the connection, which sends it; a client that takes nothing shows in the stream's window.

use std::fmt::{Display, Write};
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use lb_core::http1::{BodyLength, HeadError, RequestHead, ResponseHead};

use crate::compose::Lines;
use crate::door::Door;
use crate::http::{BodyError, Http};
use crate::wire::Wire;

/// What is asked of a stream's window at once.
const SEND_BYTES_MAX: usize = 64 << 10;

/// The server's side of a stream.
pub(crate) struct Http2 {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    outgoing: Outgoing,
    head: Heading,
    /// A whole head waits.
    waits: bool,
    is_finished: bool,
    written: u64,
}

/// A body as it comes.
pub(crate) struct Incoming {
    stream: RecvStream,
    /// Of it, what is not consumed.
    chunk: Bytes,
    is_over: bool,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Where a body goes.
pub(crate) struct Outgoing {
    /// None: the head is not out.
    stream: Option<SendStream<Bytes>>,
    is_closed: bool,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A head that is being written.
#[derive(Default)]
pub(crate) struct Heading {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    text: String,
}

impl Lines for Heading {
    fn begin_request(&mut self, _: &str, _: &str) {}

    fn begin_answer(&mut self, status: u16, _: &str) {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.fields.clear();
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        // RFC 9113, section 8.2.2: what says something of a connection is not said in HTTP/2.
        if ["connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
        {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            self.fields.append(name, value);
        }
    }

    fn display(&mut self, name: &str, value: impl Display) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value}");
        self.line(name, text.as_bytes());
        self.text = text;
    }

    fn end(&mut self) {}
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
    if !request.body().is_end_stream() && !fields.contains_key(http::header::CONTENT_LENGTH) {
        text.length(BodyLength::Chunked);
    }
    text.end();
    if text.len() > lb_core::http1::HEAD_BYTES_MAX {
        return Err(HeadError::TooLarge);
    }
    head.read(&text)
}

fn broken(error: h2::Error) -> io::Error {
    error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let is_over = stream.is_end_stream();
        Self { stream, chunk: Bytes::new(), is_over, trailers: None }
    }

    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        while self.chunk.is_empty() && !self.is_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(BodyError::Io(broken(error)))),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx));
                    self.trailers = trailers.map_err(|error| BodyError::Io(broken(error)))?;
                    self.is_over = true;
                }
            }
        }
        Poll::Ready(Ok(self.chunk.len()))
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.chunk
    }

    pub(crate) fn consume(&mut self, data: usize) {
        self.chunk.advance(data);
        // An error: the stream is gone, which the next look at it says.
        let _ = self.stream.flow_control().release_capacity(data);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over && self.chunk.is_empty()
    }
}

impl Outgoing {
    pub(crate) fn new(stream: Option<SendStream<Bytes>>) -> Self {
        Self { stream, is_closed: false, trailers: None }
    }

    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.is_closed) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let wanted = data.len().min(SEND_BYTES_MAX);
        stream.reserve_capacity(wanted);
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(granted) => granted.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let fits = stream.capacity().min(wanted);
        stream.send_data(Bytes::copy_from_slice(&data[..fits]), false).map_err(broken)?;
        Poll::Ready(Ok(fits))
    }

    /// Ends the stream.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut().filter(|_| !std::mem::replace(&mut self.is_closed, true)) else {
            return Ok(());
        };
        let closed = match self.trailers.take() {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        closed.map_err(broken)
    }

    /// Ready when the other side wants nothing more of it.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        self.stream.as_mut().map(|stream| stream.poll_reset(cx).map(drop))
    }
}

impl Http2 {
    pub(crate) fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self {
            incoming: Incoming::new(body),
            respond,
            outgoing: Outgoing::new(None),
            head: Heading::default(),
            waits: false,
            is_finished: false,
            written: 0,
        }
    }

    fn send_head(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.waits) {
            return Ok(());
        }
        let mut response = Response::new(());
        *response.status_mut() = self.head.status;
        *response.headers_mut() = std::mem::take(&mut self.head.fields);
        let is_all = self.is_finished && self.outgoing.trailers.is_none();
        self.written += 1;
        self.outgoing.stream = Some(self.respond.send_response(response, is_all).map_err(broken)?);
        self.outgoing.is_closed = is_all;
        Ok(())
    }
}

impl Http for Http2 {
    const IS_SHARED: bool = true;

    type Lines = Heading;
    type Stream = Door;

    fn lines(&mut self) -> &mut Heading {
        &mut self.head
    }

    fn interim(&mut self, head: &ResponseHead) {
        let mut lines = Heading::default();
        crate::compose::interim(&mut lines, head);
        let mut response = Response::new(());
        *response.status_mut() = lines.status;
        *response.headers_mut() = lines.fields;
        // Nobody depends on one: the answer itself follows.
        let _ = self.respond.send_informational(response);
    }

    fn begin_incoming(&mut self, _: BodyLength) {}

    fn begin_outgoing(&mut self, _: BodyLength) {
        (self.waits, self.is_finished) = (true, false);
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
        self.send_head()?;
        let sent = ready!(self.outgoing.poll_send(cx, data))?;
        self.written += sent as u64;
        Poll::Ready(Ok(sent))
    }

    fn finish(&mut self) -> bool {
        self.is_finished = true;
        true
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_head()?;
        Poll::Ready(if self.is_finished { self.outgoing.close() } else { Ok(()) })
    }

    fn is_flushed(&self) -> bool {
        !self.waits && (!self.is_finished || self.outgoing.is_closed)
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn take_back(&mut self) -> bool {
        std::mem::take(&mut self.waits)
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

    fn wire(&mut self) -> Option<&mut Wire<Door>> {
        None
    }
}
