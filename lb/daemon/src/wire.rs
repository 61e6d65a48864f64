//! Wire: one connection, with what was read of it ahead and what waits to be written. Polled, never awaited: an exchange
//! moves both directions of both its wires in one place.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one read takes at first; most messages fit.
const READ_BYTES: usize = 8 << 10;
/// What it takes of a stream that fills its reads.
const READ_BYTES_MAX: usize = 64 << 10;
/// With less room than this a read is not worth its system call.
const ROOM_MIN: usize = 1 << 10;
/// Pieces up to this are gathered and go out together.
const PIECE_BYTES_MAX: usize = 4 << 10;
const GATHERED_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    ahead: BytesMut,
    /// What the next read may take.
    read_bytes: usize,
    out: Vec<u8>,
    /// How much of `out` is written.
    sent: usize,
    written: u64,
    /// The stream may keep some of what it took (TLS does).
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            read_bytes: READ_BYTES,
            out: Vec::new(),
            sent: 0,
            written: 0,
            unflushed: false,
        }
    }

    /// The stream, and what was read of it ahead.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.ahead.freeze())
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// Read and not consumed.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.ahead.advance(bytes);
    }

    /// Reads more; 0 is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ahead.capacity() - self.ahead.len() < ROOM_MIN {
            self.ahead.reserve(self.read_bytes);
        }
        let room = self.ahead.capacity() - self.ahead.len();
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.ahead))?;
        if read == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        Poll::Ready(Ok(read))
    }

    /// Gives memory back while nothing is expected; answers when the first byte came or the stream ended (false).
    pub(crate) fn poll_first_byte(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.ahead.capacity() > 0 || self.out.capacity() > 0 {
            match self.poll_fill(cx) {
                Poll::Ready(read) => return Poll::Ready(read.map(|read| read > 0)),
                Poll::Pending => {
                    (self.ahead, self.out) = (BytesMut::new(), Vec::new());
                    self.read_bytes = READ_BYTES;
                    return Poll::Pending;
                }
            }
        }
        // A read on the stack: only what came takes memory.
        let mut space = [0; 4 << 10];
        let mut space = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        self.ahead.reserve(READ_BYTES);
        self.ahead.extend_from_slice(space.filled());
        Poll::Ready(Ok(!self.ahead.is_empty()))
    }

    /// Gives back the memory that a large message took.
    pub(crate) fn release(&mut self) {
        if self.ahead.is_empty() && self.ahead.capacity() > 2 * READ_BYTES {
            self.ahead = BytesMut::new();
        }
        self.read_bytes = READ_BYTES;
    }

    /// What is to be written next: goes out with the next send or flush.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Nothing waits to be written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// Forgets what waits to be written. False: a part of it is out already.
    pub(crate) fn take_back(&mut self) -> bool {
        let whole = self.sent == 0;
        if whole {
            self.discard_out();
        }
        whole
    }

    fn discard_out(&mut self) {
        self.out.clear();
        self.sent = 0;
    }

    /// Bytes that the system took so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes what waits, and then of `data` what goes at once: answers how much of it went. A small piece may only be
    /// kept; whoever has nothing more to send for now flushes.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.len() <= PIECE_BYTES_MAX && self.out.len() + data.len() <= GATHERED_BYTES_MAX {
            self.out.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        self.poll_write(cx, data)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let stream = Pin::new(&mut self.stream);
            let waiting = &self.out[self.sent..];
            let went = match (waiting.is_empty(), data.is_empty()) {
                (true, true) => return Poll::Ready(Ok(0)),
                (true, false) => ready!(stream.poll_write(cx, data))?,
                (false, true) => ready!(stream.poll_write(cx, waiting))?,
                (false, false) => ready!(stream.poll_write_vectored(cx, &[IoSlice::new(waiting), IoSlice::new(data)]))?,
            };
            if went == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += went as u64;
            self.unflushed = true;
            let of_waiting = went.min(waiting.len());
            self.sent += of_waiting;
            if self.sent == self.out.len() {
                self.discard_out();
            }
            if went > of_waiting {
                return Poll::Ready(Ok(went - of_waiting));
            }
        }
    }

    /// All that waits is with the system.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx, &[]))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the other side that nothing follows.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx, &[]))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_waits_goes_first_and_everything_arrives() {
        // A pipe that takes 7 bytes at a time.
        let (near, mut far) = tokio::io::duplex(7);
        let mut wire = Wire::new(near);
        let (head, body) = (b"a head of twenty bytes".to_vec(), vec![b'x'; 1000]);
        let writing = async {
            wire.out().extend_from_slice(&head);
            let mut left = &body[..];
            while !left.is_empty() {
                let went = poll_fn(|cx| wire.poll_send(cx, left)).await.unwrap();
                left = &left[went..];
            }
            poll_fn(|cx| wire.poll_shutdown(cx)).await.unwrap();
            wire.written()
        };
        let mut got = Vec::new();
        let (written, read) = tokio::join!(writing, far.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(got, [head, body].concat());
        assert_eq!(written, got.len() as u64);
    }

    #[tokio::test]
    async fn a_wire_that_waits_holds_no_memory() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut wire = Wire::new(near);
        for round in 0..3 {
            let waiting = poll_fn(|cx| Poll::Ready(wire.poll_first_byte(cx).is_pending())).await;
            assert!(waiting && wire.ahead.capacity() == 0 && wire.out.capacity() == 0, "{round}");
            far.write_all(b"hello").await.unwrap();
            assert!(poll_fn(|cx| wire.poll_first_byte(cx)).await.unwrap());
            assert_eq!(wire.ahead(), b"hello");
            wire.consume(5);
            wire.out().extend_from_slice(b"answer");
            poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
        }
        far.write_all(&vec![b'x'; 300_000]).await.unwrap();
        drop(far);
        let mut all = 0;
        loop {
            let read = poll_fn(|cx| wire.poll_fill(cx)).await.unwrap();
            if read == 0 {
                break;
            }
            all += read;
            wire.consume(read);
        }
        assert_eq!((all, wire.read_bytes), (300_000, READ_BYTES_MAX));
    }
}
