//! Attempt: one request on one connection to an instance. Both directions of both connections move in one place, so an
//! answer may begin before the request's body has come, and whoever goes away is noticed at once.
//!
//! ```text
//! client ──body──► keep a copy ──► instance      until the answer's head
//! client ◄──body────────────────── instance      after it, with what is left of the request
//! ```

use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use lb_core::http1::framing::{self, RequestFraming, ResponseFraming};
use lb_core::http1::{BodyLength, Known, ResponseHead};
use lb_core::retry::Sent;
use tokio::time::Instant;

use crate::client::Client;
use crate::http::{Answers, BodyError, Http};
use crate::kind;
use crate::pace::Pace;
use crate::pool::Instance;
use crate::request::Sizes;

/// 1xx before an answer. There is no use for many.
const INTERIM_MAX: u32 = 16;

/// Why an attempt failed, and whose fault it was.
#[derive(Debug)]
pub(crate) enum Fault {
    ClientGone,
    /// Its body does not come, or far too slowly.
    ClientSilent,
    ClientBody(BodyError),
    /// Its body is larger than the route takes: so many bytes.
    ClientTooLarge(u64),
    /// It does not take the answer, or far too slowly.
    ClientStuck,
    Instance(InstanceFault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstanceFault {
    /// The connection ended.
    BrokeOff,
    /// What it said is no answer.
    Invalid(&'static str),
    /// More than the route lets through.
    TooLarge,
    /// What is asked of it cannot be said in the version that it speaks.
    Unsayable,
    Silent,
}

impl InstanceFault {
    /// It is the request's, or the route's.
    pub(crate) fn says_nothing_of_the_instance(self) -> bool {
        matches!(self, Self::TooLarge | Self::Unsayable)
    }
}

/// What was sent of a request's body, as long as it may have to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    bytes: Vec<u8>,
    /// More came than is kept.
    truncated: bool,
}

impl Replay {
    /// A body up to this can go to another instance.
    const BYTES_MAX: usize = 64 << 10;

    fn keep(&mut self, data: &[u8]) {
        if self.truncated || self.bytes.len() + data.len() > Self::BYTES_MAX {
            self.stop();
        } else {
            self.bytes.extend_from_slice(data);
        }
    }

    /// Nothing more is kept.
    fn stop(&mut self) {
        (self.bytes, self.truncated) = (Vec::new(), true);
    }

    pub(crate) fn is_whole(&self) -> bool {
        !self.truncated
    }
}

pub(crate) struct Attempt<'a, H, I> {
    pub(crate) client: &'a mut Client<H>,
    pub(crate) instance: &'a mut Instance<I>,
    replay: &'a mut Replay,
    /// How much of `replay` has gone to this instance.
    replayed: usize,
    /// The request has a body.
    has_body: bool,
    sent_body: bool,
    /// What the wire had written before.
    written_before: u64,
    request_over: bool,
    /// The instance takes nothing more of the request; its answer may say why.
    deaf: bool,
    expects_continue: bool,
    continued: bool,
    interim: u32,
    /// The answer's head is there.
    answering: bool,
    /// And all of its body.
    answered: bool,
    /// Of both bodies; and how much of them came.
    sizes: Sizes,
    request_bytes: u64,
    response_bytes: u64,
    /// It is the client whom the request waits for.
    client_owes: bool,
    /// From the end of the request to the head of its answer; none: the answer came before.
    took: Option<Duration>,
    /// When something last moved.
    moved: Instant,
    /// The client may be silent for as long as the instance.
    is_call: bool,
    /// How long the instance may be silent.
    silence: Duration,
    /// Of the client, as it sends and as it takes.
    upward: Pace,
    downward: Pace,
}

impl<'a, H: Http, I: Answers> Attempt<'a, H, I> {
    /// The request's head waits on the instance's wire. `is_patient`: it says itself that it asks for a stream.
    pub(crate) fn new(
        client: &'a mut Client<H>,
        instance: &'a mut Instance<I>,
        replay: &'a mut Replay,
        framing: &RequestFraming,
        sizes: Sizes,
        is_patient: bool,
    ) -> Self {
        instance.http.begin_outgoing(framing.body);
        let limits = client.limits;
        let mut expects_continue = framing.expects_continue;
        if I::IS_SHARED && expects_continue {
            // Windows hold a body back there: nobody has to be asked for it.
            client.http.interim(&ResponseHead::go_on());
            expects_continue = false;
        }
        Self {
            replayed: 0,
            has_body: !matches!(framing.body, BodyLength::None | BodyLength::Bytes(0)),
            sent_body: false,
            written_before: instance.http.written(),
            request_over: false,
            deaf: false,
            expects_continue,
            continued: false,
            interim: 0,
            answering: false,
            answered: false,
            sizes,
            request_bytes: replay.bytes.len() as u64,
            replay,
            response_bytes: 0,
            client_owes: false,
            took: None,
            moved: Instant::now(),
            is_call: kind::is_call(&client.head),
            silence: if is_patient { limits.stream_silence } else { limits.silence },
            upward: Pace::new(limits.pace_window),
            downward: Pace::new(limits.pace_window),
            client,
            instance,
        }
    }

    /// How much of the request the instance may have.
    pub(crate) fn sent(&self) -> Sent {
        match (self.instance.http.written() - self.written_before, self.has_body && !self.sent_body) {
            (0, _) => Sent::Nothing,
            (_, true) => Sent::HeadOnly,
            (_, false) => Sent::Body,
        }
    }

    /// From the end of the request to the head of its answer; none: the answer came before.
    pub(crate) fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Of the request's body, and of the answer's.
    pub(crate) fn moved_bytes(&self) -> (u64, u64) {
        (self.request_bytes, self.response_bytes)
    }

    /// Something of an answer came.
    pub(crate) fn is_answered(&self) -> bool {
        self.interim > 0 || self.instance.http.has_begun()
    }

    /// The instance has all of the request.
    pub(crate) fn is_request_over(&self) -> bool {
        self.request_over && !self.deaf
    }

    /// The client sends no body before it is told to, and it was not.
    pub(crate) fn waits_for_continue(&self) -> bool {
        self.expects_continue && !self.continued && !self.client.http.is_incoming_over()
    }

    /// From now on long silences of the instance are usual.
    pub(crate) fn become_patient(&mut self) {
        self.silence = self.client.limits.stream_silence;
    }

    /// A request that cannot be sent twice goes without its body first when the connection was used before: one that the
    /// app has closed says so now, and then the app has carried out nothing.
    pub(crate) async fn sound_out(&mut self, is_safe: bool) {
        if is_safe || !self.has_body || !self.instance.reused {
            return;
        }
        self.deaf = self.instance.http.has_ended().await;
    }

    /// Sends the request until the head of its answer is there.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseFraming, Fault>> {
        let _ = self.poll_upward(cx)?;
        loop {
            let Instance { http, head, .. } = &mut *self.instance;
            match http.poll_head(cx, head) {
                Poll::Ready(Ok(())) if head.is_interim() => self.pass_interim()?,
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(Fault::Instance(fault))),
                Poll::Pending => return self.poll_waiting(cx),
            }
        }
        let framing = framing::of_response(&self.instance.head, self.client.head.method());
        let framing = framing.map_err(|_| Fault::Instance(InstanceFault::Invalid("its framing is ambiguous")))?;
        if let BodyLength::Bytes(bytes) = framing.body
            && self.is_too_large(bytes)
        {
            return Poll::Ready(Err(Fault::Instance(InstanceFault::TooLarge)));
        }
        self.instance.http.begin_incoming(framing.body);
        self.answering = true;
        // It is not sent again. What of it has not gone at all yet still does.
        self.replay.truncated = true;
        self.took = self.is_request_over().then(|| self.moved.elapsed());
        self.moved = Instant::now();
        Poll::Ready(Ok(framing))
    }

    /// Nothing moves for now.
    fn poll_waiting<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Fault>> {
        // An interim head may wait; whether it goes is seen when something follows.
        if let Poll::Ready(Err(_)) = self.client.http.poll_flush(cx) {
            return Poll::Ready(Err(Fault::ClientGone));
        }
        if self.client.http.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Fault::ClientGone));
        }
        // Once the answer has begun, it is the answer that is waited for.
        let client_owes = self.client_owes && !self.waits_for_continue() && !self.answering;
        let limit = if client_owes && !self.is_call { self.client.limits.silence } else { self.silence };
        ready!(self.poll_silence(cx, limit));
        Poll::Ready(Err(if client_owes { Fault::ClientSilent } else { Fault::Instance(InstanceFault::Silent) }))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        self.client.patience.wait_until(self.moved + limit);
        self.client.patience.poll_over(cx)
    }

    /// Passes the request's body on. Ready when it is over, or the instance takes no more.
    fn poll_upward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.client_owes = false;
        loop {
            if self.deaf {
                return Poll::Ready(Ok(()));
            }
            if self.replayed < self.replay.bytes.len() {
                match ready!(self.instance.http.poll_send(cx, &self.replay.bytes[self.replayed..])) {
                    Ok(sent) => self.replayed += sent,
                    Err(_) => self.deaf = true,
                }
                self.sent_body = true;
                continue;
            }
            if self.request_over {
                self.deaf = ready!(self.instance.http.poll_flush(cx)).is_err();
                return Poll::Ready(Ok(()));
            }
            match self.client.http.poll_data(cx) {
                Poll::Ready(Ok(0)) => {
                    self.request_over = true;
                    // From here on it is the instance that takes its time.
                    self.moved = Instant::now();
                    self.sent_body |= self.has_body;
                    if let Some(trailers) = self.client.http.take_trailers() {
                        self.instance.http.put_trailers(passable(trailers));
                    }
                    self.deaf = !self.instance.http.finish();
                }
                Poll::Ready(Ok(data)) => ready!(self.poll_pass_up(cx, data))?,
                Poll::Ready(Err(BodyError::Ended | BodyError::Io(_))) => return Poll::Ready(Err(Fault::ClientGone)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::ClientBody(error))),
                Poll::Pending => {
                    if !self.waits_for_continue() {
                        self.upward.begin();
                    }
                    self.deaf = matches!(self.instance.http.poll_flush(cx), Poll::Ready(Err(_)));
                    self.client_owes = self.instance.http.is_flushed();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether so much more of the answer is more than the route lets through.
    fn is_too_large(&self, more: u64) -> bool {
        self.sizes.response_max.is_some_and(|max| self.response_bytes + more > max)
    }

    /// Passes on what is at hand of the request's body.
    fn poll_pass_up(&mut self, cx: &mut Context<'_>, data: usize) -> Poll<Result<(), Fault>> {
        if let Some(max) = self.sizes.request_max
            && self.request_bytes + data as u64 > max
        {
            return Poll::Ready(Err(Fault::ClientTooLarge(max)));
        }
        self.sent_body = true;
        let data = &self.client.http.data()[..data];
        let Poll::Ready(sent) = self.instance.http.poll_send(cx, data) else {
            // Now it is the instance that is waited for.
            self.upward.end();
            return Poll::Pending;
        };
        let Ok(sent) = sent else {
            self.deaf = true;
            return Poll::Ready(Ok(()));
        };
        self.replay.keep(&data[..sent]);
        self.replayed = self.replay.bytes.len();
        self.client.http.consume(sent);
        self.request_bytes += sent as u64;
        self.moved = Instant::now();
        // While the answer goes on both may be talking, at their own pace.
        let too_slow = self.upward.is_too_slow(sent) && (!self.answering || self.answered) && !self.is_call;
        Poll::Ready(if too_slow { Err(Fault::ClientSilent) } else { Ok(()) })
    }

    /// A client of HTTP/1.0 knows no 1xx, and one that did not ask waits for no 100.
    fn pass_interim(&mut self) -> Result<(), Fault> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(Fault::Instance(InstanceFault::Invalid("it sends one 1xx after the other")));
        }
        self.moved = Instant::now();
        self.continued |= self.instance.head.status() == 100;
        let is_wanted = self.instance.head.status() != 100 || self.expects_continue;
        if is_wanted && !self.client.head.is_http10() {
            self.client.http.interim(&self.instance.head);
        }
        Ok(())
    }

    /// Passes the answer's body on; its head waits on the client's wire. Ready when the client has it all.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let _ = self.poll_upward(cx)?;
        loop {
            match self.instance.http.poll_data(cx) {
                Poll::Ready(Ok(0)) => {
                    if let Some(trailers) = self.instance.http.take_trailers() {
                        self.client.http.put_trailers(passable(trailers));
                    }
                    self.client.http.finish();
                    return match self.client.http.poll_flush(cx) {
                        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                        Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::ClientGone)),
                        Poll::Pending => self.poll_client_full(cx),
                    };
                }
                Poll::Ready(Ok(data)) if self.is_too_large(data as u64) => {
                    return Poll::Ready(Err(Fault::Instance(InstanceFault::TooLarge)));
                }
                Poll::Ready(Ok(data)) => {
                    let data = &self.instance.http.data()[..data];
                    match self.client.http.poll_send(cx, data) {
                        Poll::Ready(Ok(sent)) => {
                            self.instance.http.consume(sent);
                            self.response_bytes += sent as u64;
                            self.moved = Instant::now();
                            if self.downward.is_too_slow(sent) {
                                return Poll::Ready(Err(Fault::ClientStuck));
                            }
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::ClientGone)),
                        Poll::Pending => return self.poll_client_full(cx),
                    }
                }
                Poll::Ready(Err(BodyError::Framing(_))) => {
                    let fault = InstanceFault::Invalid("its body is not framed as its head says");
                    return Poll::Ready(Err(Fault::Instance(fault)));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::Instance(InstanceFault::BrokeOff))),
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

    /// After the answer: what is left of the request still goes to an instance that takes it. Ready when it is over.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.answered = true;
        if self.poll_upward(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        // Nothing follows the answer but the end of the connection.
        if self.instance.http.poll_ended(cx).is_ready() {
            self.deaf = true;
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_silence(cx, self.client.limits.silence));
        self.deaf = true;
        Poll::Ready(Ok(()))
    }

    /// The client takes nothing more for now.
    fn poll_client_full(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.downward.begin();
        self.poll_silence(cx, self.client.limits.silence).map(|()| Err(Fault::ClientStuck))
    }
}

/// What may stand in a trailer: nothing that lb itself reads or says in a head (RFC 9110, section 6.5.1).
fn passable(trailers: HeaderMap) -> HeaderMap {
    let passes = |name: &HeaderName| Known::of(name.as_str()) == Known::Other;
    let (mut passed, mut last) = (HeaderMap::with_capacity(trailers.len()), None);
    for (name, value) in trailers {
        // A name is given once for all values that follow.
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| passes(name)) {
            passed.append(name, value);
        }
    }
    passed
}
