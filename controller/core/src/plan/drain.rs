//! Draining: an instance stops only after every member let it go.
//!
//! ```text
//! draining ─ all dns took the table ─► names_gone runs one TTL ─┐
//!          └ all lbs report drained ────────────────────────────┴─► standby (warm) or retiring
//! ```

use appbase_core::InstanceId;
use appbase_core::v1::MemberKind;

use super::Draft;
use crate::v1::state::{EventKind, Timer, Traffic};

impl Draft<'_> {
    pub(super) fn progress_draining(&mut self) {
        let ids = self.ids(|i| matches!(i.state, Traffic::Draining { .. }));
        for id in ids {
            self.progress_one(&id);
        }
    }

    fn progress_one(&mut self, id: &InstanceId) {
        let Some(record) = self.run.instances.get(id) else { return };
        let Traffic::Draining { retire, names_gone } = record.state else { return };
        if record.address.is_none() {
            return self.set(id, Traffic::Retiring);
        }
        // Only a table that says "draining" can have been taken as such: one that was recorded in this very pass is
        // not out yet.
        let was_draining =
            self.slice.run.instances.get(id).is_some_and(|i| matches!(i.state, Traffic::Draining { .. }));
        let Some(published) = self.slice.published.filter(|_| was_draining) else { return };
        let names_gone = match names_gone {
            Some(timer) => timer,
            None if self.observed.names_taken(published) => {
                let ttl_ms = u64::try_from(self.setting.name_ttl.as_millis()).unwrap_or(u64::MAX);
                let timer = Timer::start(self.now, ttl_ms);
                self.set(id, Traffic::Draining { retire, names_gone: Some(timer) });
                timer
            }
            None => return self.waits_for_members(id, MemberKind::Dns),
        };
        if !names_gone.is_over(self.now) {
            return self.wake_at(names_gone, "name TTL");
        }
        if !self.observed.is_drained(id, published) {
            return self.waits_for_members(id, MemberKind::Lb);
        }
        self.set(id, if retire { Traffic::Retiring } else { Traffic::Warm });
        self.happened(EventKind::Drained, format!("{id} is drained"));
    }

    fn waits_for_members(&mut self, id: &InstanceId, kind: MemberKind) {
        self.wake_at_silence(kind);
        let silent: Vec<String> = self
            .observed
            .members(kind)
            .filter(|(_, member)| !member.is_reachable())
            .map(|(member, _)| member.to_string())
            .collect();
        if !silent.is_empty() {
            self.waits_for(format!("{id} cannot stop: not heard of {}", silent.join(", ")));
        }
    }
}
