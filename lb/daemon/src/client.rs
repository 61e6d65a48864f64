//! The client's end: pingora's TCP stream, and on WebSockets the close frame that lb itself sends while draining.
//!
//! Two system calls are saved with each request. A head of an answer waits for the first of its body, unless pingora
//! flushes it, and both go out at once. What comes while a request is awaited is kept whole, so that the wait for its
//! first byte is also the read of it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;
use crate::websocket::{Frames, GOING_AWAY};

/// What is read of a request before its head is complete, body read along with it included. Twice what a head may have,
/// so that a head that is only somewhat too large still gets an answer; pingora itself would keep a megabyte.
const HEAD_READ_BYTES_MAX: u64 = 64 << 10;

/// What is read at once while a request is awaited; most heads fit.
const FIRST_READ_BYTES: usize = 4096;
/// A longer head goes out alone.
const HELD_HEAD_BYTES_MAX: usize = 8192;

#[derive(Debug)]
pub(crate) struct ClientStream {
    inner: Stream,
    /// Read while a request was awaited and not taken yet; its allocation goes with it.
    ahead: Bytes,
    /// The head of an answer that waits for what follows.
    held: Vec<u8>,
    connection: Arc<Connection>,
    frames: Frames,
    /// How much of the close frame is sent; none before the goodbye.
    goodbye_sent: Option<usize>,
    flushed: bool,
}

impl ClientStream {
    pub(crate) fn new(inner: Stream, connection: Arc<Connection>) -> Self {
        Self {
            inner,
            ahead: Bytes::new(),
            held: Vec::new(),
            connection,
            frames: Frames::default(),
            goodbye_sent: None,
            flushed: false,
        }
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.ahead.is_empty() {
            let mut space = [MaybeUninit::uninit(); FIRST_READ_BYTES];
            let mut space = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut space))?;
            self.ahead = Bytes::copy_from_slice(space.filled());
        }
        Poll::Ready(Ok(!self.ahead.is_empty()))
    }

    /// Sends what is held back, then of `buf` what goes; answers how much of `buf` went.
    fn poll_send(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let both = [io::IoSlice::new(&self.held), io::IoSlice::new(buf)];
            let sent = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &both))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = sent.min(self.held.len());
            self.held.drain(..of_held);
            if sent > of_held {
                return Poll::Ready(Ok(sent - of_held));
            }
        }
        if buf.is_empty() { Poll::Ready(Ok(0)) } else { Pin::new(&mut self.inner).poll_write(cx, buf) }
    }

    /// Sends the close frame when it is asked for and no frame is half sent. Ready(true) once it is out: nothing of the
    /// app may follow it.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.goodbye_sent.is_none() {
            if !self.connection.has_goodbye() || !self.frames.at_boundary() {
                return Poll::Ready(Ok(false));
            }
            self.goodbye_sent = Some(0);
        }
        while let Some(sent) = self.goodbye_sent.filter(|sent| *sent < GOING_AWAY.len()) {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &GOING_AWAY[sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.goodbye_sent = Some(sent + written);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // An idle WebSocket is only ever read from: here it learns that it is to go. A full send buffer is no reason
        // not to read.
        if self.connection.has_goodbye()
            && let Poll::Ready(Err(error)) = self.poll_goodbye(cx)
        {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        } else {
            let count = self.ahead.len().min(buf.remaining());
            let taken = self.ahead.split_to(count);
            buf.put_slice(&taken);
        }
        if self.connection.add_head_bytes(buf.filled().len() - before) > HEAD_READ_BYTES_MAX {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.connection.is_websocket() {
            if self.held.is_empty() && buf.starts_with(b"HTTP/1.") && buf.len() <= HELD_HEAD_BYTES_MAX {
                self.held.extend_from_slice(buf);
                return Poll::Ready(Ok(buf.len()));
            }
            return self.poll_send(cx, buf);
        }
        ready!(self.poll_send(cx, &[]))?;
        if ready!(self.poll_goodbye(cx))? {
            // The client was told to go: by RFC 6455 nothing may follow.
            return Poll::Ready(Ok(buf.len()));
        }
        let end = if self.connection.has_goodbye() { self.frames.until_boundary(buf) } else { buf.len() };
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &buf[..end]))?;
        self.frames.advance(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, &[]))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.connection.is_websocket() || !self.held.is_empty() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut self.inner).await;
    }
}

#[async_trait]
impl Peek for ClientStream {
    /// Waits until something came; more of it than fits stays for the next read.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        if !poll_fn(|cx| self.poll_read_ahead(cx)).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let seen = self.ahead.len().min(buf.len());
        buf[..seen].copy_from_slice(&self.ahead[..seen]);
        Ok(seen == buf.len())
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
