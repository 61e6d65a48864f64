//! Snapshot: table and health in one value that never changes. A request loads it once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::{Balance, Health, Protocol};
use appbase_core::{InstanceId, ProcessName, ReleaseNumber, SectionKey};
use dashmap::DashMap;
use lb_core::pick::{self, Share};
use lb_core::v1::InstanceState;
use lb_core::{Section, Table, retry};

use crate::backend::Backend;
use crate::certificates::Certificates;
use crate::counters::ReleaseCounters;
use crate::hold::Line;

/// None of it changes; a newer one takes its place.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Snapshots are counted.
    pub(crate) version: u64,
    /// None before the first table.
    pub(crate) table: Option<Arc<Table>>,
    /// Those of the table.
    pub(crate) certificates: Arc<Certificates>,
    /// Exactly the sections of the table.
    sections: BTreeMap<SectionKey, SectionTargets>,
}

/// Where requests of one section may go now.
pub(crate) struct SectionTargets {
    /// Requests that wait. Shared with the snapshots before and after.
    pub(crate) line: Arc<Line>,
    /// Counts what lb answers itself; none while no release is live.
    pub(crate) live: Option<Arc<ReleaseCounters>>,
    pub(crate) retries: Arc<Retries>,
    processes: BTreeMap<ProcessName, ProcessTargets>,
}

/// Where requests for one process may go now.
pub(crate) struct ProcessTargets {
    /// The newest release first.
    pub(crate) shares: Vec<Share<Target>>,
    /// Releases without weight that some requests get all the same.
    apart: Vec<Share<Target>>,
    /// Why `shares` is empty, when it is.
    pub(crate) nobody: &'static str,
    /// `shares` is empty and the first probe of an active one has not ended: requests wait for it.
    pub(crate) undecided: bool,
}

pub(crate) struct Target {
    pub(crate) backend: Arc<Backend>,
    pub(crate) release: ReleaseNumber,
    pub(crate) counters: Arc<ReleaseCounters>,
    pub(crate) protocol: Protocol,
    /// Clients stay with their instance: the number of the process in the name of their cookie.
    pub(crate) sticky: Option<u32>,
    /// It joined others: from when on, and for how long, it takes less than its share.
    starts_slowly: Option<(Duration, Duration)>,
}

impl ProcessTargets {
    /// Those of a release that take requests, whatever its weight.
    pub(crate) fn of_release(&self, release: ReleaseNumber) -> Option<&Share<Target>> {
        let is_of = |share: &&Share<Target>| share.members.first().is_some_and(|target| target.release == release);
        self.shares.iter().chain(&self.apart).find(is_of)
    }
}

impl Target {
    /// Its part of the draws that fall on it, of 1,000.
    pub(crate) fn ramp(&self, now: Duration) -> u16 {
        let Some((joined, window)) = self.starts_slowly else { return pick::RAMP_FULL };
        pick::ramp(now.saturating_sub(joined), window)
    }
}

/// What an app's requests may be sent again.
pub(crate) struct Retries {
    pub(crate) requests: AtomicU64,
    budget: Mutex<retry::Budget>,
}

impl Retries {
    pub(crate) fn withdraw(&self, now: Duration) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).withdraw(requests, now)
    }
}

type Turns = BTreeMap<(ProcessName, ReleaseNumber), Arc<AtomicU64>>;

/// What lives longer than one table, by section: created when first needed, dropped with the section.
#[derive(Default)]
pub(crate) struct Lasting {
    pub(crate) lines: BTreeMap<SectionKey, Arc<Line>>,
    pub(crate) counters: BTreeMap<SectionKey, BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>>,
    retries: BTreeMap<SectionKey, Arc<Retries>>,
    /// Whose turn it is.
    turns: BTreeMap<SectionKey, Turns>,
    /// How many snapshots there were.
    snapshots: u64,
}

impl Lasting {
    /// A snapshot is in force: whoever waits may look at it, unless its app is on hold there.
    pub(crate) fn let_go(&self, snapshot: &Snapshot) {
        for (key, line) in &self.lines {
            let section = snapshot.table.as_ref().and_then(|table| table.section(key));
            if section.is_none_or(|section| !section.published.hold) {
                line.let_go(snapshot.version);
            }
        }
    }

    /// Forgets sections and releases that the table no longer names.
    fn keep(&mut self, table: &Table, now: Duration) {
        self.snapshots += 1;
        self.retries.retain(|key, _| table.section(key).is_some());
        self.turns.retain(|key, _| table.section(key).is_some());
        self.lines.retain(|key, line| {
            let stays = table.section(key).is_some();
            if !stays {
                // Nobody waits for what is gone.
                line.let_go(u64::MAX);
            }
            stays
        });
        self.counters.retain(|key, _| table.section(key).is_some());
        for section in table.sections() {
            self.lines.entry(section.key.clone()).or_default();
            self.retries.entry(section.key.clone()).or_insert_with(|| {
                let (requests, budget) = (AtomicU64::new(0), Mutex::new(retry::Budget::new(now)));
                Arc::new(Retries { requests, budget })
            });
            let counters = self.counters.entry(section.key.clone()).or_default();
            counters.retain(|release, _| section.published.pools.contains_key(release));
            let turns = self.turns.entry(section.key.clone()).or_default();
            turns.retain(|(_, release), _| section.published.pools.contains_key(release));
            for release in section.published.pools.keys() {
                counters.entry(*release).or_default();
            }
        }
    }
}

impl Snapshot {
    /// The table with the health of this moment. Which backends take requests is told to them.
    pub(crate) fn of(
        table: &Arc<Table>,
        certificates: Arc<Certificates>,
        backends: &DashMap<InstanceId, Arc<Backend>>,
        lasting: &mut Lasting,
        now: Duration,
    ) -> Self {
        lasting.keep(table, now);
        let Lasting { lines, counters, retries, turns, snapshots } = lasting;
        let sections = table.sections().map(|section| {
            let counters = &counters[&section.key];
            let turns = turns.entry(section.key.clone()).or_default();
            let live = section.published.live.or_else(|| heaviest(section));
            let targets = SectionTargets {
                line: Arc::clone(&lines[&section.key]),
                live: live.and_then(|release| counters.get(&release)).cloned(),
                retries: Arc::clone(&retries[&section.key]),
                processes: processes_of(section, backends, counters, turns, now),
            };
            (section.key.clone(), targets)
        });
        let sections = sections.collect();
        Self { version: *snapshots, table: Some(Arc::clone(table)), certificates, sections }
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

/// Who joins within this time of the first is as new as that one.
const TOGETHER: Duration = Duration::from_secs(2);

fn processes_of(
    section: &Section,
    backends: &DashMap<InstanceId, Arc<Backend>>,
    counters: &BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>,
    turns: &mut Turns,
    now: Duration,
) -> BTreeMap<ProcessName, ProcessTargets> {
    let mut processes: BTreeMap<ProcessName, Vec<Group>> = BTreeMap::new();
    for (release, pool) in &section.published.pools {
        for (id, instance) in &pool.instances {
            let Some(backend) = backends.get(id).map(|backend| Arc::clone(&backend)) else { continue };
            if pool.weight == 0 && !section.addresses(*release) {
                backend.joined.store(0, Ordering::Relaxed);
                continue;
            }
            let takes = takes_requests(section, *release, instance.state);
            let groups = processes.entry(instance.process.clone()).or_default();
            if groups.last().is_none_or(|group| group.release != *release) {
                let balance = pool.balance.get(&instance.process).cloned().unwrap_or_default();
                let counters = Arc::clone(&counters[release]);
                let turn = Arc::clone(turns.entry((instance.process.clone(), *release)).or_default());
                let (release, weight, active) = (*release, pool.weight, Vec::new());
                let protocol = pool.protocols.get(&instance.process).copied().unwrap_or_default();
                groups.push(Group { release, weight, balance, protocol, counters, turn, active });
            }
            match groups.last_mut().filter(|_| takes) {
                Some(group) => group.active.push(Active::of(backend)),
                None => backend.joined.store(0, Ordering::Relaxed),
            }
        }
    }
    let targets = |(process, groups): (ProcessName, Vec<Group>)| {
        let number = pick::hash(format!("{} {process}", section.key).as_bytes()) as u32;
        let targets = targets_of(groups, number, now);
        (process, targets)
    };
    processes.into_iter().map(targets).collect()
}

/// Whether an instance is open to requests: an active one is, and a standby one of a release that only some get.
pub(crate) fn takes_requests(section: &Section, release: ReleaseNumber, state: InstanceState) -> bool {
    let weight = section.published.pools.get(&release).map_or(0, |pool| pool.weight);
    match state {
        InstanceState::Active => true,
        InstanceState::Standby => weight == 0 && section.addresses(release),
        InstanceState::Draining => false,
    }
}

/// The instances of one process in a pool that takes requests.
struct Group {
    release: ReleaseNumber,
    weight: u32,
    balance: Balance,
    protocol: Protocol,
    counters: Arc<ReleaseCounters>,
    turn: Arc<AtomicU64>,
    active: Vec<Active>,
}

/// An active instance at this moment.
struct Active {
    backend: Arc<Backend>,
    health: Health,
    undecided: bool,
    ejected: bool,
    /// At some time, or before lb's own restart.
    was_up: bool,
}

impl Active {
    fn of(backend: Arc<Backend>) -> Self {
        let judgement = backend.judgement();
        let (health, undecided) = (judgement.machine.health(), judgement.machine.is_undecided());
        let (ejected, was_up) = (judgement.ejection.is_out(), judgement.machine.was_up());
        drop(judgement);
        Self { backend, health, undecided, ejected, was_up }
    }
}

/// The active ones that are up. When none is, those that were are tried all the same: lb's judgement may be wrong, and an
/// error is certain otherwise. One that never passed gets nothing, also then.
fn targets_of(groups: Vec<Group>, number: u32, now: Duration) -> ProcessTargets {
    let (apart, groups): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.weight == 0);
    let apart = apart.into_iter().filter_map(|group| share_of(group, number, false, now)).collect();
    let all = || groups.iter().flat_map(|group| &group.active);
    let awaited = all().any(|one| one.undecided);
    let panic = !awaited && all().all(|one| one.health != Health::Up);
    let nobody = match all().next() {
        None => "no instance is active",
        Some(_) => "no active instance has passed its probe yet",
    };
    let shares: Vec<_> = groups.into_iter().rev().filter_map(|group| share_of(group, number, panic, now)).collect();
    ProcessTargets { undecided: awaited && shares.is_empty(), shares, apart, nobody }
}

/// Those of a group that take requests; none when there are none.
fn share_of(group: Group, number: u32, panic: bool, now: Duration) -> Option<Share<Target>> {
    let Group { release, weight, balance, protocol, counters, turn, active } = group;
    let is_up = |one: &&Active| one.health == Health::Up;
    // They were left out while others were there, and those may have gone down since.
    let out = active.iter().filter(is_up).filter(|one| one.ejected).count();
    let too_many_out = out * 2 > active.iter().filter(is_up).count();
    let takes = |one: &Active| match one.health {
        Health::Up => too_many_out || !one.ejected,
        Health::Down => panic && one.was_up,
        Health::Pending => false,
    };
    let (taking, not): (Vec<_>, Vec<_>) = active.into_iter().partition(takes);
    for one in not {
        one.backend.joined.store(0, Ordering::Relaxed);
    }
    let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1);
    let joined = |one: &Active| {
        // Written under the lock of the control alone.
        let known = one.backend.joined.load(Ordering::Relaxed);
        let joined = if known == 0 { now_ns } else { known };
        one.backend.joined.store(joined, Ordering::Relaxed);
        joined
    };
    let since: Vec<u64> = taking.iter().map(joined).collect();
    let oldest = since.iter().min().copied()?;
    let window = Duration::from_millis(balance.slow_start_ms);
    let together = u64::try_from(TOGETHER.as_nanos()).unwrap_or(u64::MAX);
    let starts_slowly = |since: u64| !panic && since - oldest > together && !window.is_zero();
    let mut share = Share::new(weight, balance.policy.clone(), turn);
    let target = |(one, since): (Active, u64)| Target {
        backend: one.backend,
        release,
        counters: Arc::clone(&counters),
        protocol,
        sticky: balance.sticky.then_some(number),
        starts_slowly: starts_slowly(since).then(|| (Duration::from_nanos(since), window)),
    };
    share.members = taking.into_iter().zip(since).map(target).collect();
    Some(share)
}
