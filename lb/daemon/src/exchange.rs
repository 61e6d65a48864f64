//! Exchange: one request through lb: find → choose → enter the gate → forward → perhaps once more elsewhere → account.
//! Decisions are lb-core's.
//!
//! Streams, which drain by their own deadline, are upgraded connections (WebSocket), `text/event-stream`,
//! `multipart/x-mixed-replace` and calls of gRPC; everything else is a request, however long it takes.
//!
//! A request that is not idempotent never rides on a connection in HTTP/1 that was idle for more than a second, because it
//! could not be sent again if the app had just closed it. In HTTP/2 an app says so when it closes one.
//! A client that half closes its connection after a request is gone: what it asked for is ended.
//! Forwarding fields are set, not appended: lb is the edge, what a client claims about itself is dropped.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use appbase_core::v1::Protocol;
use lb_core::compress::Packing;
use lb_core::http1::framing::{self, FramingError, RequestFraming, ResponseFraming};
use lb_core::http1::{BodyLength, Known, RequestHead};
use lb_core::retry::{self, Failure, Sent};
use lb_core::{guard, host, path};
use tokio::net::TcpStream;

use crate::admission;
use crate::attempt::{Attempt, Fault, InstanceFault, Replay};
use crate::client::{Client, Told};
use crate::compose::{self, Answered, Forwarded};
use crate::entrance::Asked;
use crate::http::{Answers, Http};
use crate::http1::Http1;
use crate::http2::upstream::Upstream;
use crate::kind;
use crate::listen::Data;
use crate::mirror;
use crate::pool::Instance;
use crate::press;
use crate::refusal::Refusal;
use crate::request::{End, RequestContext, hex, is_request_id};
use crate::tunnel::Tunnel;

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Another request may come on it.
    GoesOn,
    /// The answer is out; the client may not have read it.
    Closes,
    Gone,
}

/// Carries the request whose head the client has read.
pub(crate) async fn carry<H: Http>(data: &Rc<Data>, client: &mut Client<H>) -> After {
    let mut ctx = RequestContext::new(&client.connection, &data.balancer);
    client.connection.begin_request(ctx.number);
    let after = carry_as(data, client, &mut ctx).await;
    drop(ctx);
    after
}

/// The same with what is known of it already.
pub(crate) async fn carry_as<H: Http>(data: &Rc<Data>, client: &mut Client<H>, ctx: &mut RequestContext) -> After {
    Exchange { data, replay: Replay::default() }.run(client, ctx).await
}

/// Answers what is no request, and closes.
pub(crate) async fn refuse<H: Http>(data: &Data, client: &mut Client<H>, refusal: Refusal) -> After {
    let mut ctx = RequestContext::new(&client.connection, &data.balancer);
    let took = client.answer(&refusal, &Told::default(), false).await;
    ctx.refuse(refusal);
    if took { After::Closes } else { After::Gone }
}

struct Exchange<'a> {
    data: &'a Rc<Data>,
    replay: Replay,
}

/// How an attempt came out.
enum Outcome {
    Over(After),
    /// The answer cannot be repaired any more, or nobody waits for it.
    Broke(End),
    /// No answer began.
    Failed {
        refusal: Refusal,
        again: bool,
    },
}

/// Whether an answer came to its end.
enum Passed {
    /// And which of the two connections can carry another request.
    Whole {
        is_reusable: bool,
        goes_on: bool,
    },
    Not(Outcome),
}

impl Exchange<'_> {
    async fn run<H: Http>(&mut self, client: &mut Client<H>, ctx: &mut RequestContext) -> After {
        self.identify(client, ctx);
        let framing = match read_request(&client.head, ctx) {
            Ok(framing) => framing,
            // What follows on this connection could be anything.
            Err(refusal) => return self.answer(client, ctx, refusal, false).await,
        };
        client.http.begin_incoming(framing.body);
        if let Err(refusal) = of_this_connection(ctx) {
            return self.refuse(client, ctx, &framing, refusal).await;
        }
        let mut first = None;
        loop {
            let (_, target) = framing::target(&client.head).unwrap_or((None, "/"));
            let query = target.split_once('?').map_or("", |(_, query)| query);
            let (method, fields) = (client.head.method(), &client.head.fields);
            let asked = Asked { method, target, query, fields, body: framing.body };
            match client.http.unless_ended(admission::enter(self.data, ctx, &asked)).await {
                Some(Ok(())) => {}
                // When none is left to try, the first failure is the better answer.
                Some(Err(refusal)) => return self.refuse(client, ctx, &framing, first.unwrap_or(refusal)).await,
                None => return self.end(ctx, End::ClientGone),
            }
            if first.is_some() {
                self.data.balancer.edge.retries.fetch_add(1, Ordering::Relaxed);
            }
            ctx.attempts += 1;
            match self.attempt(client, ctx, &framing).await {
                Outcome::Over(after) => {
                    ctx.complete();
                    return after;
                }
                Outcome::Broke(end) => return self.end(ctx, end),
                Outcome::Failed { refusal, again: true } => {
                    first.get_or_insert(refusal);
                }
                Outcome::Failed { refusal, again: false } => return self.refuse(client, ctx, &framing, refusal).await,
            }
        }
    }

    fn identify<H: Http>(&self, client: &Client<H>, ctx: &mut RequestContext) {
        let said = client.head.fields.get(Known::XRequestId).and_then(|field| std::str::from_utf8(field.value).ok());
        match said.filter(|id| is_request_id(id)) {
            Some(id) => ctx.id.push_str(id),
            None => hex(self.data.entrance.draw(), self.data.entrance.draw(), &mut ctx.id),
        }
        // What lb itself asks is told with the request it asks for.
        if ctx.inquiry.is_some() {
            return;
        }
        let protocol = match (H::IS_SHARED, client.head.is_http10()) {
            (true, _) => "HTTP/2.0",
            (false, true) => "HTTP/1.0",
            (false, false) => "HTTP/1.1",
        };
        ctx.account = self.data.listeners.begin(&client.head, protocol, || self.data.entrance.draw());
    }

    fn end(&self, ctx: &mut RequestContext, end: End) -> After {
        ctx.end = end;
        After::Gone
    }

    /// Answers a request that no instance got, or whose instance failed, and goes on when its body is out of the way.
    async fn refuse<H: Http>(
        &self,
        client: &mut Client<H>,
        ctx: &mut RequestContext,
        framing: &RequestFraming,
        refusal: Refusal,
    ) -> After {
        drop((ctx.entry.take(), ctx.place.take()));
        let waits_for_100 = framing.expects_continue && !client.http.is_incoming_over();
        let goes_on = !waits_for_100 && framing.keep_alive && !self.is_stopping() && client.discard_body().await;
        self.answer(client, ctx, refusal, goes_on).await
    }

    async fn answer<H: Http>(
        &self,
        client: &mut Client<H>,
        ctx: &mut RequestContext,
        refusal: Refusal,
        goes_on: bool,
    ) -> After {
        let rule = ctx.rule.clone();
        let cors = rule.as_ref().and_then(|rule| rule.route.guard.cors.as_ref());
        let told = Told { request_id: &ctx.id, notice: ctx.notice.as_deref(), marks: ctx.marks, cors };
        let took = client.answer(&refusal, &told, goes_on).await;
        ctx.refuse(refusal);
        match (took, goes_on) {
            (true, true) => After::GoesOn,
            (true, false) => After::Closes,
            (false, _) => After::Gone,
        }
    }

    fn is_stopping(&self) -> bool {
        self.data.is_leaving()
    }

    async fn attempt<H: Http>(
        &mut self,
        client: &mut Client<H>,
        ctx: &mut RequestContext,
        framing: &RequestFraming,
    ) -> Outcome {
        let connected = match ctx.protocol {
            Protocol::Http1 => match self.connect(client, ctx).await {
                Some(Ok(instance)) => return self.forward(client, ctx, framing, instance).await,
                Some(Err(error)) => Some(error),
                None => None,
            },
            Protocol::H2c => match self.open(client, ctx).await {
                Some(Ok(instance)) => return self.forward(client, ctx, framing, instance).await,
                Some(Err(error)) => Some(error),
                None => None,
            },
        };
        match connected {
            Some(error) => self.not_connected(client, ctx, &error),
            None => Outcome::Broke(End::ClientGone),
        }
    }

    async fn forward<H: Http, I: Answers>(
        &mut self,
        client: &mut Client<H>,
        ctx: &mut RequestContext,
        framing: &RequestFraming,
        mut instance: Instance<I>,
    ) -> Outcome {
        let is_patient = framing.upgrade || kind::asks_for_stream(&client.head);
        self.compose(client, ctx, framing, &mut instance, is_patient);
        let mut attempt = Attempt::new(client, &mut instance, &mut self.replay, framing, ctx.sizes, is_patient);
        attempt.sound_out(retry::is_idempotent(attempt.client.head.method())).await;
        let head = poll_fn(|cx| attempt.poll_head(cx));
        let head = match ctx.place.take() {
            Some(place) => place.during(head).await,
            None => head.await,
        };
        let (sent, answered) = (attempt.sent(), attempt.is_answered());
        let answer = match head {
            Ok(answer) => answer,
            Err(fault) => return self.failed(client, ctx, &mut instance, (sent, answered), fault),
        };
        if let Some(account) = &mut ctx.account {
            account.instance_took = attempt.took();
        }
        if let Some(entry) = &ctx.entry {
            self.data.balancer.learn(entry.backend(), &attempt.instance.head, attempt.took());
        }
        if attempt.instance.head.status() == 101 {
            if let Some(entry) = &ctx.entry {
                self.data.balancer.learn_end(entry.backend(), 101);
            }
            return self.switch(client, ctx, framing, instance).await;
        }
        match pass_on(self.data, attempt, ctx, framing, &answer).await {
            Passed::Whole { is_reusable, goes_on } => {
                if is_reusable {
                    I::give_back(instance, &self.data.pool);
                }
                Outcome::Over(if goes_on { After::GoesOn } else { After::Closes })
            }
            Passed::Not(outcome) => outcome,
        }
    }

    /// Writes the request's head to the instance, and to whoever is to have a copy.
    fn compose<H: Http, I: Answers>(
        &self,
        client: &Client<H>,
        ctx: &mut RequestContext,
        framing: &RequestFraming,
        instance: &mut Instance<I>,
        is_patient: bool,
    ) {
        let Some(entry) = &ctx.entry else { return };
        // It was read before, so it is sound.
        let (host, target) = framing::target(&client.head).unwrap_or((None, "/"));
        let rewritten = ctx.rule.as_ref().and_then(|rule| rule.rewritten(target, &ctx.path));
        let forwarded = Forwarded {
            client: client.connection.client,
            tls: client.connection.tls.as_deref(),
            request_id: &ctx.id,
            host,
            path: rewritten.as_deref().unwrap_or(target),
            instance: entry.backend().address,
            edits: ctx.rule.as_ref().map(|rule| &rule.route.request_headers),
            notice: ctx.notice.as_deref(),
            admission: ctx.admission.as_deref(),
            trace: ctx.account.as_ref().and_then(|account| account.trace),
            is_copy: false,
        };
        if let Some((backend, counters)) = ctx.copy.take()
            && framing.body == BodyLength::None
            && !is_patient
        {
            let mut copy = Vec::new();
            compose::request(&mut copy, &client.head, framing, &Forwarded { is_copy: true, ..forwarded });
            let method = if client.head.method() == "HEAD" { "HEAD" } else { "GET" };
            mirror::send(self.data, backend, counters, copy, method);
        }
        compose::request(instance.http.lines(), &client.head, framing, &forwarded);
    }

    /// Error: no connection. None: the client went away meanwhile.
    async fn connect<H: Http>(
        &self,
        client: &mut Client<H>,
        ctx: &mut RequestContext,
    ) -> Option<io::Result<Instance<Http1<TcpStream>>>> {
        let backend = ctx.entry.as_ref()?.backend();
        let safe = retry::is_idempotent(client.head.method());
        if !ctx.distrusts_pool
            && let Some(instance) = self.data.pool.take(backend, safe)
        {
            return Some(Ok(instance));
        }
        client.http.unless_ended(self.data.pool.connect(backend)).await
    }

    /// The same in HTTP/2.
    async fn open<H: Http>(
        &self,
        client: &mut Client<H>,
        ctx: &RequestContext,
    ) -> Option<io::Result<Instance<Upstream>>> {
        let backend = ctx.entry.as_ref()?.backend();
        client.http.unless_ended(self.data.pool.open(backend)).await
    }

    fn not_connected<H: Http>(&self, client: &Client<H>, ctx: &mut RequestContext, error: &io::Error) -> Outcome {
        // Others say something of this machine (no ports, no descriptors), nothing of the instance.
        let its_own = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        );
        if let Some(entry) = ctx.entry.as_ref().filter(|_| its_own) {
            self.data.balancer.connection_failed(entry.backend());
            self.data.balancer.gateway_failure(entry.backend());
        }
        let again = self.may_retry(client, ctx, (Sent::Nothing, false), false);
        Outcome::Failed { refusal: Refusal::unreachable(), again }
    }

    fn failed<H: Http, I: Answers>(
        &self,
        client: &Client<H>,
        ctx: &mut RequestContext,
        instance: &mut Instance<I>,
        state: (Sent, bool),
        fault: Fault,
    ) -> Outcome {
        // One that was pooled may just have been closed, which says nothing.
        let is_old = instance.reused || instance.http.is_connection_gone();
        if let (Fault::Instance(fault), Some(entry)) = (&fault, &ctx.entry) {
            let says_nothing = (is_old && *fault == InstanceFault::BrokeOff) || fault.says_nothing_of_the_instance();
            if !says_nothing {
                self.data.balancer.gateway_failure(entry.backend());
            }
            if *fault == InstanceFault::Silent {
                instance.http.distrust();
            }
        }
        let fault = match fault {
            Fault::ClientGone | Fault::ClientStuck => return Outcome::Broke(End::ClientGone),
            Fault::ClientSilent => return Outcome::Failed { refusal: Refusal::late_body(), again: false },
            Fault::ClientTooLarge(max) => {
                return Outcome::Failed { refusal: Refusal::body_too_large(max), again: false };
            }
            Fault::ClientBody(error) => return Outcome::Failed { refusal: Refusal::framing(error), again: false },
            Fault::Instance(fault) => fault,
        };
        let refusal = Refusal::of(fault);
        let broke_off = fault == InstanceFault::BrokeOff;
        let again = broke_off && self.may_retry(client, ctx, state, is_old);
        Outcome::Failed { refusal, again }
    }

    /// When there is to be another attempt, leaves the instance. When it was the pooled connection that failed, that says
    /// nothing of the instance, and it may be chosen again, on a new connection.
    /// `state`: how much was sent, and whether something of an answer came.
    fn may_retry<H: Http>(
        &self,
        client: &Client<H>,
        ctx: &mut RequestContext,
        state: (Sent, bool),
        reused: bool,
    ) -> bool {
        let (sent, answered) = state;
        let allowed = retry::allowed(&Failure {
            method: client.head.method(),
            sent,
            answered,
            attempts: ctx.attempts,
            idempotency_key: client.head.fields.has(Known::IdempotencyKey),
            reused,
            replayable: self.replay.is_whole(),
        });
        if allowed {
            ctx.distrusts_pool |= reused;
            if let Some(entry) = ctx.entry.take().filter(|_| !reused) {
                ctx.tried.push(entry.backend().serial);
            }
        }
        allowed
    }

    /// The instance leaves HTTP on this connection.
    async fn switch<H: Http, I: Answers>(
        &self,
        client: &mut Client<H>,
        ctx: &mut RequestContext,
        framing: &RequestFraming,
        mut instance: Instance<I>,
    ) -> Outcome {
        if !framing.upgrade {
            let fault = InstanceFault::Invalid("it switches protocols without being asked");
            return Outcome::Failed { refusal: Refusal::of(fault), again: false };
        }
        let upgrade = instance.head.fields.get(Known::Upgrade);
        if upgrade.is_some_and(|field| framing::is_http2(&field)) {
            let fault = InstanceFault::Invalid("it switches to HTTP/2");
            return Outcome::Failed { refusal: Refusal::of(fault), again: false };
        }
        let is_websocket = upgrade.is_some_and(|field| field.has_token("websocket"));
        ctx.status = Some(101);
        ctx.become_stream(false);
        if is_websocket {
            ctx.connection.set_websocket();
        }
        let answer = ResponseFraming { body: BodyLength::None, keep_alive: false, nominates: false };
        let edits = ctx.rule.as_ref().map(|rule| &rule.route.response_headers);
        let (body, connection) = (BodyLength::None, Some("upgrade"));
        let answered = Answered {
            request_id: &ctx.id,
            body,
            connection,
            edits,
            cors: None,
            packing: Packing::None,
            marks: ctx.marks,
            notice: ctx.notice.as_deref(),
        };
        compose::response(client.http.lines(), &instance.head, &answer, &answered);
        let patience = &mut client.patience;
        let (Some(wire), Some(to_instance)) = (client.http.wire(), instance.http.wire()) else {
            return Outcome::Broke(End::Unknown);
        };
        let before = (wire.written(), to_instance.written());
        let mut tunnel =
            Tunnel::new(wire, to_instance, patience, &client.connection, is_websocket, client.limits.stream_silence);
        let tunnelled = poll_fn(|cx| tunnel.poll(cx)).await;
        if let (Some(account), Some(wire)) = (&mut ctx.account, client.http.wire()) {
            account.response_bytes = wire.written() - before.0;
            account.request_bytes = instance.http.written() - before.1;
        }
        match tunnelled {
            Ok(()) => Outcome::Over(After::Closes),
            Err(error) => {
                tracing::debug!(request_id = ctx.id, error = %error, "tunnel broke off");
                Outcome::Over(After::Gone)
            }
        }
    }
}

/// Passes the answer on, whose head is there.
async fn pass_on<H: Http, I: Answers>(
    data: &Data,
    mut attempt: Attempt<'_, H, I>,
    ctx: &mut RequestContext,
    framing: &RequestFraming,
    answer: &ResponseFraming,
) -> Passed {
    let is_stream = kind::is_stream(&attempt.instance.head);
    ctx.status = Some(attempt.instance.head.status());
    if is_stream {
        ctx.become_stream(kind::is_call(&attempt.client.head));
        attempt.become_patient();
    }
    // Who waits for 100 and gets an answer instead may send its body or not: what follows could be either.
    let may_go_on = framing.keep_alive && !attempt.waits_for_continue() && !data.is_leaving();
    let before = attempt.client.http.written();
    let rule = ctx.rule.as_deref().filter(|_| !is_stream);
    let (packing, press) = press::choose(rule, &attempt.client.head, &attempt.instance.head, answer.body);
    attempt.press = press;
    let goes_on = begin_answer(attempt.client, attempt.instance, ctx, may_go_on, answer, packing);
    let passed = poll_fn(|cx| attempt.poll_body(cx)).await;
    if let Some(account) = &mut ctx.account {
        (account.request_bytes, account.response_bytes) = attempt.moved_bytes();
    }
    if let Err(fault) = passed {
        tracing::debug!(request_id = ctx.id, fault = ?fault, "answer broke off");
        let client = attempt.client;
        let Fault::Instance(fault) = fault else { return Passed::Not(Outcome::Broke(End::ClientGone)) };
        // A stream that ends is no failure, however it ends: its client connects again.
        if let Some(entry) = ctx.entry.as_ref().filter(|_| !is_stream && !fault.says_nothing_of_the_instance()) {
            data.balancer.gateway_failure(entry.backend());
        }
        // As long as nothing of it is out, there is a better one.
        if client.http.written() == before && client.http.take_back() {
            return Passed::Not(Outcome::Failed { refusal: Refusal::of(fault), again: false });
        }
        client.flush().await;
        client.http.break_off();
        return Passed::Not(Outcome::Broke(End::BrokeOff));
    }
    if let (Some(entry), Some(status)) = (&ctx.entry, ctx.status) {
        data.balancer.learn_end(entry.backend(), status);
    }
    if !attempt.waits_for_continue()
        && let Err(fault) = poll_fn(|cx| attempt.poll_rest(cx)).await
    {
        tracing::debug!(request_id = ctx.id, fault = ?fault, "request broke off after its answer");
        ctx.complete();
        return Passed::Not(Outcome::Over(After::Closes));
    }
    let is_reusable = answer.keep_alive && attempt.is_request_over();
    ctx.complete();
    let client = attempt.client;
    let goes_on = goes_on && (client.http.is_incoming_over() || client.discard_body().await);
    Passed::Whole { is_reusable, goes_on }
}

/// Checks the head and reads from it what routing needs.
fn read_request(head: &RequestHead, ctx: &mut RequestContext) -> Result<RequestFraming, Refusal> {
    if head.method() == "CONNECT" {
        return Err(Refusal::connect());
    }
    let framing = framing::of_request(head).map_err(|error| match error {
        FramingError::Coding => Refusal::coding(),
        error => Refusal::framing(error),
    })?;
    let (host, target) = framing::target(head).map_err(Refusal::framing)?;
    ctx.host = host.map(host::canonical).transpose().map_err(Refusal::host)?;
    ctx.path = path::canonical(target).map_err(Refusal::path)?.into_owned();
    Ok(framing)
}

/// Whether the host is one of those that the connection was made for (RFC 9110, section 15.5.20).
fn of_this_connection(ctx: &RequestContext) -> Result<(), Refusal> {
    match (&ctx.connection.tls, &ctx.host) {
        (Some(tls), Some(host)) if !tls.is_for(host) => Err(Refusal::misdirected()),
        _ => Ok(()),
    }
}

/// Writes the head of the answer. Whether the connection can go on after it.
fn begin_answer<H: Http, I: Answers>(
    client: &mut Client<H>,
    instance: &Instance<I>,
    ctx: &RequestContext,
    may_go_on: bool,
    answer: &ResponseFraming,
    packing: Packing,
) -> bool {
    let old = client.head.is_http10();
    let body = match answer.body {
        BodyLength::UntilClose | BodyLength::Chunked if old => BodyLength::UntilClose,
        BodyLength::UntilClose => BodyLength::Chunked,
        _ if packing == Packing::Gzip => BodyLength::Chunked,
        body => body,
    };
    let goes_on = may_go_on && body != BodyLength::UntilClose;
    let connection = compose::connection(goes_on, old);
    let edits = ctx.rule.as_ref().map(|rule| &rule.route.response_headers);
    let cors = ctx.rule.as_ref().and_then(|rule| rule.route.guard.cors.as_ref());
    let cors = cors.map(|cors| (cors, guard::crossing(cors, client.head.method(), &client.head.fields)));
    let answered = Answered {
        request_id: &ctx.id,
        body,
        connection,
        edits,
        cors,
        packing,
        marks: ctx.marks,
        notice: ctx.notice.as_deref(),
    };
    compose::response(client.http.lines(), &instance.head, answer, &answered);
    client.http.begin_outgoing(body);
    goes_on
}
