//! Members: the last word of each, and since when it is silent. The wanted ones are in the store.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::{Counters, MemberKind, MemberStatus};
use appbase_core::{Generation, MemberId, ReleaseNumber, SectionKey};
use controller_core::observed::MemberSeen;
use controller_core::time::Now;
use controller_core::v1::api::MemberTraffic;

type BySection = BTreeMap<SectionKey, BTreeMap<ReleaseNumber, Counters>>;

#[derive(Debug, Default)]
pub(crate) struct Members {
    heard: Mutex<BTreeMap<MemberId, Heard>>,
}

#[derive(Debug)]
struct Heard {
    status: MemberStatus,
    at: Duration,
    /// Counters of earlier starts of the member, so that sums never fall.
    before: BySection,
}

impl Members {
    /// Takes a status. True when something in it is news to the planner.
    pub(crate) fn heard(&self, id: &MemberId, status: MemberStatus, now: Now) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = heard.get_mut(id) else {
            heard.insert(id.clone(), Heard { status, at: now.elapsed, before: BTreeMap::new() });
            return true;
        };
        if known.status.boot != status.boot {
            let ended = std::mem::take(&mut known.status.counters);
            add(&mut known.before, &ended);
        } else {
            // What left the table took its numbers along.
            let gone = without(std::mem::take(&mut known.status.counters), &status.counters);
            add(&mut known.before, &gone);
        }
        let news = known.status.in_force != status.in_force
            || known.status.boot != status.boot
            || facts(&known.status) != facts(&status);
        known.status = status;
        known.at = now.elapsed;
        news
    }

    /// Why a state whose last publication is `published` must not be acted on: a member has a newer table of the same
    /// cluster in force. Then an older state was put back, and what happened since is not in it.
    pub(crate) fn ahead_of(&self, published: &Generation) -> Option<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().find_map(|(id, known)| {
            let theirs = known.status.in_force.as_ref()?;
            (theirs.compare(published) == Some(std::cmp::Ordering::Greater)).then(|| {
                format!(
                    "this state is older than the platform: {id} has table {theirs} in force, the last one recorded here \
                     is {published}; nothing is changed until the newer state is back or the epoch is raised"
                )
            })
        })
    }

    /// Whether each of these said something since the start.
    pub(crate) fn all_heard(&self, wanted: &BTreeMap<MemberId, MemberKind>) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.keys().all(|id| heard.contains_key(id))
    }

    /// Whether it was heard.
    pub(crate) fn forget(&self, id: &MemberId) -> bool {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(id).is_some()
    }

    /// The wanted members as they were heard.
    pub(crate) fn seen(&self, wanted: &BTreeMap<MemberId, MemberKind>, now: Now) -> BTreeMap<MemberId, MemberSeen> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        wanted
            .iter()
            .map(|(id, kind)| {
                let known = heard.get(id);
                let silent_for = now.elapsed.saturating_sub(known.map_or(Duration::ZERO, |known| known.at));
                (id.clone(), MemberSeen { kind: *kind, status: known.map(|known| known.status.clone()), silent_for })
            })
            .collect()
    }

    /// The last word of each load balancer.
    pub(crate) fn traffic(&self) -> Vec<MemberTraffic> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let lbs = heard.iter().filter(|(_, known)| known.status.kind == MemberKind::Lb);
        let said = |(id, known): (&MemberId, &Heard)| MemberTraffic {
            member: id.clone(),
            said_ms: u64::try_from(known.at.as_millis()).unwrap_or(u64::MAX),
            status: known.status.clone(),
        };
        lbs.map(said).collect()
    }

    /// Counters of a section over all members and releases.
    pub(crate) fn counters(&self, section: &SectionKey, release: Option<ReleaseNumber>) -> Counters {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = Counters::default();
        for known in heard.values() {
            for counters in [&known.before, &known.status.counters] {
                let releases = counters.get(section).into_iter().flatten();
                for (_, counters) in releases.filter(|(number, _)| release.is_none_or(|wanted| wanted == **number)) {
                    sum.add(counters);
                }
            }
        }
        sum
    }
}

/// What a decision can hang on: everything but running numbers.
fn facts(status: &MemberStatus) -> Vec<(&appbase_core::InstanceId, appbase_core::v1::Health, bool)> {
    status.instances.iter().map(|(id, report)| (id, report.health, report.drained)).collect()
}

/// What of `all` is not in `those`.
fn without(mut all: BySection, those: &BySection) -> BySection {
    for (section, releases) in &mut all {
        let kept = those.get(section);
        releases.retain(|release, _| kept.is_none_or(|kept| !kept.contains_key(release)));
    }
    all.retain(|_, releases| !releases.is_empty());
    all
}

fn add(sum: &mut BySection, more: &BySection) {
    for (section, releases) in more {
        for (release, counters) in releases {
            sum.entry(section.clone()).or_default().entry(*release).or_default().add(counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use appbase_core::{AppName, EnvironmentName};

    use super::*;

    fn status(boot: &str, releases: &[(ReleaseNumber, u64)]) -> MemberStatus {
        let section = SectionKey::app(&EnvironmentName::default_name(), &AppName::parse("shop").expect("a name"));
        let counters = releases.iter().map(|(release, requests)| {
            (*release, Counters { requests: *requests, durations: vec![*requests], ..Counters::default() })
        });
        MemberStatus {
            kind: MemberKind::Lb,
            boot: boot.to_owned(),
            in_force: None,
            refused: None,
            live: BTreeMap::new(),
            instances: BTreeMap::new(),
            counters: BTreeMap::from([(section, counters.collect())]),
        }
    }

    #[test]
    fn sums_never_fall() {
        let members = Members::default();
        let (id, now) = (MemberId::parse("lb-1").expect("a name"), Now { unix_ms: 0, elapsed: Duration::ZERO });
        let section = SectionKey::app(&EnvironmentName::default_name(), &AppName::parse("shop").expect("a name"));
        for (status, sum, of_two) in [
            (status("a", &[(1, 10), (2, 5)]), 15, 5),
            (status("a", &[(2, 6), (3, 1)]), 17, 6),
            (status("a", &[(3, 2)]), 18, 6),
            (status("b", &[(2, 1), (3, 1)]), 20, 7),
        ] {
            members.heard(&id, status, now);
            assert_eq!(members.counters(&section, None).requests, sum);
            assert_eq!(members.counters(&section, None).durations, [sum]);
            assert_eq!(members.counters(&section, Some(2)).requests, of_two);
        }
    }
}
