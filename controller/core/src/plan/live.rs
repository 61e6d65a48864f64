//! The live release: as many instances as wanted, also while nothing is being deployed.

use appbase_core::ProcessName;

use super::Draft;
use crate::v1::state::{EventKind, ReleaseRecord, Traffic};

impl Draft<'_> {
    pub(super) fn keep_live(&mut self) {
        let (Some(slot), Some(live)) = (self.run.live, self.live_release()) else { return };
        let Some(record) = self.release(live) else {
            self.waits_for(format!("release {live} is live but not recorded: its instances are left as they are"));
            return;
        };
        for (process, spec) in &record.release.processes {
            if spec.port.is_none() && !spec.overlap && self.old_background_runs(record, process) {
                self.waits_for(format!("the old {process} must have stopped before the new one starts"));
                continue;
            }
            let count = self.wanted(record, process);
            self.ensure_instances(record, process, count, slot);
        }
        self.activate_scaled_up(record);
    }

    /// Instances without a port of other releases: given up at once, since no traffic holds them.
    fn old_background_runs(&mut self, record: &ReleaseRecord, process: &ProcessName) -> bool {
        let live = record.release.number;
        let old = self.ids(|i| i.release != live && i.process == *process && i.address.is_none());
        for id in &old {
            self.set(id, Traffic::Retiring);
        }
        !old.is_empty()
    }

    /// Instances added to the live release beside a flip take traffic once they are up.
    fn activate_scaled_up(&mut self, record: &ReleaseRecord) {
        let Some(published) = self.slice.published else { return };
        let live = record.release.number;
        let up: Vec<_> = self
            .ids(|i| i.release == live && i.address.is_some() && i.state == Traffic::Standby)
            .into_iter()
            .filter(|id| self.slice.run.instances.contains_key(id) && self.observed.up_for(id, published).is_some())
            .collect();
        for id in up {
            self.set(&id, Traffic::Active);
            self.happened(EventKind::InstancesUp, format!("{id} is up and takes traffic"));
        }
    }

    /// A staged release is kept as it will be live.
    pub(super) fn keep_staged(&mut self) {
        let idle = self.idle_slot();
        let Some(staged) = self.run.staged.filter(|_| self.run.deployment.is_none()) else { return };
        let Some(record) = self.release(staged).filter(|_| self.run.slots.get(&idle) == Some(&staged)) else {
            self.run.staged = None;
            return;
        };
        let traffic: Vec<_> = record.release.traffic.processes.keys().cloned().collect();
        for process in &traffic {
            let count = self.wanted(record, process);
            self.ensure_instances(record, process, count, idle);
        }
    }

    /// The idle slot keeps its release warm for the rollback window; without a window it is given up.
    pub(super) fn end_warmth(&mut self) {
        if self.run.deployment.is_some() {
            return;
        }
        let idle = self.idle_slot();
        let staged = self.run.staged;
        let standing = self.ids(|i| {
            i.slot == idle && Some(i.release) != staged && matches!(i.state, Traffic::Standby | Traffic::Warm)
        });
        match self.run.warm {
            Some(warm) if !warm.is_over(self.now) => {
                if !standing.is_empty() {
                    self.wake_at(warm, "rollback window");
                }
            }
            _ => {
                if self.run.warm.take().is_some() && !standing.is_empty() {
                    self.happened(EventKind::WarmEnded, "the previous release is no longer kept warm");
                }
                for id in standing {
                    self.retire(&id);
                }
                for id in self.ids(|i| i.slot == idle && i.address.is_none()) {
                    self.set(&id, Traffic::Retiring);
                }
            }
        }
    }
}
