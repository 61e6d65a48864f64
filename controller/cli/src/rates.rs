//! Rates: what flows, from what load balancers said at two moments.

use std::collections::BTreeMap;

use appbase_core::v1::{Counters, InstanceReport};
use appbase_core::{InstanceId, MemberId, ReleaseNumber, SectionKey};
use controller_core::v1::api::MemberTraffic;
use serde::Serialize;

/// Two words of one member that are nearer to each other say little: it speaks at each change too.
const APART_MS: u64 = 1_000;

/// The last two words of each member.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    heard: BTreeMap<MemberId, (Option<MemberTraffic>, MemberTraffic)>,
}

/// Over all members, per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Flow {
    pub(crate) requests: f64,
    /// What users saw fail; and what the app itself answered with 5xx.
    pub(crate) failed: f64,
    pub(crate) app_errors: f64,
    /// How many took how long, as in `Counters`; not per second.
    pub(crate) durations: Vec<u64>,
}

impl Rates {
    /// Takes a new sample. Members that are in it no longer are forgotten.
    pub(crate) fn take(&mut self, sample: Vec<MemberTraffic>) {
        let mut before = std::mem::take(&mut self.heard);
        for said in sample {
            let known = match before.remove(&said.member) {
                // It started again: its counters began at zero.
                Some((_, newest)) if newest.status.boot != said.status.boot || said.said_ms < newest.said_ms => {
                    (None, said)
                }
                Some((_, newest)) if said.said_ms - newest.said_ms >= APART_MS => (Some(newest), said),
                Some(kept) => kept,
                None => (None, said),
            };
            self.heard.insert(known.1.member.clone(), known);
        }
    }

    /// Every member spoke twice.
    pub(crate) fn are_known(&self) -> bool {
        self.heard.values().all(|(before, _)| before.is_some())
    }

    pub(crate) fn of_releases(&self, section: &SectionKey) -> BTreeMap<ReleaseNumber, Flow> {
        let mut flows: BTreeMap<ReleaseNumber, Flow> = BTreeMap::new();
        for (before, after, seconds) in self.spans() {
            let nothing = BTreeMap::new();
            let then = before.status.counters.get(section).unwrap_or(&nothing);
            for (release, now) in after.status.counters.get(section).unwrap_or(&nothing) {
                let none = Counters::default();
                flows.entry(*release).or_default().add(then.get(release).unwrap_or(&none), now, seconds);
            }
        }
        flows
    }

    /// Requests a second to an instance, and those of them that failed there.
    pub(crate) fn of_instance(&self, id: &InstanceId) -> (f64, f64) {
        self.spans().fold((0.0, 0.0), |(requests, failed), (before, after, seconds)| {
            let count = |said: &MemberTraffic, of: fn(&InstanceReport) -> u64| said.status.instances.get(id).map(of);
            let rate = |of| {
                let (then, now) = (count(before, of).unwrap_or(0), count(after, of).unwrap_or(0));
                // An instance with another address is counted anew.
                now.saturating_sub(then) as f64 / seconds
            };
            (requests + rate(|report| report.requests), failed + rate(|report| report.failed))
        })
    }

    /// Streams that are open at an instance, and requests in flight.
    pub(crate) fn inside(&self, id: &InstanceId) -> (u64, u64) {
        let reports = self.heard.values().filter_map(|(_, said)| said.status.instances.get(id));
        reports.fold((0, 0), |(streams, requests), report| (streams + report.streams, requests + report.in_flight))
    }

    fn spans(&self) -> impl Iterator<Item = (&MemberTraffic, &MemberTraffic, f64)> {
        self.heard.values().filter_map(|(before, after)| {
            let before = before.as_ref()?;
            Some((before, after, (after.said_ms - before.said_ms) as f64 / 1000.0))
        })
    }
}

impl Flow {
    fn add(&mut self, then: &Counters, now: &Counters, seconds: f64) {
        let rate = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
        self.requests += rate(then.requests, now.requests);
        self.failed += rate(then.failed, now.failed);
        self.app_errors += rate(then.app_errors, now.app_errors);
        self.durations.resize(self.durations.len().max(now.durations.len()), 0);
        for (at, (sum, now)) in self.durations.iter_mut().zip(&now.durations).enumerate() {
            *sum += now.saturating_sub(then.durations.get(at).copied().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(member: &str, boot: &str, said_ms: u64, requests: u64) -> MemberTraffic {
        let counters = json!({"requests": requests, "failed": requests / 10, "app_errors": 0, "durations": [requests]});
        serde_json::from_value(json!({"member": member, "said_ms": said_ms, "status": {
            "kind": "lb", "boot": boot, "in_force": null, "counters": {"production/shop": {"1": counters}},
            "instances": {"i-1": {"health": "up", "up_for_ms": 1, "in_flight": 2, "streams": 1, "drained": false,
                                  "requests": requests}}}}))
        .expect("what a member says")
    }

    fn requests(rates: &Rates) -> f64 {
        let section = SectionKey::try_from("production/shop".to_owned()).expect("a section");
        rates.of_releases(&section).get(&1).map_or(0.0, |flow| flow.requests)
    }

    #[test]
    fn rates_are_of_each_members_own_time() {
        let mut rates = Rates::default();
        rates.take(vec![said("lb-1", "a", 1_000, 100), said("lb-2", "b", 1_500, 0)]);
        assert!(!rates.are_known());
        rates.take(vec![said("lb-1", "a", 3_000, 300), said("lb-2", "b", 2_500, 50)]);
        assert!(rates.are_known());
        assert_eq!(requests(&rates), 150.0);
        let id = InstanceId::parse("i-1").expect("a name");
        assert_eq!((rates.of_instance(&id), rates.inside(&id)), ((150.0, 0.0), (2, 4)));
        // Nothing new of one, and a word too soon after the last one of the other.
        rates.take(vec![said("lb-1", "a", 3_000, 300), said("lb-2", "b", 2_600, 90)]);
        assert_eq!(requests(&rates), 150.0);
    }

    #[test]
    fn who_starts_again_or_goes_counts_for_nothing() {
        let mut rates = Rates::default();
        rates.take(vec![said("lb-1", "a", 1_000, 100), said("lb-2", "b", 1_000, 0)]);
        rates.take(vec![said("lb-1", "c", 3_000, 7)]);
        assert_eq!((requests(&rates), rates.are_known()), (0.0, false));
        rates.take(vec![said("lb-1", "c", 5_000, 27)]);
        assert_eq!(requests(&rates), 10.0);
        // The controller started again, and with it its clock.
        rates.take(vec![said("lb-1", "c", 10, 40)]);
        assert_eq!(requests(&rates), 0.0);
    }
}
