//! Request: what lb remembers of one request, and the one place where it is accounted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use appbase_core::v1::Protocol;
use lb_core::preview;
use lb_core::rule::Rule;

use crate::account::{Account, Ended};
use crate::backend::{Backend, Entry};
use crate::balancer::Balancer;
use crate::connection::Connection;
use crate::counters::{Outcome, ReleaseCounters};
use crate::hold::Place;
use crate::marks::Marks;
use crate::refusal::Refusal;

/// Numbers requests for the whole process; 0 is none.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// The next one.
pub(crate) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Ends with the request, however it ends: accounting is in its drop.
pub(crate) struct RequestContext {
    pub(crate) number: u64,
    pub(crate) connection: Arc<Connection>,
    balancer: Arc<Balancer>,
    began: Duration,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) id: String,
    /// The rule that took it, when that changes anything in messages.
    pub(crate) rule: Option<Arc<Rule>>,
    /// The most that its body and its answer's may have.
    pub(crate) sizes: Sizes,
    /// It was counted in its route's rate.
    pub(crate) is_counted: bool,
    /// What the instance speaks.
    pub(crate) protocol: Protocol,
    /// Where it is now; dropping it leaves.
    pub(crate) entry: Option<Entry>,
    /// Backends that failed it.
    pub(crate) tried: Vec<u64>,
    /// For so many of them another one was paid for.
    pub(crate) charged: usize,
    pub(crate) attempts: u32,
    /// A pooled connection failed under it: its next one is new.
    pub(crate) distrusts_pool: bool,
    /// The status that goes to the client.
    pub(crate) status: Option<u16>,
    /// What the client is told with its answer.
    pub(crate) marks: Marks,
    pub(crate) notice: Option<Arc<str>>,
    /// Who is to have a copy of it.
    pub(crate) copy: Option<(Arc<Backend>, Arc<ReleaseCounters>)>,
    /// Its place among those that waited, until it is answered.
    pub(crate) place: Option<Place>,
    /// What lb answered itself.
    refusal: Option<Refusal>,
    /// Of the release it went to, or the live one of its section.
    pub(crate) counters: Option<Arc<ReleaseCounters>>,
    pub(crate) end: End,
    is_stream: bool,
    is_call: bool,
    /// When it was answered, or a stream's head came: its duration is until then.
    until: Option<Duration>,
    /// What is told of it when it is over.
    pub(crate) account: Option<Box<Account>>,
}

/// In bytes; none: any.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sizes {
    pub(crate) request_max: Option<u64>,
    pub(crate) response_max: Option<u64>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Cut: nobody said how it ended.
    Unknown,
    Complete,
    /// The client went away first.
    ClientGone,
    /// The answer broke off on the app's side.
    BrokeOff,
}

impl RequestContext {
    pub(crate) fn new(connection: &Arc<Connection>, balancer: &Arc<Balancer>) -> Self {
        Self {
            number: number(),
            connection: Arc::clone(connection),
            balancer: Arc::clone(balancer),
            began: balancer.clock.elapsed(),
            host: None,
            path: String::new(),
            id: String::new(),
            rule: None,
            sizes: Sizes::default(),
            is_counted: false,
            protocol: Protocol::default(),
            entry: None,
            tried: Vec::new(),
            charged: 0,
            attempts: 0,
            distrusts_pool: false,
            status: None,
            marks: Marks::default(),
            notice: None,
            copy: None,
            place: None,
            refusal: None,
            counters: None,
            end: End::Unknown,
            is_stream: false,
            is_call: false,
            until: None,
            account: None,
        }
    }

    /// lb answered itself.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.end = End::Complete;
        self.status = Some(refusal.status);
        self.refusal = Some(refusal);
    }

    /// The answer is a long-lived stream.
    /// `is_call`: of gRPC.
    pub(crate) fn become_stream(&mut self, is_call: bool) {
        (self.is_stream, self.is_call) = (true, is_call);
        self.until.get_or_insert(self.balancer.clock.elapsed());
        if let Some(entry) = &mut self.entry {
            entry.become_stream();
        }
    }

    /// The client has its answer, and the instance nothing more to do.
    pub(crate) fn complete(&mut self) {
        self.end = End::Complete;
        self.until.get_or_insert(self.balancer.clock.elapsed());
        drop(self.entry.take());
    }

    /// Whether the user saw a failure that is not the app's own answer. Maintenance is wanted, and a stream that ends
    /// is no failure: its client connects again. A call that breaks off is one.
    fn failed(&self) -> bool {
        match &self.refusal {
            Some(refusal) => refusal.status >= 500 && refusal.code != "maintenance",
            None if self.is_stream => self.is_call && self.end == End::BrokeOff,
            None => matches!(self.end, End::BrokeOff | End::Unknown),
        }
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        self.connection.end_request();
        drop(self.entry.take());
        let until = self.until.unwrap_or_else(|| self.balancer.clock.elapsed());
        let outcome = Outcome {
            status: self.status,
            failed: self.failed(),
            by_lb: self.refusal.is_some(),
            took: until.saturating_sub(self.began),
        };
        if let Some(refusal) = self.refusal.as_ref().filter(|refusal| refusal.wanted.is_none()) {
            self.balancer.edge.refuse(refusal.code);
        }
        if let Some(counters) = &self.counters {
            counters.count(&outcome);
        }
        if let Some(account) = &self.account {
            let failed = outcome.failed || self.status.is_some_and(|status| status >= 500);
            let host = self.host.as_deref().map(preview::masked);
            let ended = Ended {
                unix_ms: self.balancer.clock.unix_ms(),
                id: &self.id,
                connection: &self.connection,
                host: host.as_deref(),
                path: &self.path,
                status: self.status,
                code: self.refusal.as_ref().map(|refusal| refusal.code),
                end: self.end,
                took: outcome.took,
                attempts: self.attempts,
            };
            account.tell(ended, failed);
        }
    }
}
