//! Account: what is kept of a request so that it can be told when it is over, by the access log and by traces. Where neither
//! is wanted there is none.

mod line;

use std::sync::Arc;
use std::time::Duration;

use lb_core::http1::{Known, RequestHead};
use lb_core::pick::Seeds;
use lb_core::rule::Rule;
use lb_core::trace::Context;

use crate::access::AccessLog;
use crate::backend::Backend;
use crate::spans::Spans;
pub(crate) use line::{Ended, Line};

/// Of `Referer` and `User-Agent`: longer ones are cut.
const SAID_BYTES_MAX: usize = 512;

/// Who wants to be told of requests.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    pub(crate) log: Option<Arc<AccessLog>>,
    pub(crate) spans: Option<Arc<Spans>>,
}

pub(crate) struct Account {
    listeners: Listeners,
    /// Its line is written however it ends.
    is_logged: bool,
    pub(crate) trace: Option<Context>,
    pub(crate) method: String,
    pub(crate) protocol: &'static str,
    referer: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// The one that took it.
    pub(crate) rule: Option<Arc<Rule>>,
    /// Where it was last, and of which release.
    pub(crate) instance: Option<(Arc<Backend>, u64)>,
    /// Of the bodies, in bytes.
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// From the end of the request to the head of the instance's answer.
    pub(crate) instance_took: Option<Duration>,
}

impl Listeners {
    /// None: nobody wants to be told of it. `seed`: for a choice.
    pub(crate) fn begin(
        &self,
        head: &RequestHead,
        protocol: &'static str,
        seed: impl FnOnce() -> u64,
    ) -> Option<Box<Account>> {
        if self.log.is_none() && self.spans.is_none() {
            return None;
        }
        let mut seeds = Seeds(seed());
        let said = |name: &str| {
            let mut fields = head.fields.iter().filter(|field| field.known == Known::Other);
            let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
            let value = field.value.get(..SAID_BYTES_MAX).unwrap_or(field.value);
            Some(String::from_utf8_lossy(value).into_owned())
        };
        Some(Box::new(Account {
            is_logged: self.log.as_ref().is_some_and(|log| log.share.takes(seeds.draw())),
            trace: self.spans.as_ref().map(|spans| Context::of(&head.fields, &mut seeds, spans.share)),
            listeners: self.clone(),
            method: head.method().to_owned(),
            protocol,
            referer: said("referer"),
            user_agent: said("user-agent"),
            rule: None,
            instance: None,
            request_bytes: 0,
            response_bytes: 0,
            instance_took: None,
        }))
    }
}

impl Account {
    /// Tells whoever wants to know. `failed`: the user saw a failure, or the app's own.
    pub(crate) fn tell(&self, ended: Ended<'_>, failed: bool) {
        let log = self.listeners.log.as_ref().filter(|_| self.is_logged || failed);
        let spans = self.listeners.spans.as_ref().filter(|_| self.trace.is_some_and(|trace| trace.is_sampled));
        if log.is_none() && spans.is_none() {
            return;
        }
        // The failed ones are all told.
        let share = self.listeners.log.as_ref().map(|log| log.share).filter(|share| !share.is_all() && !failed);
        let line = Line { ended, account: self, share };
        if let Some(log) = log {
            log.append(&line);
        }
        if let Some(spans) = spans {
            spans.append(&line);
        }
    }
}
