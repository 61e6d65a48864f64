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
use lb_core::http1::{BodyLength, HEAD_BYTES_MAX, ResponseHead};

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
    outgoing: Outgoing,
    response: Option<ResponseFuture>,
    /// None: the answer's head has not come.
    incoming: Option<Incoming>,
    /// The head could not be sent: what HTTP/1.1 says there cannot be said here.
    is_unsayable: bool,
    unprocessed: Option<Unprocessed>,
    stream: Arc<Streams>,
}

/// The instance said that it did nothing with the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unprocessed {
    /// This stream (RFC 9113, section 8.7).
    Refused,
    /// The connection went, and took none with it that came later (section 6.8).
    GoneAway,
}

impl Upstream {
    pub(crate) fn new(sender: SendRequest<Bytes>, stream: Arc<Streams>) -> Self {
        let (outgoing, response, incoming) = (Outgoing::default(), None, None);
        Self { sender, outgoing, response, incoming, is_unsayable: false, unprocessed: None, stream }
    }

    fn send_head(&mut self) -> io::Result<()> {
        let Self { sender, outgoing, response, is_unsayable, unprocessed, .. } = self;
        outgoing.send_head(|head, is_all| {
            let Some(request) = request(head) else {
                *is_unsayable = true;
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let (answer, stream) = sender.send_request(request, is_all).map_err(|error| {
                *unprocessed = unprocessed.or(Some(Unprocessed::GoneAway));
                broken(error)
            })?;
            *response = Some(answer);
            Ok(stream)
        })
    }

    fn begin(&mut self, response: Response<RecvStream>, head: &mut ResponseHead) -> Result<(), InstanceFault> {
        let (parts, body) = response.into_parts();
        let mut text = Vec::with_capacity(512);
        text.begin_answer(parts.status.as_u16(), "");
        for (name, value) in &parts.headers {
            text.line(name.as_str(), value.as_bytes());
        }
        text.end();
        let too_much = "its head is larger than 32 KiB, has more than 100 fields, or says what HTTP/1.1 cannot say";
        if text.len() > HEAD_BYTES_MAX {
            return Err(InstanceFault::Invalid(too_much));
        }
        head.read(&text).map_err(|_| InstanceFault::Invalid(too_much))?;
        self.incoming = Some(Incoming::new(body));
        Ok(())
    }
}

/// None: no authority, path or method that HTTP/2 could say.
fn request(head: &mut Heading) -> Option<Request<()>> {
    let uri = Uri::builder().scheme("http").authority(head.host.as_str()).path_and_query(head.path.as_str()).build();
    let mut request = Request::new(());
    *request.uri_mut() = uri.ok()?;
    *request.method_mut() = head.method.clone()?;
    *request.headers_mut() = std::mem::take(&mut head.fields);
    // lb passes them on, and servers of gRPC ask for the word.
    request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
    Some(request)
}

impl Http for Upstream {
    const IS_SHARED: bool = true;

    type Lines = Heading;
    type Stream = Door;

    fn lines(&mut self) -> &mut Heading {
        &mut self.outgoing.head
    }

    fn interim(&mut self, _: &ResponseHead) {}

    fn begin_incoming(&mut self, length: BodyLength) {
        // What comes where nothing may is not read.
        if let (Some(incoming), BodyLength::None) = (&mut self.incoming, length) {
            incoming.is_over = true;
        }
    }

    fn begin_outgoing(&mut self, _: BodyLength) {
        self.outgoing.begin();
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
        self.outgoing.poll_send(cx, data)
    }

    fn finish(&mut self) -> bool {
        self.outgoing.is_finished = true;
        true
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_head()?;
        Poll::Ready(self.outgoing.flush())
    }

    fn is_flushed(&self) -> bool {
        self.outgoing.is_flushed()
    }

    fn written(&self) -> u64 {
        if self.unprocessed.is_some() { 0 } else { self.outgoing.written }
    }

    fn take_back(&mut self) -> bool {
        std::mem::take(&mut self.outgoing.waits)
    }

    fn break_off(&mut self) {}

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
        if self.is_unsayable {
            return Poll::Ready(Err(InstanceFault::Unsayable));
        }
        let Some(response) = &mut self.response else {
            // Before the head is out there is nothing to wait for; one that could not go out broke off.
            let broke_off = self.unprocessed.is_some() && !self.outgoing.waits;
            return if broke_off { Poll::Ready(Err(InstanceFault::BrokeOff)) } else { Poll::Pending };
        };
        let error = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => return Poll::Ready(self.begin(response, head)),
            Err(error) => error,
        };
        if error.reason() == Some(Reason::REFUSED_STREAM) {
            self.unprocessed = Some(Unprocessed::Refused);
        } else if error.is_go_away() && error.is_remote() {
            self.unprocessed = Some(Unprocessed::GoneAway);
        }
        let is_nonsense = error.is_library() && error.is_reset();
        let nonsense = InstanceFault::Invalid("it is no answer in HTTP/2 that could be passed on");
        Poll::Ready(Err(if is_nonsense { nonsense } else { InstanceFault::BrokeOff }))
    }

    fn has_begun(&self) -> bool {
        self.incoming.is_some()
    }

    async fn has_ended(&mut self) -> bool {
        false
    }

    fn is_connection_gone(&self) -> bool {
        self.unprocessed == Some(Unprocessed::GoneAway)
    }

    fn distrust(&mut self) {
        self.stream.retire();
    }

    /// Its connection has its place in the pool all the while.
    fn give_back(_: Instance<Self>, _: &Pool) {}
}
