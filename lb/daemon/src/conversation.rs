//! Conversation: one connection in HTTP/1: requests one after the other, until it ends.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use lb_core::http1::{HeadError, HeadScan, RequestHead};

use crate::client::Client;
use crate::door::Door;
use crate::exchange::{self, After};
use crate::http1::Http1;
use crate::listen::Data;
use crate::phase::Phase;
use crate::refusal::Refusal;

/// After the last answer of a connection the client may still send so much without its answer being lost.
const LINGER_BYTES_MAX: usize = 1 << 20;
const LINGER_LIMIT: Duration = Duration::from_secs(2);
/// What a connection in HTTP/2 begins with (RFC 9113, section 3.4), so far as it looks like a head.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What came on a connection that waited for a request.
enum Next {
    Request,
    /// No request: the beginning of a connection in HTTP/2.
    Http2,
    /// It ended, or nothing came in time.
    Nothing,
    /// No request that could be carried: this is the answer, and the end of the connection.
    Refused(Refusal),
}

/// How a conversation ended.
pub(crate) enum Ended {
    Here,
    /// Its first bytes are of HTTP/2. They are on the wire still.
    IsHttp2,
}

impl Client<Http1<Door>> {
    /// One request after the other, until the connection ends.
    pub(crate) async fn converse(&mut self, data: &Rc<Data>) -> Ended {
        // Over TLS the version was chosen in the handshake.
        let mut is_first = matches!(self.http.wire.stream(), Door::Plain(_));
        loop {
            let after = match self.next(std::mem::take(&mut is_first)).await {
                Next::Request => exchange::carry(data, self).await,
                Next::Refused(refusal) => {
                    if refusal.code == "client-timeout" {
                        data.balancer.edge.late_heads.fetch_add(1, Ordering::Relaxed);
                    }
                    exchange::refuse(data, self, refusal).await
                }
                Next::Http2 => return Ended::IsHttp2,
                Next::Nothing => After::Gone,
            };
            match after {
                // An answer that did not say it was the last lets the client ask again.
                After::GoesOn if *data.phase.borrow() != Phase::Stops => {}
                After::GoesOn | After::Closes => {
                    self.linger().await;
                    return Ended::Here;
                }
                After::Gone => return Ended::Here,
            }
        }
    }

    /// Waits for a request and reads its head.
    async fn next(&mut self, may_be_http2: bool) -> Next {
        self.patience.wait(self.limits.idle);
        self.connection.set_idle(true);
        self.head.fields.release();
        let wire = &mut self.http.wire;
        let came = poll_fn(|cx| match wire.poll_first_byte(cx) {
            Poll::Ready(came) => Poll::Ready(came.unwrap_or(false)),
            Poll::Pending => self.patience.poll_over(cx).map(|()| false),
        });
        if !came.await {
            return Next::Nothing;
        }
        self.connection.set_idle(false);
        match self.read_head(may_be_http2).await {
            Ok(next) => next,
            Err(refusal) => {
                // Nothing of the request before it says how this one is answered.
                self.head = RequestHead::default();
                Next::Refused(refusal)
            }
        }
    }

    async fn read_head(&mut self, may_be_http2: bool) -> Result<Next, Refusal> {
        let refused = |error| match error {
            HeadError::TooLarge => Refusal::head_too_large(),
            error => Refusal::framing(error),
        };
        let (mut scan, mut limited) = (HeadScan::default(), false);
        loop {
            if let Some(place) = scan.find(self.http.wire.ahead()).map_err(refused)? {
                let end = place.end;
                if may_be_http2 && self.http.wire.ahead()[..end] == *PREFACE {
                    return Ok(Next::Http2);
                }
                self.head.read(&self.http.wire.ahead()[place]).map_err(refused)?;
                self.http.wire.consume(end);
                return Ok(Next::Request);
            }
            if !std::mem::replace(&mut limited, true) {
                self.patience.wait(self.limits.head);
            }
            let wire = &mut self.http.wire;
            let filled = poll_fn(|cx| match wire.poll_fill(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read.unwrap_or(0))),
                Poll::Pending => self.patience.poll_over(cx).map(|()| None),
            });
            match filled.await {
                Some(0) => return Ok(Next::Nothing),
                Some(_) => {}
                None => return Err(Refusal::late_head()),
            }
        }
    }

    /// The last thing on a connection. One that is closed while something unread waits on it is reset, and the client
    /// may lose the answer with it (RFC 9112, section 9.6).
    async fn linger(&mut self) {
        self.patience.wait(LINGER_LIMIT);
        let wire = &mut self.http.wire;
        let mut read = 0;
        poll_fn(|cx| {
            if wire.poll_shutdown(cx).is_pending() {
                return self.patience.poll_over(cx);
            }
            loop {
                wire.consume(wire.ahead().len());
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(more)) if more > 0 && read < LINGER_BYTES_MAX => read += more,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.patience.poll_over(cx),
                }
            }
        })
        .await;
    }
}
