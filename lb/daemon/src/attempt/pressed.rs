//! Pressed: the answer's body where it is made smaller on its way.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{Attempt, Fault, InstanceFault, body_fault, passable};
use crate::http::{Answers, Http};
use crate::press::{PIECE_BYTES_MAX, Press, TURN_BYTES_MAX};

impl<H: Http, I: Answers> Attempt<'_, H, I> {
    /// As [`Attempt::poll_body`], through a press.
    pub(super) fn poll_pressed(&mut self, cx: &mut Context<'_>, press: &mut Press) -> Poll<Result<(), Fault>> {
        let mut taken = 0;
        loop {
            while !press.ready().is_empty() {
                match self.client.http.poll_send(cx, press.ready()) {
                    Poll::Ready(Ok(sent)) => {
                        press.consume(sent);
                        self.moved = Instant::now();
                        if self.downward.is_too_slow(sent) {
                            return Poll::Ready(Err(Fault::ClientStuck));
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::ClientGone)),
                    Poll::Pending => return self.poll_client_full(cx),
                }
            }
            if press.is_over() {
                self.client.http.finish();
                return match self.client.http.poll_flush(cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                    Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::ClientGone)),
                    Poll::Pending => self.poll_client_full(cx),
                };
            }
            if taken >= TURN_BYTES_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.instance.http.poll_data(cx) {
                Poll::Ready(Ok(0)) => {
                    press.finish();
                    if let Some(trailers) = self.instance.http.take_trailers() {
                        self.client.http.put_trailers(passable(trailers));
                    }
                }
                Poll::Ready(Ok(data)) if self.is_too_large(data as u64) => {
                    return Poll::Ready(Err(Fault::Instance(InstanceFault::TooLarge)));
                }
                Poll::Ready(Ok(data)) => {
                    let data = data.min(PIECE_BYTES_MAX);
                    press.take(&self.instance.http.data()[..data]);
                    self.instance.http.consume(data);
                    self.response_bytes += data as u64;
                    self.moved = Instant::now();
                    taken += data;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(body_fault(&error))),
                Poll::Pending if press.flush() => {}
                Poll::Pending if self.client.http.is_flushed() => {
                    self.downward.end();
                    return self.poll_waiting(cx);
                }
                Poll::Pending => match self.client.http.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::ClientGone)),
                    Poll::Pending => return self.poll_client_full(cx),
                },
            }
        }
    }
}
