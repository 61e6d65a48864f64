//! The running deployment of a slice: from the idle slot to the flip, and from there to its end.

use std::time::Duration;

use appbase_core::v1::MemberKind;
use appbase_core::{InstanceId, ReleaseNumber, Slot};

use super::{Draft, given_up};
use crate::observed::{MEMBER_UNSEEN_MAX, Seen};
use crate::v1::compute::{InstancePhase, ObservedInstance};
use crate::v1::state::{EndState, EventKind, InstanceRecord, ReleaseRecord, Timer, Traffic};

/// An instance whose app was started again so often without coming up is in a crash loop.
const RESTARTS_MAX: u32 = 3;

/// How far one new instance is.
enum Progress {
    Up,
    /// Not yet; what it waits for.
    Waiting(String),
    /// Will not come up by itself.
    Broken(String),
}

impl Draft<'_> {
    pub(super) fn follow_deployment(&mut self) {
        let Some(deployment) = self.deployment.as_ref().filter(|deployment| deployment.end.is_none()) else { return };
        let (release, flipped) = (deployment.release, deployment.flipped_unix_ms.is_some());
        let Some(record) = self.release(release) else {
            self.end_deployment(EndState::Aborted, Some(format!("release {release} is not recorded")));
            return;
        };
        if flipped {
            self.follow_after_flip(record);
        } else {
            self.follow_before_flip(record);
        }
    }

    fn follow_before_flip(&mut self, record: &ReleaseRecord) {
        let Some(deployment) = &self.deployment else { return };
        let (cancel, deadline, stage) = (deployment.cancel, deployment.deadline, deployment.stage);
        if cancel {
            return self.give_up(EndState::Cancelled, "cancelled before traffic moved".to_owned());
        }
        let (idle, release) = (self.idle_slot(), record.release.number);
        if !self.clear_slot(idle, record) {
            return self.wait_for_slot(idle);
        }
        let deadline = self.begin_in_slot(record, deadline);
        let traffic: Vec<_> = record.release.traffic.processes.keys().cloned().collect();
        for process in &traffic {
            let count = self.wanted(record, process);
            self.ensure_instances(record, process, count, idle);
        }
        if self.new_ones_answer(record) {
            self.give_up_warm(idle, release);
        }
        match self.new_ones_up(record) {
            Ok(true) if stage && self.run.live.is_some() => self.stage(record, idle),
            Ok(true) => self.flip(record, idle),
            Ok(false) if deadline.is_over(self.now) => {
                let waited = self.plan.report.join("; ");
                self.give_up(EndState::Aborted, format!("not all instances came up in time ({waited})"));
            }
            Ok(false) => {
                self.name_silent_lbs();
                self.wake_at(deadline, "probe deadline");
                self.wake_at_silence(MemberKind::Lb);
            }
            Err(reason) => self.give_up(EndState::Aborted, reason),
        }
    }

    /// What was there before drains and stops at its own pace, which the new instances' deadline does not count; longer
    /// than that lasts at the most only while a member is gone.
    fn wait_for_slot(&mut self, slot: Slot) {
        self.waits_for(format!("what is left in slot {slot} is being retired"));
        let policies = self.records().filter(|(_, i)| i.slot == slot).filter_map(|(_, i)| {
            let release = &self.release(i.release)?.release;
            let policy = &release.traffic.policy;
            let stop_ms = release.processes.get(&i.process)?.stop_grace_ms;
            Some(policy.request_drain_ms.max(policy.stream_drain_ms) + stop_ms)
        });
        let own_pace_ms = policies.max().unwrap_or_default();
        let limit_ms = own_pace_ms + MEMBER_UNSEEN_MAX.as_millis() as u64;
        let limit = Timer::start(self.now, limit_ms);
        let Some(deployment) = &mut self.deployment else { return };
        let limit = *deployment.drain_deadline.get_or_insert(limit);
        if !limit.is_over(self.now) {
            return self.wake_at(limit, "slot limit");
        }
        let missing: Vec<String> = self.observed.missing_members().map(|(id, _)| id.to_string()).collect();
        let reason = format!("the slot of the release before did not get free (not heard of: {})", missing.join(", "));
        self.give_up(EndState::Aborted, reason);
    }

    /// The deadline of the new instances; it begins now when the slot had to be waited for.
    fn begin_in_slot(&mut self, record: &ReleaseRecord, deadline: Timer) -> Timer {
        let begins = Timer::start(self.now, record.release.traffic.policy.probe_deadline_ms);
        let Some(deployment) = &mut self.deployment else { return deadline };
        if deployment.drain_deadline.take().is_none() {
            return deadline;
        }
        deployment.deadline = begins;
        begins
    }

    /// Makes room in the idle slot: what is there of another release is given up. True once that has no traffic left and
    /// is told to stop; the new ones start beside its stopping, which may take as long as the app likes. What is warm
    /// stays for now. Who wants no warm release has no room for one more that is stopping either.
    fn clear_slot(&mut self, slot: Slot, record: &ReleaseRecord) -> bool {
        let (release, policy) = (record.release.number, &record.release.traffic.policy);
        for id in self.ids(|i| i.slot == slot && i.release != release && i.state != Traffic::Warm) {
            self.retire(&id);
        }
        let in_the_way = |i: &InstanceRecord| match i.release == release {
            true => given_up(i.state),
            false => match i.state {
                Traffic::Warm => false,
                Traffic::Retiring => policy.rollback_window_ms == 0,
                Traffic::Standby | Traffic::Active | Traffic::Draining { .. } => true,
            },
        };
        if self.run.staged.is_some_and(|staged| staged != release) {
            self.run.staged = None;
        }
        // One that is still there needs no room made for it.
        let is_there = self.records().any(|(_, i)| i.release == release && is_kept(i.state));
        if !is_there && self.records().any(|(_, i)| i.slot == slot && in_the_way(i)) {
            return false;
        }
        self.run.slots.insert(slot, release);
        true
    }

    /// Nobody can say that an instance is up while no lb is heard.
    fn name_silent_lbs(&mut self) {
        let lbs = || self.observed.members(MemberKind::Lb);
        if lbs().any(|(_, member)| member.is_reachable()) {
            return;
        }
        let silent: Vec<String> = lbs().map(|(id, _)| id.to_string()).collect();
        self.waits_for(match silent.is_empty() {
            true => "no load balancer has joined yet: start one".to_owned(),
            false => format!("no load balancer is heard, so nobody can say what is up (silent: {})", silent.join(", ")),
        });
    }

    /// Whether every new instance with a port answers, settled or not.
    fn new_ones_answer(&self, record: &ReleaseRecord) -> bool {
        let Some(published) = self.slice.published else { return false };
        let answers = |id: &InstanceId| {
            self.slice.run.instances.contains_key(id) && self.observed.up_for(id, published).is_some()
        };
        let new = self.new_ones(record.release.number);
        new.len() == self.wanted_with_port(record) && new.iter().all(|(id, _)| answers(id))
    }

    fn new_ones(&self, release: ReleaseNumber) -> Vec<(InstanceId, InstanceRecord)> {
        let new = self.records().filter(|(_, i)| i.release == release && i.address.is_some() && !given_up(i.state));
        new.map(|(id, i)| (id.clone(), i.clone())).collect()
    }

    fn wanted_with_port(&self, record: &ReleaseRecord) -> usize {
        record.release.traffic.processes.keys().map(|process| self.wanted(record, process) as usize).sum()
    }

    /// What is warm makes room once the new ones answer: if they never do, the way back stays short.
    fn give_up_warm(&mut self, slot: Slot, release: ReleaseNumber) {
        self.run.warm = None;
        for id in self.ids(|i| i.slot == slot && i.release != release && i.state == Traffic::Warm) {
            self.retire(&id);
        }
    }

    /// Whether every new instance with a port is up for the settle time; an error when one never will be.
    fn new_ones_up(&mut self, record: &ReleaseRecord) -> Result<bool, String> {
        let settle = Duration::from_millis(record.release.traffic.policy.settle_ms);
        let new = self.new_ones(record.release.number);
        let mut all = new.len() == self.wanted_with_port(record);
        for (id, instance) in &new {
            match self.progress(id, instance, settle) {
                Progress::Up => {}
                Progress::Waiting(what) => {
                    all = false;
                    self.waits_for(what);
                }
                Progress::Broken(reason) => return Err(reason),
            }
        }
        Ok(all)
    }

    fn progress(&mut self, id: &InstanceId, instance: &InstanceRecord, settle: Duration) -> Progress {
        // What answers at its address is not it, while it does not run or ends again and again. Where nothing can be seen,
        // the members' word counts.
        let seen = self.observed.instance(&instance.server, id);
        // Restarts of long ago are no crash loop.
        let loops = |seen: &ObservedInstance| {
            seen.restarts >= RESTARTS_MAX && Duration::from_millis(seen.running_for_ms) < settle
        };
        let runs = match seen {
            Seen::Unknown => true,
            Seen::Absent => false,
            Seen::Present(seen) => seen.phase == InstancePhase::Running && !loops(seen),
        };
        let published = self.slice.published.filter(|_| runs && self.slice.run.instances.contains_key(id));
        if let Some(up_for) = published.and_then(|generation| self.observed.up_for(id, generation)) {
            if up_for >= settle {
                return Progress::Up;
            }
            self.wake_after(settle - up_for, "settle time");
            return Progress::Waiting(format!("{id} is up and settling"));
        }
        match seen {
            Seen::Unknown => Progress::Waiting(format!("{id}: server {} cannot be seen", instance.server)),
            Seen::Absent => Progress::Waiting(match self.observed.failed_steps.get(id) {
                Some(error) => format!("{id} cannot be created: {error}"),
                None => format!("{id} is being created"),
            }),
            Seen::Present(seen) if loops(seen) => {
                let how =
                    seen.last_exit.as_ref().map_or_else(String::new, |exit| format!(", last {}", exit_text(exit)));
                Progress::Broken(format!("{id} ended {} times{how}", seen.restarts))
            }
            // What ended without a chance to start again says why: a refused artifact, a program that is not there.
            Seen::Present(seen) if seen.phase == InstancePhase::Ended && seen.problem.is_some() => {
                Progress::Broken(format!("{id}: {}", seen.problem.as_deref().unwrap_or_default()))
            }
            Seen::Present(seen) if seen.phase == InstancePhase::Created => {
                Progress::Waiting(format!("{id} is being started"))
            }
            Seen::Present(seen) => match &seen.problem {
                Some(problem) => Progress::Waiting(format!("{id}: {problem}")),
                None => Progress::Waiting(format!("{id} is not up yet")),
            },
        }
    }

    /// Everything is up and waits for somebody to make it live.
    fn stage(&mut self, record: &ReleaseRecord, slot: Slot) {
        let release = record.release.number;
        self.give_up_warm(slot, release);
        self.run.staged = Some(release);
        self.run.aborted = None;
        self.end_deployment(EndState::Staged, None);
    }

    /// One fact: the new ones are active, the old ones drain. It is recorded, then published.
    fn flip(&mut self, record: &ReleaseRecord, slot: Slot) {
        let release = record.release.number;
        self.give_up_warm(slot, release);
        let old = self.ids(|i| i.slot == slot.other() && i.address.is_some() && !given_up(i.state));
        for id in &old {
            self.set(id, Traffic::Draining { retire: false, names_gone: None });
        }
        let new = self.ids(|i| i.release == release && i.address.is_some() && !given_up(i.state));
        self.happened(EventKind::InstancesUp, format!("{0}/{0} up", new.len()));
        for id in new {
            self.set(&id, Traffic::Active);
            if let Some(instance) = self.run.instances.get_mut(&id) {
                instance.slot = slot;
            }
        }
        let first = self.run.live.is_none();
        self.run.live = Some(slot);
        self.run.staged = None;
        if first {
            self.run.slots.insert(slot.other(), release);
        }
        self.run.aborted = None;
        let (now, policy) = (self.now, &record.release.traffic.policy);
        let drain_ms = policy.request_drain_ms.max(policy.stream_drain_ms) + MEMBER_UNSEEN_MAX.as_millis() as u64;
        if let Some(deployment) = &mut self.deployment {
            deployment.flipped_unix_ms = Some(now.unix_ms);
            deployment.drain_deadline = Some(Timer::start(now, drain_ms));
        }
        self.happened(EventKind::Flipped, format!("traffic moved to {} (release {release})", record.release.version));
        if !old.is_empty() {
            self.happened(EventKind::Draining, format!("{} old instances end what they have", old.len()));
        }
    }

    fn follow_after_flip(&mut self, record: &ReleaseRecord) {
        // A flip that was decided in this very pass is not out yet.
        let is_recorded = self.slice.deployment.is_some_and(|deployment| deployment.flipped_unix_ms.is_some());
        if let (Some(deployment), Some(published), true) = (&mut self.deployment, self.slice.published, is_recorded) {
            deployment.flip.get_or_insert_with(|| published.clone());
        }
        let live = record.release.number;
        // One that retires was let go by everybody: it stops at its own pace.
        let is_draining = |i: &InstanceRecord| matches!(i.state, Traffic::Draining { .. });
        let draining = self.ids(|i| i.release != live && is_draining(i) && i.address.is_some());
        let background = self.background_up(record);
        if draining.is_empty() && matches!(background, Ok(true)) {
            self.keep_warm(record);
            self.run.last_good = Some(live);
            for id in self.ids(|i| i.release != live && i.address.is_none()) {
                self.set(&id, Traffic::Retiring);
            }
            return self.end_deployment(EndState::Done, None);
        }
        if let Err(reason) = background {
            self.keep_warm(record);
            return self.end_deployment(EndState::Degraded, Some(reason));
        }
        for id in &draining {
            self.waits_for(format!("{id} is draining"));
        }
        let Some(deadline) = self.deployment.as_ref().and_then(|deployment| deployment.drain_deadline) else { return };
        if !deadline.is_over(self.now) {
            return self.wake_at(deadline, "drain deadline");
        }
        self.keep_warm(record);
        let missing: Vec<String> = self.observed.missing_members().map(|(id, _)| id.to_string()).collect();
        let reason = format!("waited too long for the old instances to drain (not heard of: {})", missing.join(", "));
        self.end_deployment(EndState::Degraded, Some(reason));
    }

    /// The release before stays as it is for a while, however the deployment ended: a way back is needed most when it
    /// did not end well.
    fn keep_warm(&mut self, record: &ReleaseRecord) {
        self.run.warm = Some(Timer::start(self.now, record.release.traffic.policy.rollback_window_ms));
    }

    /// Whether the processes without a port run for the settle time; their records are `keep_live`'s work.
    fn background_up(&mut self, record: &ReleaseRecord) -> Result<bool, String> {
        let settle = record.release.traffic.policy.settle_ms;
        let mut all = true;
        for (process, _) in record.release.processes.iter().filter(|(_, spec)| spec.port.is_none()) {
            let live = record.release.number;
            let own: Vec<_> = self
                .records()
                .filter(|(_, i)| i.release == live && i.process == *process && !given_up(i.state))
                .map(|(id, i)| (id.clone(), i.server.clone()))
                .collect();
            all &= own.len() == self.wanted(record, process) as usize;
            for (id, server) in own {
                let Seen::Present(seen) = self.observed.instance(&server, &id) else {
                    all = false;
                    self.waits_for(format!("{id} is being started"));
                    continue;
                };
                if seen.restarts >= RESTARTS_MAX && seen.running_for_ms < settle {
                    return Err(format!("{id} ended {} times", seen.restarts));
                }
                if seen.running_for_ms < settle {
                    all = false;
                    self.wake_after(Duration::from_millis(settle - seen.running_for_ms), "settle time");
                    self.waits_for(format!("{id} is settling"));
                }
            }
        }
        Ok(all)
    }

    /// Before the flip: the new ones are given up, traffic never moved.
    fn give_up(&mut self, state: EndState, reason: String) {
        let Some(release) = self.deployment.as_ref().map(|deployment| deployment.release) else { return };
        if self.run.staged == Some(release) {
            // It stays where it was.
            return self.end_deployment(state, Some(reason));
        }
        let idle = self.idle_slot();
        // A way back that nobody wants now is one still.
        let stays = |i: &InstanceRecord| state == EndState::Cancelled && is_kept(i.state);
        for id in self.ids(|i| i.slot == idle && i.release == release && !stays(i)) {
            self.retire(&id);
        }
        if let Some(record) = self.release(release)
            && self.records().any(|(_, i)| i.slot == idle && i.release == release && stays(i))
        {
            self.keep_warm(record);
        }
        if state == EndState::Aborted {
            self.run.aborted = Some(release);
        }
        self.end_deployment(state, Some(reason));
    }
}

/// Whether an instance was live before and may be again with one flip.
pub fn is_kept(state: Traffic) -> bool {
    matches!(state, Traffic::Warm | Traffic::Draining { retire: false, .. })
}

/// `with exit code 1 after 0.8s`
pub fn exit_text(exit: &appbase_core::v1::InstanceExit) -> String {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("by signal {signal} after {:.1}s", exit.ran_ms as f64 / 1000.0),
        (Some(code), None) => format!("with exit code {code} after {:.1}s", exit.ran_ms as f64 / 1000.0),
        (None, None) => "for an unknown reason".to_owned(),
    }
}
