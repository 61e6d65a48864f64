//! The server: the table in force, and what every transport does with a packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use appbase_core::v1::{MemberKind, MemberStatus};
use appbase_core::{Generation, SectionKey};
use arc_swap::ArcSwapOption;
use dns_core::v1::NameSection;
use dns_core::{Forward, Outcome, Table, Transport, answer, rcode};
use kit::Tasks;
use kit::admin::Admin;
use kit::member::Follower;

use crate::counters::{Counters, add};
use crate::limits::{Limits, Place};
use crate::upstream::Upstreams;

/// Forwarded questions in flight: of one source, and of all. Each has a socket and lives 4 s at most.
const FORWARDS_EACH_MAX: usize = 256;
const FORWARDS_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Server {
    table: ArcSwapOption<Table>,
    upstreams: Upstreams,
    forwards: Arc<Limits>,
    pub(crate) counters: Counters,
    pub(crate) tasks: Tasks,
}

/// What is left to do after [`Server::answer`].
pub(crate) enum Next {
    /// The reply stands in the buffer.
    Send,
    /// An upstream has to be asked; see [`Server::forward`].
    Ask(Forward, Place),
    Nothing,
}

impl Server {
    pub(crate) fn new(upstreams: Vec<SocketAddr>, tasks: Tasks) -> Self {
        let forwards = Limits::new(FORWARDS_EACH_MAX, FORWARDS_MAX);
        let upstreams = Upstreams::new(upstreams);
        Self { table: ArcSwapOption::empty(), upstreams, forwards, counters: Counters::default(), tasks }
    }

    pub(crate) fn put_in_force(&self, table: Table) {
        self.table.store(Some(Arc::new(table)));
    }

    /// Never waits: the table is held only while the reply is written.
    pub(crate) fn answer(
        &self,
        packet: &[u8],
        source: IpAddr,
        transport: Transport,
        seed: u64,
        out: &mut Vec<u8>,
    ) -> Next {
        let outcome = answer(packet, self.table.load().as_deref(), source, transport, seed, out);
        match outcome {
            Outcome::Reply(answered) => {
                self.counters.count(transport, answered);
                Next::Send
            }
            Outcome::Drop => {
                add(&self.counters.dropped);
                Next::Nothing
            }
            Outcome::Forward(forward) => {
                if let Some(place) = self.forwards.enter(source) {
                    return Next::Ask(forward, place);
                }
                add(&self.counters.forward_refused);
                let (reply, answered) = forward.failure(rcode::SERVFAIL);
                self.counters.count(transport, answered);
                *out = reply;
                Next::Send
            }
        }
    }

    /// The reply of an upstream, or SERVFAIL.
    pub(crate) async fn forward(&self, forward: &Forward, transport: Transport) -> Vec<u8> {
        add(&self.counters.forwarded);
        let (reply, answered) = match self.upstreams.ask(forward).await {
            Some(reply) => forward.relay(reply),
            None => {
                add(&self.counters.forward_failures);
                forward.failure(rcode::SERVFAIL)
            }
        };
        self.counters.count(transport, answered);
        reply
    }
}

impl Follower for Server {
    type Section = NameSection;
    type Checked = Table;

    const KIND: MemberKind = MemberKind::Dns;

    fn check(&self, sections: &BTreeMap<SectionKey, NameSection>) -> Result<Table, String> {
        Table::new(sections).map_err(|error| kit::problem::chain(&error))
    }

    fn swap(&self, generation: &Generation, mut table: Table, _presumed: bool) {
        // Serial numbers go round (RFC 1982).
        table.set_serial(u32::try_from(generation.number & u64::from(u32::MAX)).expect("masked"));
        self.put_in_force(table);
    }

    fn report(&self, status: &mut MemberStatus) {
        if let Some(table) = self.table.load().as_deref() {
            status.live.clone_from(table.live());
        }
    }
}

impl Admin for Server {
    fn ready(&self) -> Result<(), String> {
        match self.table.load().as_deref() {
            Some(_) => Ok(()),
            None => Err("no name table yet: waiting for the controller".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        let mut text = self.counters.text();
        let nodes = self.table.load().as_deref().map_or(0, Table::nodes);
        for (name, value) in [
            ("ready", usize::from(self.ready().is_ok())),
            ("table_names", nodes),
            ("forwards_in_flight", self.forwards.inside()),
        ] {
            text.push_str(&format!("# TYPE platform_dns_{name} gauge\nplatform_dns_{name} {value}\n"));
        }
        text
    }
}
