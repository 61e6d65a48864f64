//! Snapshot: table and health in one value that never changes. A request loads it once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use appbase_core::v1::Health;
use appbase_core::{InstanceId, ProcessName, ReleaseNumber, SectionKey};
use dashmap::DashMap;
use lb_core::pick::Share;
use lb_core::v1::InstanceState;
use lb_core::{Section, Table};

use crate::backend::Backend;
use crate::counters::ReleaseCounters;

/// None of it changes; a newer one takes its place.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// None before the first table.
    pub(crate) table: Option<Arc<Table>>,
    /// Exactly the sections of the table.
    sections: BTreeMap<SectionKey, SectionTargets>,
}

/// Where requests of one section may go now.
pub(crate) struct SectionTargets {
    /// Requests that wait for the end of a hold. Shared with the snapshots before and after.
    pub(crate) held: Arc<AtomicUsize>,
    /// Counts what lb answers itself; none while no release is live.
    pub(crate) live: Option<Arc<ReleaseCounters>>,
    processes: BTreeMap<ProcessName, ProcessTargets>,
}

/// Where requests for one process may go now.
pub(crate) struct ProcessTargets {
    pub(crate) shares: Vec<Share<Target>>,
    /// Why `shares` is empty, when it is.
    pub(crate) nobody: &'static str,
    /// `shares` is empty and the first probe of an active one has not ended: requests wait for it.
    pub(crate) undecided: bool,
}

#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) backend: Arc<Backend>,
    pub(crate) release: ReleaseNumber,
    pub(crate) counters: Arc<ReleaseCounters>,
}

/// What lives longer than one table, by section: created when first needed, dropped with the section.
#[derive(Default)]
pub(crate) struct Lasting {
    pub(crate) held: BTreeMap<SectionKey, Arc<AtomicUsize>>,
    pub(crate) counters: BTreeMap<SectionKey, BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>>,
}

impl Lasting {
    /// Forgets sections and releases that the table no longer names.
    fn keep(&mut self, table: &Table) {
        self.held.retain(|key, _| table.section(key).is_some());
        self.counters.retain(|key, _| table.section(key).is_some());
        for section in table.sections() {
            self.held.entry(section.key.clone()).or_default();
            let counters = self.counters.entry(section.key.clone()).or_default();
            counters.retain(|release, _| section.published.pools.contains_key(release));
            for release in section.published.pools.keys() {
                counters.entry(*release).or_default();
            }
        }
    }
}

impl Snapshot {
    /// The table with the health of this moment.
    pub(crate) fn of(table: &Arc<Table>, backends: &DashMap<InstanceId, Arc<Backend>>, lasting: &mut Lasting) -> Self {
        lasting.keep(table);
        let sections = table.sections().map(|section| {
            let counters = &lasting.counters[&section.key];
            let live = section.published.live.or_else(|| heaviest(section));
            let targets = SectionTargets {
                held: Arc::clone(&lasting.held[&section.key]),
                live: live.and_then(|release| counters.get(&release)).cloned(),
                processes: processes_of(section, backends, counters),
            };
            (section.key.clone(), targets)
        });
        Self { table: Some(Arc::clone(table)), sections: sections.collect() }
    }

    /// Whether new requests may go to this backend.
    pub(crate) fn is_eligible(&self, serial: u64) -> bool {
        let processes = self.sections.values().flat_map(|section| section.processes.values());
        processes
            .flat_map(|process| &process.shares)
            .flat_map(|share| &share.members)
            .any(|target| target.backend.serial == serial)
    }

    pub(crate) fn section(&self, key: &SectionKey) -> Option<&SectionTargets> {
        self.sections.get(key)
    }
}

impl SectionTargets {
    pub(crate) fn process(&self, process: &ProcessName) -> Option<&ProcessTargets> {
        self.processes.get(process)
    }
}

fn heaviest(section: &Section) -> Option<ReleaseNumber> {
    let pools = section.published.pools.iter();
    pools.filter(|(_, pool)| pool.weight > 0).max_by_key(|(_, pool)| pool.weight).map(|(release, _)| *release)
}

fn processes_of(
    section: &Section,
    backends: &DashMap<InstanceId, Arc<Backend>>,
    counters: &BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>,
) -> BTreeMap<ProcessName, ProcessTargets> {
    let mut processes: BTreeMap<ProcessName, Vec<Active>> = BTreeMap::new();
    for (release, pool) in section.published.pools.iter().filter(|(_, pool)| pool.weight > 0) {
        for (id, instance) in &pool.instances {
            let active = processes.entry(instance.process.clone()).or_default();
            let Some(backend) = backends.get(id).filter(|_| instance.state == InstanceState::Active) else { continue };
            let backend = Arc::clone(&backend);
            let (health, undecided) = (backend.health(), backend.is_undecided());
            let target = Target { backend, release: *release, counters: Arc::clone(&counters[release]) };
            active.push(Active { weight: pool.weight, target, health, undecided });
        }
    }
    processes.into_iter().map(|(process, active)| (process, targets_of(active))).collect()
}

/// An active instance of a pool with weight, at this moment.
struct Active {
    weight: u32,
    target: Target,
    health: Health,
    undecided: bool,
}

/// The active ones that are up. When every single one is down, all are tried the same: lb's judgement may be wrong,
/// and an error is certain otherwise. One that was never asked gets nothing, also then.
fn targets_of(active: Vec<Active>) -> ProcessTargets {
    let all_down = active.iter().all(|one| one.health == Health::Down);
    let nobody = match active.is_empty() {
        true => "no instance is active",
        false => "no active instance has passed its probe yet",
    };
    let awaited = active.iter().any(|one| one.undecided);
    let mut by_release: BTreeMap<ReleaseNumber, Share<Target>> = BTreeMap::new();
    for Active { weight, target, health, .. } in active {
        if all_down || health == Health::Up {
            let share = by_release.entry(target.release).or_insert_with(|| Share { weight, members: Vec::new() });
            share.members.push(target);
        }
    }
    let shares: Vec<_> = by_release.into_values().collect();
    ProcessTargets { undecided: awaited && shares.is_empty(), shares, nobody }
}
