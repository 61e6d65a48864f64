//! Http: what an exchange needs of one side's connection, whichever version of HTTP is spoken there. Everything is polled:
//! an exchange moves both directions of both sides in one place.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use ::http::HeaderMap;
use lb_core::http1::chunked::ChunkError;
use lb_core::http1::{BodyLength, ResponseHead};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::attempt::InstanceFault;
use crate::compose::Lines;
use crate::pool::{Instance, Pool};
use crate::wire::Wire;

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the connection ended before the body did")]
    Ended,
    #[error(transparent)]
    Framing(#[from] ChunkError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(crate) trait Http {
    /// Other exchanges share the connection: what is left of one is in nobody's way.
    const IS_SHARED: bool;

    type Lines: Lines;
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Where the next head is written; it goes out with the next send or flush.
    fn lines(&mut self) -> &mut Self::Lines;

    /// A head that another one follows.
    fn interim(&mut self, head: &ResponseHead);

    /// A head was read: this follows.
    fn begin_incoming(&mut self, length: BodyLength);

    /// A head is written: this will follow.
    fn begin_outgoing(&mut self, length: BodyLength);

    /// So much of the body is at the start of [`Http::data`]; 0 when it is over.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>>;

    fn data(&self) -> &[u8];

    /// Data that `poll_data` showed is done with.
    fn consume(&mut self, data: usize);

    /// The whole body that came in was consumed.
    fn is_incoming_over(&self) -> bool;

    /// What is still to come, where that is known.
    fn incoming_left(&self) -> Option<u64>;

    /// Takes of `data` what goes at once. More than was promised is not sent. Whoever has nothing more for now flushes.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Nothing follows; what that takes goes out with the next flush. False: more was promised.
    fn finish(&mut self) -> bool;

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Nothing waits to be written.
    fn is_flushed(&self) -> bool;

    /// So much went out so far, in bytes.
    fn written(&self) -> u64;

    /// Forgets what waits to be written. False: a part of it is out already.
    fn take_back(&mut self) -> bool;

    /// Ends a message in the middle, in a way that nobody takes for its end.
    fn break_off(&mut self);

    /// Ready when the other side has ended. Where another message may follow the body, this looks only after the body.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when the other side has ended; what it sends meanwhile is kept, so far as there is room.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What comes after the body, once it is over.
    fn take_trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    /// These follow the body; where they cannot, they are lost.
    fn put_trailers(&mut self, _: HeaderMap) {}

    /// The bytes below, for what leaves HTTP; none where that cannot be.
    fn wire(&mut self) -> Option<&mut Wire<Self::Stream>>;

    /// What `work` answers; none when the other side goes away first.
    async fn unless_ended<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_ended(cx).map(|()| None),
        })
        .await
    }
}

/// The side of an instance.
pub(crate) trait Answers: Http + Sized {
    /// Ready when the head of an answer, or one before it, was read into `head`.
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<(), InstanceFault>>;

    /// Something of an answer came.
    fn has_begun(&self) -> bool;

    /// Sends what waits, and looks whether the instance has closed the connection.
    async fn has_ended(&mut self) -> bool;

    /// The connection ended by itself, and the instance did nothing with this request: no fault of either.
    fn is_connection_gone(&self) -> bool;

    /// No other request is to go this way.
    fn distrust(&mut self);

    /// It can carry another request.
    fn give_back(instance: Instance<Self>, pool: &Pool);
}
