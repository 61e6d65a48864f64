//! Balancer: what all threads share. The snapshot in force, the backends behind it, and how one follows the other.
//!
//! A swap goes open, store, close: first the gates of what becomes active, then the one pointer, then the gates of what
//! no longer is. So whoever finds a gate closed finds the newer snapshot already there, and whoever loaded an older
//! one enters only what is open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::{Health, InstanceReport, MemberStatus};
use appbase_core::{InstanceId, ReleaseNumber, SectionKey};
use arc_swap::ArcSwap;
use dashmap::DashMap;
use kit::member::InForce;
use kit::{Clock, Shutdown, Tasks};
use lb_core::health::HealthMachine;
use lb_core::v1::{Drain, InstanceState, Pool, PoolInstance};
use lb_core::{Section, Table};
use tokio::sync::{Notify, watch};

use crate::backend::{Backend, Judgement};
use crate::counters::ReleaseCounters;
use crate::probe;
use crate::snapshot::{Lasting, Snapshot};

pub(crate) struct Balancer {
    pub(crate) clock: Clock,
    pub(crate) in_force: Arc<InForce>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Counts snapshots: requests on hold wait for the next.
    pub(crate) version: watch::Sender<u64>,
    pub(crate) backends: DashMap<InstanceId, Arc<Backend>>,
    /// One table change or health change at a time.
    control: Mutex<Control>,
    /// Something began to drain.
    pub(crate) drain_began: Notify,
    pub(crate) edge: EdgeCounters,
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
    pub(crate) swaps: AtomicU64,
    pub(crate) late_heads: AtomicU64,
    /// By the code in `x-platform-error`.
    pub(crate) refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl EdgeCounters {
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
            version: watch::Sender::new(0),
            backends: DashMap::new(),
            control: Mutex::default(),
            drain_began: Notify::new(),
            edge: EdgeCounters::default(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        })
    }

    /// Puts a table in force. `presumed`: it was in force before lb restarted.
    pub(crate) fn put(self: &Arc<Self>, table: Table, presumed: bool) {
        let table = Arc::new(table);
        let now = self.clock.elapsed();
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut closing = Vec::new();
        let mut named = BTreeMap::new();
        for section in table.sections() {
            for pool in section.published.pools.values() {
                for (id, instance) in &pool.instances {
                    let judgement = first_judgement(section, instance, pool, presumed);
                    let backend = self.backend(id, instance, judgement, &mut control.departed);
                    if instance.state == InstanceState::Active {
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
        self.store(&table, &mut control.lasting);
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
        instance: &PoolInstance,
        judgement: Judgement,
        departed: &mut Vec<Arc<Backend>>,
    ) -> Arc<Backend> {
        if let Some(backend) = self.backends.get(id).filter(|backend| backend.address == instance.address) {
            let mut known = backend.judgement();
            if known.probe != judgement.probe || known.host != judgement.host {
                known.probe = judgement.probe;
                known.host = judgement.host;
                backend.probe_now.notify_one();
            }
            drop(known);
            return Arc::clone(&backend);
        }
        let backend = Backend::new(id, instance.address, judgement, &self.in_force);
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
    fn store(&self, table: &Arc<Table>, lasting: &mut Lasting) {
        self.snapshot.store(Arc::new(Snapshot::of(table, &self.backends, lasting)));
        self.version.send_modify(|version| *version += 1);
    }

    /// An instance went up or down: the same table with the health of now.
    pub(crate) fn health_changed(&self) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.snapshot.load().table.clone();
        if let Some(table) = table {
            self.store(&table, &mut control.lasting);
        }
        drop(control);
        self.in_force.changed();
    }

    /// No connection could be made to it: counts like a failed probe, and asks at once.
    pub(crate) fn connection_failed(&self, backend: &Backend) {
        let mut judgement = backend.judgement();
        let probe = judgement.probe.clone();
        let changed = judgement.machine.failed(&probe);
        drop(judgement);
        backend.probe_now.notify_one();
        if changed {
            tracing::warn!(instance = %backend.id, address = %backend.address, "instance is down: it takes no connections");
            self.health_changed();
        }
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
    }

    pub(crate) fn counters(&self) -> BTreeMap<SectionKey, BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).lasting.counters.clone()
    }

    fn report_instance(&self, instance: &PoolInstance, backend: &Backend, now: Duration) -> InstanceReport {
        let judgement = backend.judgement().clone();
        let streams = backend.streams();
        InstanceReport {
            health: judgement.machine.health(),
            up_for_ms: u64::try_from(judgement.machine.up_for(now).as_millis()).unwrap_or(u64::MAX),
            in_flight: backend.gate.inside().saturating_sub(streams),
            streams,
            drained: instance.state == InstanceState::Draining && backend.is_empty(),
            cut: backend.cut_count(),
            // Nobody asks what one that is up says; a table may name thousands.
            last_probe: judgement.last.filter(|_| judgement.machine.health() != Health::Up),
        }
    }
}

/// For a backend whose section is not known any more (its address changed twice within one table): the defaults.
const DRAIN_OF_THE_UNKNOWN: Drain = Drain { requests_ms: 30_000, streams_ms: 30_000 };

fn first_judgement(section: &Section, instance: &PoolInstance, pool: &Pool, presumed: bool) -> Judgement {
    let routes = section.published.routes.iter().filter(|route| route.process == instance.process);
    let mut hosts = routes.filter_map(|route| route.host.as_deref());
    let presumed = presumed && instance.state == InstanceState::Active;
    Judgement {
        machine: if presumed { HealthMachine::presumed() } else { HealthMachine::pending() },
        probe: pool.probes.get(&instance.process).cloned().unwrap_or_default(),
        host: hosts.find(|host| !host.starts_with('*')).map(str::to_owned),
        tries: 0,
        last: None,
    }
}
