//! Tunnel: a connection that left HTTP. Bytes go both ways; on a WebSocket lb puts its own goodbye between two frames
//! when the instance drains.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Connection;
use crate::patience::Patience;
use crate::websocket::{Frames, GOING_AWAY};
use crate::wire::Wire;

/// After one side ended, the other one may say its last words for this long.
const HALF_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Tunnel<'a, C, I> {
    client: &'a mut Wire<C>,
    instance: &'a mut Wire<I>,
    patience: &'a mut Patience,
    connection: Arc<Connection>,
    is_websocket: bool,
    /// None: not a WebSocket, or its goodbye is said.
    frames: Option<Frames>,
    silence: Duration,
    client_ended: bool,
    instance_ended: bool,
}

impl<'a, C, I> Tunnel<'a, C, I>
where
    C: AsyncRead + AsyncWrite + Unpin,
    I: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(
        client: &'a mut Wire<C>,
        instance: &'a mut Wire<I>,
        patience: &'a mut Patience,
        connection: &Arc<Connection>,
        is_websocket: bool,
        silence: Duration,
    ) -> Self {
        patience.wait(silence);
        let frames = is_websocket.then(Frames::default);
        let connection = Arc::clone(connection);
        Self {
            client,
            instance,
            patience,
            connection,
            is_websocket,
            frames,
            silence,
            client_ended: false,
            instance_ended: false,
        }
    }

    /// Ready when both sides have ended, of a WebSocket one of them, or nothing moved for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let upward = self.poll_upward(cx)?;
        let downward = self.poll_downward(cx)?;
        let over = if self.is_websocket {
            upward.is_ready() || downward.is_ready()
        } else {
            upward.is_ready() && downward.is_ready()
        };
        if over {
            return Poll::Ready(Ok(()));
        }
        self.patience.poll_over(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_upward(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.client_ended {
            if !self.client.ahead().is_empty() {
                let sent = ready!(self.instance.poll_send(cx, self.client.ahead()))?;
                self.client.consume(sent);
                self.moved();
                continue;
            }
            match self.client.poll_fill(cx) {
                Poll::Ready(read) => self.client_ended = read? == 0,
                Poll::Pending => {
                    ready!(self.instance.poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
            if self.client_ended {
                self.patience.wait(HALF_LIMIT);
            }
        }
        self.instance.poll_shutdown(cx)
    }

    fn poll_downward(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_goodbye();
        while !self.instance_ended {
            if !self.instance.ahead().is_empty() {
                ready!(self.poll_pass(cx))?;
                self.moved();
                continue;
            }
            match self.instance.poll_fill(cx) {
                Poll::Ready(read) => self.instance_ended = read? == 0,
                Poll::Pending => {
                    ready!(self.client.poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
            if self.instance_ended {
                self.patience.wait(HALF_LIMIT);
            }
        }
        self.client.poll_shutdown(cx)
    }

    /// Passes to the client what may go to it.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ahead = self.instance.ahead();
        if self.connection.has_goodbye() && self.is_websocket {
            let Some(frames) = &mut self.frames else {
                // The client was told to go: by RFC 6455 nothing may follow.
                self.instance.consume(ahead.len());
                return Poll::Ready(Ok(()));
            };
            let end = frames.until_boundary(ahead);
            let sent = ready!(self.client.poll_send(cx, &ahead[..end]))?;
            frames.advance(&ahead[..sent]);
            self.instance.consume(sent);
            self.say_goodbye();
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(self.client.poll_send(cx, ahead))?;
        if let Some(frames) = &mut self.frames {
            frames.advance(&ahead[..sent]);
        }
        self.instance.consume(sent);
        Poll::Ready(Ok(()))
    }

    /// When it is asked for and no frame is half sent.
    fn say_goodbye(&mut self) {
        if self.connection.has_goodbye() && self.frames.as_ref().is_some_and(Frames::at_boundary) {
            self.client.out().extend_from_slice(&GOING_AWAY);
            self.frames = None;
        }
    }

    fn moved(&mut self) {
        let limit = if self.client_ended || self.instance_ended { HALF_LIMIT } else { self.silence };
        self.patience.wait(limit);
    }
}
