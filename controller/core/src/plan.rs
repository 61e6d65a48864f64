//! Plan: what to do next, for every app in every environment. One pure function per slice.
//!
//! ```text
//! deployment:   retire what is in the idle slot → start new as standby → all up for the settle time → FLIP
//!                     └─ deadline, crash loop, cancel → retire the new ones, traffic never moved
//! instance:     standby ─flip─► active ─flip─► draining ─► warm ─window, next deployment─► retiring ─► gone
//!                  └─given up─────────────────────► draining ─► retiring      └─flip─► active
//! ```
//! The flip is a fact in the run record; a table without its record never goes out. Everything here may be computed
//! again from the same input with the same result.

mod deployment;
mod drain;
mod live;
mod steps;

pub use deployment::{exit_text, is_kept};

use std::collections::BTreeMap;
use std::time::Duration;

use appbase_core::v1::MemberKind;
use appbase_core::{AppName, ClusterId, EnvironmentName, Generation, InstanceId, ReleaseNumber, ServerName, Slot};

use crate::addresses::Addresses;
use crate::observed::Observed;
use crate::time::Now;
use crate::v1::compute::CreateInstance;
use crate::v1::state::{
    Deployment, DesiredApp, End, EndState, EventKind, InstanceRecord, ReleaseRecord, Run, Timer, Traffic,
};

/// What holds for every slice of one pass.
#[derive(Debug, Clone)]
pub struct Setting {
    pub cluster: ClusterId,
    /// The server new instances go to.
    pub server: ServerName,
    /// Base URL under which instances reach the repository.
    pub repository: String,
    /// How long a name may be remembered by those who asked.
    pub name_ttl: Duration,
    /// Whether boot restarts its app itself (process engine) instead of the engine.
    pub boot_restarts: bool,
}

/// One app in one environment, as it is now.
#[derive(Debug, Clone)]
pub struct Slice<'a> {
    pub environment: &'a EnvironmentName,
    pub app: &'a AppName,
    pub desired: &'a DesiredApp,
    pub run: &'a Run,
    /// The one that `run` names.
    pub deployment: Option<&'a Deployment>,
    pub releases: &'a BTreeMap<ReleaseNumber, ReleaseRecord>,
    /// The publication that carries exactly what `run` says; none while that is not out yet.
    pub published: Option<&'a Generation>,
}

/// What to record, then what to do. Data: printable, comparable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlicePlan {
    /// The run record as it should be; none when it does not change.
    pub run: Option<Run>,
    pub deployment: Option<Deployment>,
    pub events: Vec<Happened>,
    pub steps: Vec<Step>,
    /// Look again at this elapsed time, and why.
    pub wake: Option<(Duration, &'static str)>,
    /// What is being waited for, one line each.
    pub report: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub kind: EventKind,
    pub text: String,
}

/// Something to do to a machine. May be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Create(Box<CreateInstance>),
    Start { id: InstanceId, server: ServerName },
    Stop { id: InstanceId, server: ServerName, grace: Duration },
    Remove { id: InstanceId, server: ServerName },
}

impl Step {
    pub fn instance(&self) -> &InstanceId {
        match self {
            Self::Create(request) => &request.id,
            Self::Start { id, .. } | Self::Stop { id, .. } | Self::Remove { id, .. } => id,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self {
            Self::Create(_) => "create",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Remove { .. } => "remove",
        };
        write!(f, "{verb} {}", self.instance())
    }
}

/// The whole decision for one slice.
pub fn plan_slice(
    setting: &Setting,
    slice: &Slice<'_>,
    observed: &Observed,
    addresses: &mut Addresses,
    now: Now,
) -> SlicePlan {
    let mut draft = Draft::new(setting, slice, observed, addresses, now);
    draft.follow_deployment();
    draft.keep_live();
    draft.keep_staged();
    draft.end_warmth();
    draft.progress_draining();
    draft.plan_steps();
    draft.finish()
}

/// A plan being made: copies of the records it may change, beside what it looks at.
struct Draft<'a> {
    setting: &'a Setting,
    slice: &'a Slice<'a>,
    observed: &'a Observed,
    addresses: &'a mut Addresses,
    now: Now,
    run: Run,
    deployment: Option<Deployment>,
    plan: SlicePlan,
}

impl<'a> Draft<'a> {
    fn new(
        setting: &'a Setting,
        slice: &'a Slice<'a>,
        observed: &'a Observed,
        addresses: &'a mut Addresses,
        now: Now,
    ) -> Self {
        Self {
            setting,
            slice,
            observed,
            addresses,
            now,
            run: slice.run.clone(),
            deployment: slice.deployment.cloned(),
            plan: SlicePlan::default(),
        }
    }

    /// Records only what changed; a timer that merely ran on is no change.
    fn finish(mut self) -> SlicePlan {
        if self.run != *self.slice.run {
            self.plan.run = Some(self.run);
        }
        if self.deployment.as_ref() != self.slice.deployment {
            self.plan.deployment = self.deployment;
        }
        self.plan
    }

    fn happened(&mut self, kind: EventKind, text: impl Into<String>) {
        self.plan.events.push(Happened { kind, text: text.into() });
    }

    fn waits_for(&mut self, what: impl Into<String>) {
        self.plan.report.push(what.into());
    }

    /// Look again when `timer` is over, unless something asks for an earlier look.
    fn wake_at(&mut self, timer: Timer, why: &'static str) {
        self.wake_after(timer.left(self.now), why);
    }

    fn wake_after(&mut self, left: Duration, why: &'static str) {
        let at = self.now.elapsed + left;
        if self.plan.wake.is_none_or(|(earliest, _)| at < earliest) {
            self.plan.wake = Some((at, why));
        }
    }

    /// A word of a member wakes the loop, silence does not.
    fn wake_at_silence(&mut self, kind: MemberKind) {
        if let Some(left) = self.observed.next_silence(kind) {
            self.wake_after(left, "a member falls silent");
        }
    }

    fn live_release(&self) -> Option<ReleaseNumber> {
        self.run.slots.get(&self.run.live?).copied()
    }

    fn idle_slot(&self) -> Slot {
        self.run.live.map_or(Slot::Blue, Slot::other)
    }

    fn release(&self, number: ReleaseNumber) -> Option<&'a ReleaseRecord> {
        self.slice.releases.get(&number)
    }

    fn records(&self) -> impl Iterator<Item = (&InstanceId, &InstanceRecord)> {
        self.run.instances.iter()
    }

    fn ids(&self, keep: impl Fn(&InstanceRecord) -> bool) -> Vec<InstanceId> {
        self.records().filter(|(_, record)| keep(record)).map(|(id, _)| id.clone()).collect()
    }

    fn set(&mut self, id: &InstanceId, state: Traffic) {
        if let Some(record) = self.run.instances.get_mut(id) {
            record.state = state;
        }
    }

    /// Gives an instance up: it drains first, unless it has, so that no member still counts on it when it stops.
    fn retire(&mut self, id: &InstanceId) {
        let Some(record) = self.run.instances.get_mut(id) else { return };
        record.state = match record.state {
            Traffic::Standby | Traffic::Active => Traffic::Draining { retire: true, names_gone: None },
            Traffic::Draining { names_gone, .. } => Traffic::Draining { retire: true, names_gone },
            Traffic::Warm | Traffic::Retiring => Traffic::Retiring,
        };
    }

    /// Makes sure of `count` records of a process of a release; surplus ones of highest number are given up.
    fn ensure_instances(
        &mut self,
        record: &ReleaseRecord,
        process: &appbase_core::ProcessName,
        count: u32,
        slot: Slot,
    ) {
        let number = record.release.number;
        let mut kept: Vec<(u32, InstanceId)> = self
            .records()
            .filter(|(_, i)| i.release == number && i.process == *process && !given_up(i.state))
            .map(|(id, i)| (i.number, id.clone()))
            .collect();
        kept.sort();
        for (_, surplus) in kept.iter().skip(count as usize) {
            self.retire(surplus);
        }
        let missing = (count as usize).saturating_sub(kept.len());
        let taken: Vec<u32> = self
            .records()
            .filter(|(_, i)| i.release == number && i.process == *process)
            .map(|(_, i)| i.number)
            .collect();
        let free: Vec<u32> = (1..).filter(|number| !taken.contains(number)).take(missing).collect();
        for number in free {
            self.add_instance(record, process, number, slot);
        }
    }

    fn add_instance(&mut self, record: &ReleaseRecord, process: &appbase_core::ProcessName, number: u32, slot: Slot) {
        let release = &record.release;
        let Some(spec) = release.processes.get(process) else { return };
        let address = match spec.port {
            None => None,
            Some(port) => match self.addresses.take(self.slice.environment, port) {
                Some(address) => Some(address),
                None => {
                    self.waits_for(format!("no free address for {process} {number}: freed ones rest for 10 minutes"));
                    return;
                }
            },
        };
        let id = InstanceId::of(
            self.slice.environment,
            self.slice.app,
            &release.version.label(),
            release.number,
            process,
            number,
        );
        let instance = InstanceRecord {
            process: process.clone(),
            number,
            release: release.number,
            slot,
            server: self.setting.server.clone(),
            spec: spec.digest(),
            address,
            state: if spec.port.is_some() { Traffic::Standby } else { Traffic::Active },
        };
        self.run.instances.insert(id, instance);
    }

    fn wanted(&self, record: &ReleaseRecord, process: &appbase_core::ProcessName) -> u32 {
        let scale = &self.slice.desired.scale;
        scale.get(process).or_else(|| record.scale.get(process)).copied().unwrap_or(1)
    }

    fn end_deployment(&mut self, state: EndState, reason: Option<String>) {
        let unix_ms = self.now.unix_ms;
        let Some(deployment) = &mut self.deployment else { return };
        deployment.end = Some(End { state, unix_ms, reason: reason.clone() });
        let (kind, version, release) = (end_event(state), deployment.version.clone(), deployment.release);
        self.run.deployment = None;
        let because = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        self.happened(kind, format!("{version} (release {release}) {state}{because}"));
    }
}

fn given_up(state: Traffic) -> bool {
    matches!(state, Traffic::Draining { retire: true, .. } | Traffic::Retiring)
}

fn end_event(state: EndState) -> EventKind {
    match state {
        EndState::Done => EventKind::DeploymentDone,
        EndState::Staged => EventKind::DeploymentStaged,
        EndState::Aborted => EventKind::DeploymentAborted,
        EndState::Cancelled => EventKind::DeploymentCancelled,
        EndState::Degraded => EventKind::DeploymentDegraded,
    }
}
