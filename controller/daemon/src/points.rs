//! Points: the moments of a deploy at which a test lets the controller die or wait (see `kit::faults`). Without that
//! feature they are nothing.

use controller_core::plan::SlicePlan;
use controller_core::v1::state::{EventKind, Run, Traffic};
use kit::faults;

pub(crate) const CREATED: &str = "controller.created";
pub(crate) const STARTED: &str = "controller.started";
pub(crate) const STOPPED: &str = "controller.stopped";
pub(crate) const REMOVED: &str = "controller.removed";
/// The store's commit: may be told to fail.
pub(crate) const COMMIT: &str = "controller.commit";

/// What one pass decided, as far as a point hangs on it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Decided {
    new_instances: bool,
    flip: bool,
    drained: bool,
}

impl Decided {
    /// `before` is the run record as it was.
    pub(crate) fn of(plan: &SlicePlan, before: impl FnOnce() -> Run) -> Self {
        if !faults::ON {
            return Self::default();
        }
        let happened = |kind| plan.events.iter().any(|event| event.kind == kind);
        let added = plan.run.as_ref().is_some_and(|run| {
            let before = before();
            let mut standby = run.instances.iter().filter(|(_, instance)| instance.state == Traffic::Standby);
            standby.any(|(id, _)| !before.instances.contains_key(id))
        });
        Self { new_instances: added, flip: happened(EventKind::Flipped), drained: happened(EventKind::Drained) }
    }

    /// It is in the store; nothing of it is done or published.
    pub(crate) fn recorded(self) {
        pass(self.new_instances, "controller.intent");
        pass(self.flip, "controller.flip.written");
        pass(self.drained, "controller.drained");
    }

    /// Members can fetch it.
    pub(crate) fn published(self) {
        pass(self.new_instances, "controller.standby.published");
        pass(self.flip, "controller.flip.published");
    }

    /// One decision that several slices took part in.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            new_instances: self.new_instances || other.new_instances,
            flip: self.flip || other.flip,
            drained: self.drained || other.drained,
        }
    }
}

fn pass(is_there: bool, name: &str) {
    if is_there {
        faults::point(name);
    }
}
