//! Upstream: a stream that lb opened on a connection to an instance.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use lb_core::http1::{BodyLength, ResponseHead};

use super::{Heading, Incoming, Outgoing, broken};
use crate::attempt::InstanceFault;
use crate::channels::Streams;
use crate::compose::Lines;
use crate::door::Door;
use crate::http::{Answers, BodyError, Http};
use crate::pool::{Instance, Pool};
use crate::wire::Wire;

pub(crate) struct Upstream {
    sender: SendRequest<Bytes>,
    head: Heading,
    /// A whole head waits.
    waits: bool,
    is_finished: bool,
    outgoing: Outgoing,
    response: Option<ResponseFuture>,
    /// None: the answer's head has not come.
    incoming: Option<Incoming>,
    /// The instance said that it did nothing with it (RFC 9113, section 8.7).
    is_refused: bool,
    written: u64,
    /// Counts it on its connection as long as it lives.
    _stream: Arc<Streams>,
}

impl Upstream {
    pub(crate) fn new(sender: SendRequest<Bytes>, stream: Arc<Streams>) -> Self {
        Self {
            sender,
            head: Heading::default(),
            waits: false,
            is_finished: false,
            outgoing: Outgoing::new(None),
            response: None,
            incoming: None,
            is_refused: false,
            written: 0,
            _stream: stream,
        }
    }

    fn send_head(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.waits) {
            return Ok(());
        }
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let path = if self.head.path == "*" { "/" } else { &self.head.path };
        let uri = Uri::builder().scheme("http").authority(self.head.host.as_str()).path_and_query(path).build();
        let mut request = Request::new(());
        *request.uri_mut() = uri.map_err(invalid)?;
        *request.method_mut() = self.head.method.clone();
        *request.headers_mut() = std::mem::take(&mut self.head.fields);
        // lb passes them on, and servers of gRPC ask for the word.
        request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
        let is_all = self.is_finished && self.outgoing.trailers.is_none();
        let (response, stream) = self.sender.send_request(request, is_all).map_err(|error| self.failed(error))?;
        self.written += 1;
        self.response = Some(response);
        self.outgoing.stream = Some(stream);
        self.outgoing.is_closed = is_all;
        Ok(())
    }

    fn failed(&mut self, error: h2::Error) -> io::Error {
        self.is_refused |= error.reason() == Some(Reason::REFUSED_STREAM);
        broken(error)
    }

    fn begin(&mut self, response: Response<RecvStream>, head: &mut ResponseHead) -> Result<(), InstanceFault> {
        let (parts, body) = response.into_parts();
        let mut text = Vec::with_capacity(512);
        text.begin_answer(parts.status.as_u16(), "");
        for (name, value) in &parts.headers {
            text.line(name.as_str(), value.as_bytes());
        }
        text.end();
        head.read(&text)
            .map_err(|_| InstanceFault::Invalid("its head is too large, or nothing that HTTP/1.1 could say"))?;
        self.incoming = Some(Incoming::new(body));
        Ok(())
    }
}

impl Http for Upstream {
    const IS_SHARED: bool = true;

    type Lines = Heading;
    type Stream = Door;

    fn lines(&mut self) -> &mut Heading {
        &mut self.head
    }

    fn interim(&mut self, _: &ResponseHead) {}

    fn begin_incoming(&mut self, _: BodyLength) {}

    fn begin_outgoing(&mut self, _: BodyLength) {
        (self.waits, self.is_finished) = (true, false);
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        match &mut self.incoming {
            Some(incoming) => incoming.poll_data(cx),
            None => Poll::Ready(Err(BodyError::Ended)),
        }
    }

    fn data(&self) -> &[u8] {
        self.incoming.as_ref().map_or(b"", Incoming::data)
    }

    fn consume(&mut self, data: usize) {
        if let Some(incoming) = &mut self.incoming {
            incoming.consume(data);
        }
    }

    fn is_incoming_over(&self) -> bool {
        self.incoming.as_ref().is_some_and(Incoming::is_over)
    }

    fn incoming_left(&self) -> Option<u64> {
        None
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
        if self.is_refused { 0 } else { self.written }
    }

    fn take_back(&mut self) -> bool {
        std::mem::take(&mut self.waits)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_ended(cx)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.outgoing.poll_reset(cx).unwrap_or(Poll::Pending)
    }

    fn put_trailers(&mut self, trailers: HeaderMap) {
        self.outgoing.trailers = Some(trailers);
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.incoming.as_mut()?.trailers.take()
    }

    fn wire(&mut self) -> Option<&mut Wire<Door>> {
        None
    }
}

impl Answers for Upstream {
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<(), InstanceFault>> {
        let Some(response) = &mut self.response else { return Poll::Pending };
        match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => Poll::Ready(self.begin(response, head)),
            Err(error) => {
                drop(self.failed(error));
                Poll::Ready(Err(InstanceFault::BrokeOff))
            }
        }
    }

    fn has_begun(&self) -> bool {
        self.incoming.is_some()
    }

    async fn has_ended(&mut self) -> bool {
        false
    }

    /// Its connection has its place in the pool all the while.
    fn give_back(_: Instance<Self>, _: &Pool) {}
}
