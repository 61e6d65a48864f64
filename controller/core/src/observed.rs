//! Observed: what was seen, and what could not be. Unknown is not absent.

use std::collections::BTreeMap;
use std::time::Duration;

use appbase_core::v1::{Health, InstanceReport, MemberKind, MemberStatus};
use appbase_core::{Generation, InstanceId, MemberId, ServerName};

use crate::v1::compute::ObservedInstance;

/// A member that said nothing for this long is not reachable.
pub const MEMBER_SILENT_MAX: Duration = Duration::from_secs(6);
/// A member unseen for this long ends a deployment that waits for it as degraded.
pub const MEMBER_UNSEEN_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<T> {
    /// Could not be seen: a gap. Never a reason to remove anything.
    Unknown,
    Absent,
    Present(T),
}

#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// None: the server could not be seen.
    pub servers: BTreeMap<ServerName, Option<BTreeMap<InstanceId, ObservedInstance>>>,
    pub members: BTreeMap<MemberId, MemberSeen>,
    /// Why the last step for an instance failed.
    pub failed_steps: BTreeMap<InstanceId, String>,
}

/// A wanted member and what it said last.
#[derive(Debug, Clone)]
pub struct MemberSeen {
    pub kind: MemberKind,
    /// None: never since the controller started.
    pub status: Option<MemberStatus>,
    /// Since its last word, or since the controller started.
    pub silent_for: Duration,
}

impl MemberSeen {
    pub fn is_reachable(&self) -> bool {
        self.status.is_some() && self.silent_for < MEMBER_SILENT_MAX
    }

    pub fn has_taken(&self, generation: &Generation) -> bool {
        let in_force = self.status.as_ref().and_then(|status| status.in_force.as_ref());
        in_force.is_some_and(|in_force| in_force.reaches(generation))
    }

    pub fn report(&self, id: &InstanceId) -> Option<&InstanceReport> {
        self.status.as_ref()?.instances.get(id)
    }
}

impl Observed {
    pub fn instance(&self, server: &ServerName, id: &InstanceId) -> Seen<&ObservedInstance> {
        match self.servers.get(server) {
            None | Some(None) => Seen::Unknown,
            Some(Some(instances)) => instances.get(id).map_or(Seen::Absent, Seen::Present),
        }
    }

    pub fn members(&self, kind: MemberKind) -> impl Iterator<Item = (&MemberId, &MemberSeen)> {
        self.members.iter().filter(move |(_, member)| member.kind == kind)
    }

    /// What every reachable lb (at least one) that has `generation` says: up for at least so long. None: not all of
    /// them say up yet.
    pub fn up_for(&self, id: &InstanceId, generation: &Generation) -> Option<Duration> {
        let mut least = None;
        for (_, member) in self.members(MemberKind::Lb).filter(|(_, member)| member.is_reachable()) {
            if !member.has_taken(generation) {
                return None;
            }
            let report = member.report(id).filter(|report| report.health == Health::Up)?;
            let up_for = Duration::from_millis(report.up_for_ms) + member.silent_for;
            least = Some(least.map_or(up_for, |least: Duration| least.min(up_for)));
        }
        least
    }

    /// When the first of the members that count as reachable ceases to, unless it is heard before.
    pub fn next_silence(&self, kind: MemberKind) -> Option<Duration> {
        let reachable = self.members(kind).filter(|(_, member)| member.is_reachable());
        reachable.map(|(_, member)| MEMBER_SILENT_MAX - member.silent_for).min()
    }

    /// Every lb, seen or not, has the table.
    pub fn is_taken(&self, generation: &Generation) -> bool {
        self.members(MemberKind::Lb).all(|(_, member)| member.has_taken(generation))
    }

    /// Every lb, seen or not, has the table and nothing of the instance in flight.
    pub fn is_drained(&self, id: &InstanceId, generation: &Generation) -> bool {
        self.members(MemberKind::Lb)
            .all(|(_, member)| member.has_taken(generation) && member.report(id).is_none_or(|report| report.drained))
    }

    /// Every dns, seen or not, has the table.
    pub fn names_taken(&self, generation: &Generation) -> bool {
        self.members(MemberKind::Dns).all(|(_, member)| member.has_taken(generation))
    }

    /// Members that keep others waiting: not reachable.
    pub fn missing_members(&self) -> impl Iterator<Item = (&MemberId, &MemberSeen)> {
        self.members.iter().filter(|(_, member)| !member.is_reachable())
    }
}
