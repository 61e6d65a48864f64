//! The client's end: pingora's TCP stream, and on WebSockets the close frame that lb itself sends while draining.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
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

#[derive(Debug)]
pub(crate) struct ClientStream {
    inner: Stream,
    connection: Arc<Connection>,
    frames: Frames,
    /// How much of the close frame is sent; none before the goodbye.
    goodbye_sent: Option<usize>,
    flushed: bool,
}

impl ClientStream {
    pub(crate) fn new(inner: Stream, connection: Arc<Connection>) -> Self {
        Self { inner, connection, frames: Frames::default(), goodbye_sent: None, flushed: false }
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
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if self.connection.add_head_bytes(buf.filled().len() - before) > HEAD_READ_BYTES_MAX {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.connection.is_websocket() {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
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
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.connection.is_websocket() {
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
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
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
