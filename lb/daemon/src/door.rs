//! Door: how a client's bytes come in: as they are, or through TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use lb_core::host;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::balancer::Balancer;
use crate::certificates::{self, Shaken};

/// A connection of the system. What was read of it, and turned out to be somebody else's, comes again.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    again: Bytes,
}

#[derive(Debug)]
pub(crate) enum Door {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("it did not come to its end in time")]
    Late,
    #[error("the client names no host")]
    Nameless,
    #[error("there is no certificate for this name")]
    Unknown,
    /// It went well: there is nothing more to say in it.
    #[error("an authority asked whether the name is led here")]
    Challenge,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl HandshakeError {
    /// The word for it in metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Nameless => "no-name",
            Self::Unknown => "unknown-name",
            Self::Challenge => "challenge",
            // What the client sent is no TLS, or not what was agreed on.
            Self::Io(error) if error.kind() == io::ErrorKind::InvalidData => "refused",
            Self::Io(_) => "broke-off",
        }
    }
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, again: Bytes::new() }
    }

    /// These bytes were read from it and come again.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        debug_assert!(self.again.is_empty(), "only what was just read is put back");
        self.again = bytes;
    }
}

/// Shakes hands, with the certificate that is in force for the name that the client asks for. Whether the client chose
/// HTTP/2 is the last of the answer.
pub(crate) async fn shake_hands(
    socket: Socket,
    balancer: &Balancer,
    limit: Duration,
) -> (Option<String>, Result<(Door, Shaken, bool), HandshakeError>) {
    let mut name = None;
    let shaking = shake(socket, balancer, &mut name);
    let shaken = tokio::time::timeout(limit, shaking).await.unwrap_or(Err(HandshakeError::Late));
    (name, shaken)
}

async fn shake(
    socket: Socket,
    balancer: &Balancer,
    name: &mut Option<String>,
) -> Result<(Door, Shaken, bool), HandshakeError> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
    *name = named(&start.client_hello());
    if start.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == certificates::CHALLENGE_PROTOCOL)) {
        return Err(answer_challenge(start, name.as_deref(), balancer).await);
    }
    let shown = name.as_deref().and_then(|name| balancer.snapshot.load().certificates.find(name).cloned());
    let (Some(name), Some(shown)) = (name.clone(), shown) else {
        // This ends with an alert, which the client may show to somebody.
        let _ = start.into_stream(certificates::nobody()).await;
        return Err(if name.is_some() { HandshakeError::Unknown } else { HandshakeError::Nameless });
    };
    let stream = start.into_stream(std::sync::Arc::clone(&shown.config)).await?;
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let client_certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|certificate| {
        // RFC 9440, section 2.1: a byte sequence of RFC 8941.
        format!(":{}:", STANDARD.encode(certificate))
    });
    Ok((Door::Tls(Box::new(stream)), Shaken { name, shown, client_certificate }, is_http2))
}

/// How the handshake of an authority ends, which asks for nothing else (RFC 8737, section 3).
async fn answer_challenge(start: StartHandshake<Socket>, name: Option<&str>, balancer: &Balancer) -> HandshakeError {
    let find = |name: &str| balancer.snapshot.load().certificates.challenge(name).cloned();
    let Some(config) = name.and_then(find) else {
        let _ = start.into_stream(certificates::nobody()).await;
        return HandshakeError::Unknown;
    };
    match start.into_stream(config).await {
        Ok(mut stream) => stream.shutdown().await.map_or_else(HandshakeError::Io, |()| HandshakeError::Challenge),
        Err(error) => HandshakeError::Io(error),
    }
}

fn named(hello: &ClientHello<'_>) -> Option<String> {
    host::canonical(hello.server_name()?).ok()
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.again.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let fits = self.again.len().min(into.remaining());
        into.put_slice(&self.again[..fits]);
        self.again.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Door {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Door {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
