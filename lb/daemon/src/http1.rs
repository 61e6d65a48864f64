//! Http1: one side of an exchange in HTTP/1: the body that comes in on a wire, and the one that goes out on it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use lb_core::http1::{BodyLength, Chunked, HeadError, HeadScan, ResponseHead, chunked};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::attempt::InstanceFault;
use crate::compose;
use crate::door::Door;
use crate::http::{Answers, BodyError, Http};
use crate::pool::{Instance, Pool};
use crate::wire::Wire;

/// What a side sends while nobody wants it yet is kept up to this.
const AHEAD_BYTES_MAX: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Http1<S> {
    pub(crate) wire: Wire<S>,
    incoming: Incoming,
    outgoing: Outgoing,
    scan: HeadScan,
}

#[derive(Debug)]
enum Incoming {
    Over,
    Bytes(u64),
    Chunked(Chunked),
    UntilClose,
}

#[derive(Debug)]
enum Outgoing {
    Over,
    Bytes(u64),
    /// What is left of the chunk whose size line is out.
    Chunked(usize),
    UntilClose,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { wire: Wire::new(stream), incoming: Incoming::Over, outgoing: Outgoing::Over, scan: HeadScan::default() }
    }
}

impl Http1<TcpStream> {
    /// Takes the next head from what came. False: more of it is to come.
    pub(crate) fn take_head(&mut self, head: &mut ResponseHead) -> Result<bool, HeadError> {
        let Some(place) = self.scan.find(self.wire.ahead())? else { return Ok(false) };
        let end = place.end;
        head.read(&self.wire.ahead()[place])?;
        self.wire.consume(end);
        self.scan = HeadScan::default();
        Ok(true)
    }
}

impl Http1<Door> {
    /// What was read and not consumed comes again.
    pub(crate) fn into_door(self) -> Door {
        let (mut door, ahead) = self.wire.into_parts();
        if let (Door::Plain(socket), false) = (&mut door, ahead.is_empty()) {
            socket.put_back(ahead);
        }
        door
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http for Http1<S> {
    const IS_SHARED: bool = false;

    type Lines = Vec<u8>;
    type Stream = S;

    fn lines(&mut self) -> &mut Vec<u8> {
        self.wire.out()
    }

    fn interim(&mut self, head: &ResponseHead) {
        compose::interim(self.wire.out(), head);
    }

    fn data(&self) -> &[u8] {
        self.wire.ahead()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    fn is_flushed(&self) -> bool {
        self.wire.is_flushed()
    }

    fn written(&self) -> u64 {
        self.wire.written()
    }

    fn take_back(&mut self) -> bool {
        self.wire.take_back()
    }

    /// The connection ends with it.
    fn break_off(&mut self) {}

    fn wire(&mut self) -> Option<&mut Wire<S>> {
        Some(&mut self.wire)
    }

    fn begin_incoming(&mut self, length: BodyLength) {
        self.incoming = match length {
            BodyLength::None | BodyLength::Bytes(0) => Incoming::Over,
            BodyLength::Bytes(bytes) => Incoming::Bytes(bytes),
            BodyLength::Chunked => Incoming::Chunked(Chunked::default()),
            BodyLength::UntilClose => Incoming::UntilClose,
        };
    }

    fn begin_outgoing(&mut self, length: BodyLength) {
        self.outgoing = match length {
            BodyLength::None | BodyLength::Bytes(0) => Outgoing::Over,
            BodyLength::Bytes(bytes) => Outgoing::Bytes(bytes),
            BodyLength::Chunked => Outgoing::Chunked(0),
            BodyLength::UntilClose => Outgoing::UntilClose,
        };
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_incoming_over() { self.poll_ended(cx) } else { Poll::Pending }
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.wire.ahead().len() < AHEAD_BYTES_MAX {
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn is_incoming_over(&self) -> bool {
        matches!(self.incoming, Incoming::Over)
    }

    fn incoming_left(&self) -> Option<u64> {
        match &self.incoming {
            Incoming::Over => Some(0),
            Incoming::Bytes(left) => Some(*left),
            Incoming::Chunked(_) | Incoming::UntilClose => None,
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        loop {
            let at_hand = match &mut self.incoming {
                Incoming::Over => return Poll::Ready(Ok(0)),
                Incoming::Bytes(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(self.wire.ahead().len()),
                Incoming::UntilClose => self.wire.ahead().len(),
                Incoming::Chunked(chunks) => {
                    let step = chunks.step(self.wire.ahead())?;
                    self.wire.consume(step.skip);
                    if step.over {
                        self.incoming = Incoming::Over;
                        return Poll::Ready(Ok(0));
                    }
                    step.data
                }
            };
            if at_hand > 0 {
                return Poll::Ready(Ok(at_hand));
            }
            if ready!(self.wire.poll_fill(cx))? == 0 {
                if matches!(self.incoming, Incoming::UntilClose) {
                    self.incoming = Incoming::Over;
                    return Poll::Ready(Ok(0));
                }
                return Poll::Ready(Err(BodyError::Ended));
            }
        }
    }

    fn consume(&mut self, data: usize) {
        self.wire.consume(data);
        match &mut self.incoming {
            Incoming::Bytes(left) => {
                *left = left.saturating_sub(data as u64);
                if *left == 0 {
                    self.incoming = Incoming::Over;
                }
            }
            Incoming::Chunked(chunks) => chunks.took(data),
            Incoming::Over | Incoming::UntilClose => {}
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.outgoing {
            Outgoing::Over => Poll::Ready(Ok(data.len())),
            Outgoing::UntilClose => self.wire.poll_send(cx, data),
            Outgoing::Bytes(left) => {
                let fits = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                let sent = ready!(self.wire.poll_send(cx, &data[..fits]))?;
                *left -= sent as u64;
                if *left == 0 {
                    self.outgoing = Outgoing::Over;
                }
                Poll::Ready(Ok(sent))
            }
            Outgoing::Chunked(left) => {
                if *left == 0 {
                    chunked::size_line(data.len(), self.wire.out());
                    *left = data.len();
                }
                let fits = (*left).min(data.len());
                let sent = ready!(self.wire.poll_send(cx, &data[..fits]))?;
                *left -= sent;
                if *left == 0 {
                    self.wire.out().extend_from_slice(chunked::DATA_END);
                }
                Poll::Ready(Ok(sent))
            }
        }
    }

    fn finish(&mut self) -> bool {
        match std::mem::replace(&mut self.outgoing, Outgoing::Over) {
            Outgoing::Over | Outgoing::UntilClose => true,
            Outgoing::Bytes(left) => left == 0,
            Outgoing::Chunked(0) => {
                self.wire.out().extend_from_slice(chunked::LAST);
                true
            }
            Outgoing::Chunked(_) => false,
        }
    }
}

impl Answers for Http1<TcpStream> {
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<(), InstanceFault>> {
        while !self.take_head(head).map_err(invalid)? {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(read) if read > 0 => {}
                _ => return Poll::Ready(Err(InstanceFault::BrokeOff)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn has_begun(&self) -> bool {
        !self.wire.ahead().is_empty()
    }

    async fn has_ended(&mut self) -> bool {
        // A wire that takes not even a head is left to what follows.
        let flushed = poll_fn(|cx| Poll::Ready(self.wire.poll_flush(cx))).await;
        tokio::task::yield_now().await;
        let ended = poll_fn(|cx| Poll::Ready(matches!(self.wire.poll_fill(cx), Poll::Ready(Ok(0) | Err(_))))).await;
        ended || matches!(flushed, Poll::Ready(Err(_)))
    }

    fn is_connection_gone(&self) -> bool {
        false
    }

    fn distrust(&mut self) {}

    fn give_back(instance: Instance<Self>, pool: &Pool) {
        if instance.http.wire.ahead().is_empty() {
            pool.give_back(instance);
        }
    }
}

fn invalid(error: HeadError) -> InstanceFault {
    InstanceFault::Invalid(match error {
        HeadError::TooLarge => "its head is larger than 32 KiB or has more than 100 fields",
        HeadError::BareLf => "a line of its head ends with LF alone",
        _ => "its head is not HTTP/1.1",
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Passes a body from one framing to another and answers what came out.
    async fn pass(from: BodyLength, bytes: &[u8], to: BodyLength) -> Result<String, BodyError> {
        let ((near, mut far), (out_near, mut out_far)) = (tokio::io::duplex(5), tokio::io::duplex(3));
        let (mut source, mut sink) = (Http1::new(near), Http1::new(out_near));
        source.begin_incoming(from);
        sink.begin_outgoing(to);
        let feeding = async move {
            let _ = far.write_all(bytes).await;
            drop(far);
        };
        let passing = async move {
            loop {
                let data = poll_fn(|cx| source.poll_data(cx)).await?;
                if data == 0 {
                    break;
                }
                let sent = poll_fn(|cx| sink.poll_send(cx, &source.wire.ahead()[..data])).await?;
                source.consume(sent);
            }
            sink.finish();
            poll_fn(|cx| sink.wire.poll_shutdown(cx)).await?;
            Ok(())
        };
        let mut out = String::new();
        let (_, passed, read) = tokio::join!(feeding, passing, out_far.read_to_string(&mut out));
        read?;
        passed.map(|()| out)
    }

    #[tokio::test]
    async fn bodies_change_their_framing_and_nothing_else() {
        use BodyLength::{Bytes, Chunked, UntilClose};
        let chunks = b"5\r\nhello\r\n6;x\r\n world\r\n0\r\nX: y\r\n\r\n";
        assert_eq!(pass(Bytes(11), b"hello world", UntilClose).await.unwrap(), "hello world");
        assert_eq!(pass(Chunked, chunks, UntilClose).await.unwrap(), "hello world");
        assert_eq!(pass(UntilClose, b"hello world", Bytes(11)).await.unwrap(), "hello world");
        assert_eq!(pass(Bytes(11), b"hello world, and more", Bytes(11)).await.unwrap(), "hello world");
        let rechunked = pass(Chunked, chunks, Chunked).await.unwrap();
        assert_eq!(pass(Chunked, rechunked.as_bytes(), UntilClose).await.unwrap(), "hello world");
        assert!(rechunked.ends_with("0\r\n\r\n") && !rechunked.contains('X'), "{rechunked}");
        assert_eq!(pass(Bytes(0), b"", Chunked).await.unwrap(), "0\r\n\r\n");
    }

    #[tokio::test]
    async fn bodies_that_end_early_are_errors() {
        use BodyLength::{Bytes, Chunked, UntilClose};
        assert!(matches!(pass(Bytes(12), b"hello world", UntilClose).await, Err(BodyError::Ended)));
        assert!(matches!(pass(Chunked, b"5\r\nhello\r\n", UntilClose).await, Err(BodyError::Ended)));
        assert!(matches!(pass(Chunked, b"5\r\nhello5\r\n", UntilClose).await, Err(BodyError::Framing(_))));
    }
}
