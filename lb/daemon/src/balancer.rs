//! Balancer: what all threads share. The snapshot in force, the backends behind it, and how one follows the other.
//!
//! A swap goes open, store, close: first the gates of what becomes active, then the one pointer, then the gates of what
//! no longer is. So whoever finds a gate closed finds the newer snapshot already there, and whoever loaded an older
//! one enters only what is open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::{Health, InstanceReport, MemberStatus};
use appbase_core::{InstanceId, ReleaseNumber, SectionKey};
use arc_swap::ArcSwap;
use dashmap::DashMap;
use kit::member::InForce;
use kit::{Clock, Shutdown, Tasks};
use lb_core::eject::{self, Ejection};
use lb_core::health::HealthMachine;
use lb_core::http1::ResponseHead;
use lb_core::v1::handover::Left;
use lb_core::v1::{Drain, InstanceState, PoolInstance};
use lb_core::{Section, Table};
use tokio::sync::Notify;

use crate::backend::{Backend, Judgement, Place};
use crate::certificates::{CertificateError, Certificates};
use crate::counters::ReleaseCounters;
use crate::experience;
use crate::handover::Remaining;
use crate::probe;
use crate::proofs::Proofs;
use crate::rates::Rates;
use crate::snapshot::{Lasting, Snapshot, takes_requests};

pub(crate) struct Balancer {
    pub(crate) clock: Clock,
    pub(crate) in_force: Arc<InForce>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) backends: DashMap<InstanceId, Arc<Backend>>,
    /// One table change or health change at a time.
    control: Mutex<Control>,
    /// Something began to drain.
    pub(crate) drain_began: Notify,
    pub(crate) edge: EdgeCounters,
    pub(crate) rates: Rates,
    pub(crate) proofs: Proofs,
    /// What the lb before this one still carries.
    pub(crate) remaining: Remaining,
    tasks: Tasks,
    shutdown: Shutdown,
}

#[derive(Default)]
struct Control {
    lasting: Lasting,
    /// No table names them, but something is still inside.
    departed: Vec<Arc<Backend>>,
}

/// What has no release: connections, and requests that no app got.
#[derive(Default)]
pub(crate) struct EdgeCounters {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_open: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Wanted, and not made: the budget of the app was spent.
    pub(crate) retries_denied: AtomicU64,
    pub(crate) ejections: AtomicU64,
    pub(crate) swaps: AtomicU64,
    pub(crate) late_heads: AtomicU64,
    /// Handshakes that came to nothing, by the word for it.
    pub(crate) handshakes_failed: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) handshakes: AtomicU64,
    /// Connections in HTTP/2 that lb ended because of the client's mistakes, or that broke.
    pub(crate) http2_errors: AtomicU64,
    /// Connections of a proxy without its header.
    pub(crate) not_proxied: AtomicU64,
    /// By the code in `x-platform-error`.
    pub(crate) refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl EdgeCounters {
    pub(crate) fn fail_handshake(&self, code: &'static str) {
        *self.handshakes_failed.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    pub(crate) fn refuse(&self, code: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }
}

impl Balancer {
    pub(crate) fn new(tasks: &Tasks, shutdown: &Shutdown) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::start(),
            in_force: Arc::default(),
            snapshot: ArcSwap::default(),
            backends: DashMap::new(),
            control: Mutex::default(),
            drain_began: Notify::new(),
            edge: EdgeCounters::default(),
            rates: Rates::default(),
            proofs: Proofs::default(),
            remaining: Remaining::default(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        })
    }

    /// The certificates of a table, ready to be shown.
    pub(crate) fn certificates_of(&self, table: &Table) -> Result<Certificates, CertificateError> {
        Certificates::of(table, &self.snapshot.load().certificates)
    }

    /// Puts a table in force. `presumed`: it was in force before lb restarted.
    pub(crate) fn put(self: &Arc<Self>, table: Table, certificates: Certificates, presumed: bool) {
        let certificates = Arc::new(certificates);
        let table = Arc::new(table);
        let now = self.clock.elapsed();
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut closing = Vec::new();
        let mut named = BTreeMap::new();
        for section in table.sections() {
            for (release, pool) in &section.published.pools {
                for (id, instance) in &pool.instances {
                    let judgement = first_judgement(section, *release, instance, presumed, now);
                    let backend = self.backend(id, instance.address, judgement, &mut control.departed);
                    if takes_requests(section, *release, instance.state) {
                        backend.open();
                    } else {
                        closing.push((backend, section.published.drain));
                    }
                    named.insert(id.clone(), ());
                }
            }
        }
        self.depart_unnamed(&named, &mut control.departed);
        let drains = self.drains_before();
        self.store(&table, certificates, &mut control.lasting);
        for (backend, limits) in closing {
            backend.close(limits, now);
        }
        control.departed.retain(|backend| {
            let limits = drains.get(&backend.id).copied().unwrap_or(DRAIN_OF_THE_UNKNOWN);
            let limits = backend.drain().map_or(limits, |draining| draining.limits);
            backend.close(limits, now);
            backend.gate.inside() > 0
        });
        drop(control);
        self.edge.swaps.fetch_add(1, Ordering::Relaxed);
        self.drain_began.notify_one();
    }

    /// The drain limits of each instance in the table that is in force until now.
    fn drains_before(&self) -> BTreeMap<InstanceId, Drain> {
        let snapshot = self.snapshot.load();
        let sections = snapshot.table.iter().flat_map(|table| table.sections());
        let of = |section: &Section| {
            let drain = section.published.drain;
            let ids: Vec<_> =
                section.published.pools.values().flat_map(|pool| pool.instances.keys().cloned()).collect();
            ids.into_iter().map(move |id| (id, drain))
        };
        sections.flat_map(|section| of(section)).collect()
    }

    /// The backend of an instance: the one there is, unless its address changed.
    fn backend(
        self: &Arc<Self>,
        id: &InstanceId,
        address: SocketAddr,
        judgement: Judgement,
        departed: &mut Vec<Arc<Backend>>,
    ) -> Arc<Backend> {
        if let Some(backend) = self.backends.get(id).filter(|backend| backend.address == address) {
            let mut known = backend.judgement();
            (known.place, known.balance) = (judgement.place, judgement.balance);
            if (&known.probe, &known.host, known.protocol) != (&judgement.probe, &judgement.host, judgement.protocol) {
                known.probe = judgement.probe;
                known.host = judgement.host;
                known.protocol = judgement.protocol;
                backend.probe_now.notify_one();
            }
            drop(known);
            return Arc::clone(&backend);
        }
        let backend = Backend::new(id, address, judgement, &self.in_force);
        if let Some(old) = self.backends.insert(id.clone(), Arc::clone(&backend)) {
            old.retired.cancel();
            departed.push(old);
        }
        probe::start(self, &backend, &self.tasks, &self.shutdown);
        backend
    }

    fn depart_unnamed(&self, named: &BTreeMap<InstanceId, ()>, departed: &mut Vec<Arc<Backend>>) {
        self.backends.retain(|id, backend| {
            let stays = named.contains_key(id);
            if !stays {
                backend.retired.cancel();
                departed.push(Arc::clone(backend));
            }
            stays
        });
    }

    /// The one pointer swap.
    fn store(&self, table: &Arc<Table>, certificates: Arc<Certificates>, lasting: &mut Lasting) {
        let snapshot = Snapshot::of(table, certificates, &self.backends, lasting, self.clock.elapsed());
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(Arc::clone(&snapshot));
        lasting.let_go(&snapshot);
    }

    /// The same table and certificates, with the health of now.
    fn store_again(&self, lasting: &mut Lasting) {
        let before = self.snapshot.load_full();
        if let Some(table) = &before.table {
            self.store(table, Arc::clone(&before.certificates), lasting);
        }
    }

    /// An instance went up or down: the same table with the health of now.
    pub(crate) fn health_changed(&self) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        self.store_again(&mut control.lasting);
        drop(control);
        self.in_force.changed();
    }

    /// No connection could be made to it: counts like a failed probe, and asks at once.
    pub(crate) fn connection_failed(&self, backend: &Backend) {
        let mut judgement = backend.judgement();
        let probe = judgement.probe.clone();
        let changed = judgement.machine.failed(&probe, self.clock.elapsed());
        drop(judgement);
        backend.probe_now.notify_one();
        if changed {
            tracing::warn!(instance = %backend.id, address = %backend.address, "instance is down: it takes no connections");
            self.health_changed();
        }
    }

    /// Takes what an answer's head tells of the instance. `took`: from the end of the request on.
    pub(crate) fn learn(&self, backend: &Backend, head: &ResponseHead, took: Option<Duration>) {
        let (status, now) = (head.status(), self.clock.elapsed());
        if let Some(took) = took {
            backend.experience.answered(took, now);
        }
        if status == 503
            && let Some(wanted) = experience::retry_after(head, self.clock.unix_ms())
        {
            backend.experience.back_off(wanted, now);
        }
    }

    /// A whole answer was passed on.
    pub(crate) fn learn_end(&self, backend: &Backend, status: u16) {
        match status {
            _ if eject::is_gateway_failure(status) => self.gateway_failure(backend),
            500.. => {
                backend.failed.fetch_add(1, Ordering::Relaxed);
                backend.experience.failed(self.clock.elapsed());
            }
            _ => backend.experience.went_well(self.clock.elapsed()),
        }
    }

    /// A request failed there, the instance's fault. After some in a row it is left out for a while.
    pub(crate) fn gateway_failure(&self, backend: &Backend) {
        backend.failed.fetch_add(1, Ordering::Relaxed);
        let in_a_row = backend.experience.gateway_failed(self.clock.elapsed());
        let (limit, place) = {
            let judgement = backend.judgement();
            (judgement.balance.eject_after, judgement.place.clone())
        };
        if limit > 0 && in_a_row >= limit {
            backend.experience.begin_a_new_row();
            // Without the lock first: the last one of a release may fail as often as it likes.
            let snapshot = self.snapshot.load();
            let process = snapshot.section(&place.section).and_then(|section| section.process(&place.process));
            let share = process.and_then(|process| process.of_release(place.release));
            if share.is_some_and(|share| share.members.len() > 1) && backend.is_eligible() {
                self.eject(backend, &place, in_a_row);
            }
        }
    }

    /// Leaves it out, when that leaves enough others.
    fn eject(&self, backend: &Backend, place: &Place, in_a_row: u32) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(table) = self.snapshot.load().table.clone() else { return };
        let (taking, out) = self.count_peers(&table, place);
        let mut judgement = backend.judgement();
        let takes = judgement.machine.health() == Health::Up && !judgement.ejection.is_out();
        if !takes || !backend.is_eligible() || !eject::may_eject(taking, out) {
            return;
        }
        let seconds = judgement.ejection.eject(self.clock.elapsed()).as_secs();
        drop(judgement);
        self.edge.ejections.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(instance = %backend.id, in_a_row, seconds, "instance is left out: requests fail there");
        self.store_again(&mut control.lasting);
        drop(control);
        // Its return is a probe's.
        backend.probe_now.notify_one();
        self.in_force.changed();
    }

    /// Of the instances beside which one stands: how many take requests, and how many are left out.
    fn count_peers(&self, table: &Table, place: &Place) -> (usize, usize) {
        let Some(section) = table.section(&place.section) else { return (0, 0) };
        let instances = section.published.pools.get(&place.release).into_iter().flat_map(|pool| &pool.instances);
        let takes = |peer: &PoolInstance| takes_requests(section, place.release, peer.state);
        let peers = instances.filter(|(_, peer)| peer.process == place.process && takes(peer));
        let (mut taking, mut out) = (0, 0);
        for peer in peers.filter_map(|(id, _)| self.backends.get(id)) {
            let judgement = peer.judgement();
            match (judgement.machine.health(), judgement.ejection.is_out()) {
                (Health::Up, true) => out += 1,
                (Health::Up, false) => taking += 1,
                _ => {}
            }
        }
        (taking, out)
    }

    /// Every backend that still has something to do with this process.
    pub(crate) fn all_backends(&self) -> Vec<Arc<Backend>> {
        let mut all: Vec<_> = self.backends.iter().map(|backend| Arc::clone(&backend)).collect();
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.departed.retain(|backend| !backend.is_empty());
        all.extend(control.departed.iter().cloned());
        all
    }

    /// Fills in what only lb knows.
    pub(crate) fn report(&self, status: &mut MemberStatus) {
        let now = self.clock.elapsed();
        let snapshot = self.snapshot.load();
        for section in snapshot.table.iter().flat_map(|table| table.sections()) {
            if let Some(live) = section.published.live {
                status.live.insert(section.key.clone(), live);
            }
            let instances = section.published.pools.values().flat_map(|pool| &pool.instances);
            for (id, instance) in instances {
                if let Some(backend) = self.backends.get(id) {
                    status.instances.insert(id.clone(), self.report_instance(instance, &backend, now));
                }
            }
        }
        for (key, releases) in self.counters() {
            let releases = releases.iter().map(|(release, counters)| (*release, counters.report()));
            status.counters.insert(key, releases.collect());
        }
        self.remaining.add_to(status);
    }

    /// What this process carries, and those before it.
    pub(crate) fn left(&self, within: Duration) -> Left {
        let mut left = Left {
            // First: what is counted afterwards is as this table wants it.
            in_force: self.in_force.generation(),
            within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            connections: self.edge.connections_open.load(Ordering::Relaxed),
            instances: BTreeMap::new(),
        };
        for backend in self.all_backends() {
            let (in_flight, streams, cut) = (backend.requests(), backend.streams(), backend.cut_count());
            if (in_flight, streams, cut) != (0, 0, 0) {
                let inside = left.instances.entry(backend.id.clone()).or_default();
                inside.in_flight += in_flight;
                inside.streams += streams;
                inside.cut += cut;
            }
        }
        self.remaining.add_to_left(&mut left);
        left
    }

    /// Whether the first probe of an instance has yet to decide.
    pub(crate) fn is_undecided(&self) -> bool {
        self.all_backends().iter().any(|backend| backend.judgement().machine.is_undecided())
    }

    pub(crate) fn counters(&self) -> BTreeMap<SectionKey, BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).lasting.counters.clone()
    }

    fn report_instance(&self, instance: &PoolInstance, backend: &Backend, now: Duration) -> InstanceReport {
        let judgement = backend.judgement().clone();
        let seen = backend.seen(now);
        InstanceReport {
            health: seen.health,
            up_for_ms: u64::try_from(judgement.machine.up_for(now).as_millis()).unwrap_or(u64::MAX),
            in_flight: backend.requests(),
            streams: backend.streams(),
            drained: instance.state == InstanceState::Draining && backend.is_empty(),
            cut: backend.cut_count(),
            // Nobody asks what one that is up says; a table may name thousands.
            last_probe: judgement.last.filter(|_| seen.health != Health::Up),
            ejected: seen.ejected,
            panic: seen.health == Health::Down && seen.eligible,
            requests: backend.entered.load(Ordering::Relaxed),
            failed: backend.failed.load(Ordering::Relaxed),
            probes: judgement.tries,
            drain: backend.report_drain(now).filter(|_| instance.state == InstanceState::Draining),
            latency_us: seen.latency_us,
        }
    }
}

/// For a backend whose section is not known any more (its address changed twice within one table): the defaults.
const DRAIN_OF_THE_UNKNOWN: Drain = Drain { requests_ms: 30_000, streams_ms: 30_000 };

fn first_judgement(
    section: &Section,
    release: ReleaseNumber,
    instance: &PoolInstance,
    presumed: bool,
    now: Duration,
) -> Judgement {
    let process = instance.process.clone();
    let pool = section.published.pools.get(&release);
    let routes = section.published.routes.iter().filter(|route| route.process == instance.process);
    let mut hosts = routes.filter_map(|route| route.host.as_deref());
    let presumed = presumed && instance.state == InstanceState::Active;
    Judgement {
        machine: if presumed { HealthMachine::presumed() } else { HealthMachine::pending(now) },
        probe: pool.and_then(|pool| pool.probes.get(&process)).cloned().unwrap_or_default(),
        protocol: pool.and_then(|pool| pool.protocols.get(&process)).copied().unwrap_or_default(),
        balance: pool.and_then(|pool| pool.balance.get(&process)).cloned().unwrap_or_default(),
        ejection: Ejection::default(),
        host: hosts.find(|host| !host.starts_with('*')).map(str::to_owned),
        tries: 0,
        last: None,
        place: Place { section: section.key.clone(), release, process },
    }
}
