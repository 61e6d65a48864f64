//! Http2: one stream of a connection in HTTP/2, as an exchange needs it: a client's (`served`), or one to an instance
//! (`upstream`). Frames, windows and floods are the `h2` crate's.
//!
//! What is written is handed to the connection, which sends it; a side that takes nothing shows in the stream's window.

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

/// Where a body goes.
struct Outgoing {
    /// None: the head is not out.
    stream: Option<SendStream<Bytes>>,
    is_closed: bool,
    trailers: Option<HeaderMap>,
}

const OF_A_CONNECTION: [&str; 6] =
    ["connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection", "expect"];

/// A head that is being written.
#[derive(Default)]
pub(crate) struct Heading {
    method: Method,
    path: String,
    host: String,
    status: StatusCode,
    fields: HeaderMap,
    text: String,
}

impl Lines for Heading {
    fn begin_request(&mut self, method: &str, path: &str) {
        self.method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
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
    fn new(stream: Option<SendStream<Bytes>>) -> Self {
        Self { stream, is_closed: false, trailers: None }
    }

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
        Poll::Ready(Ok(fits))
    }

    /// Ends the stream.
    fn close(&mut self) -> io::Result<()> {
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
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        self.stream.as_mut().map(|stream| stream.poll_reset(cx).map(drop))
    }
}
