//! Http2: one stream of a connection in HTTP/2, as an exchange needs it: a client's (`served`), or one to an instance
//! (`upstream`). Frames, windows and floods are the `h2` crate's.
//!
//! What is written is handed to the connection, which sends it. A side that takes nothing shows in the stream's window, as
//! soon as what fits into that and into the stream's buffer is full.

pub(crate) mod served;
pub(crate) mod upstream;

use std::fmt::{Display, Write};
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use crate::compose::Lines;
use crate::http::BodyError;

/// What is asked of a stream's window at once.
const SEND_BYTES_MAX: usize = 64 << 10;

/// A body as it comes.
struct Incoming {
    stream: RecvStream,
    /// Of it, what is not consumed.
    chunk: Bytes,
    is_over: bool,
    trailers: Option<HeaderMap>,
}

/// A message on its way out: a head, a body, perhaps trailers.
#[derive(Default)]
struct Outgoing {
    head: Heading,
    /// A whole head waits.
    waits: bool,
    is_finished: bool,
    trailers: Option<HeaderMap>,
    /// None: the head is not out.
    stream: Option<SendStream<Bytes>>,
    is_closed: bool,
    written: u64,
}

const OF_A_CONNECTION: [&str; 6] =
    ["connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection", "expect"];

/// A head that is being written.
#[derive(Default)]
pub(crate) struct Heading {
    /// None: it was none.
    method: Option<Method>,
    path: String,
    host: String,
    status: StatusCode,
    fields: HeaderMap,
    text: String,
}

impl Lines for Heading {
    fn begin_request(&mut self, method: &str, path: &str) {
        self.method = Method::from_bytes(method.as_bytes()).ok();
        path.clone_into(&mut self.path);
        self.fields.clear();
    }

    fn begin_answer(&mut self, status: u16, _: &str) {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.fields.clear();
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        // RFC 9113, section 8.2.2: what says something of a connection is not said in HTTP/2. An expectation is met by lb.
        if OF_A_CONNECTION.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return;
        }
        if name.eq_ignore_ascii_case("host") {
            self.host = String::from_utf8_lossy(value).into_owned();
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

fn broken(error: h2::Error) -> io::Error {
    error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

impl Incoming {
    fn new(stream: RecvStream) -> Self {
        let is_over = stream.is_end_stream();
        Self { stream, chunk: Bytes::new(), is_over, trailers: None }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
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

    fn data(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, data: usize) {
        self.chunk.advance(data);
        // An error: the stream is gone, which the next look at it says.
        let _ = self.stream.flow_control().release_capacity(data);
    }

    fn is_over(&self) -> bool {
        self.is_over && self.chunk.is_empty()
    }
}

impl Outgoing {
    fn begin(&mut self) {
        (self.waits, self.is_finished) = (true, false);
    }

    /// Sends the head when it waits. `open` makes a stream of it; its last word says whether nothing follows.
    fn send_head(&mut self, open: impl FnOnce(&mut Heading, bool) -> io::Result<SendStream<Bytes>>) -> io::Result<()> {
        if std::mem::take(&mut self.waits) {
            let is_all = self.is_finished && self.trailers.is_none();
            self.stream = Some(open(&mut self.head, is_all)?);
            self.is_closed = is_all;
            self.written += 1;
        }
        Ok(())
    }

    /// After the head is out.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
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
        self.written += fits as u64;
        Poll::Ready(Ok(fits))
    }

    /// After the head is out: ends the stream when the message has ended.
    fn flush(&mut self) -> io::Result<()> {
        if !self.is_finished || std::mem::replace(&mut self.is_closed, true) {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let closed = match self.trailers.take() {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        closed.map_err(broken)
    }

    fn is_flushed(&self) -> bool {
        !self.waits && (!self.is_finished || self.is_closed)
    }

    /// Ready when the other side wants nothing more of it. None: there is no stream yet.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        self.stream.as_mut().map(|stream| stream.poll_reset(cx).map(drop))
    }
}
