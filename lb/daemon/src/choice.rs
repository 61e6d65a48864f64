//! Choice: which instance of a rule's process a request gets. A preview and a cohort say which release; else the weights
//! do, and a client that has a place in them keeps it.

use appbase_core::ReleaseNumber;
use appbase_core::v1::HashKey;
use lb_core::http1::Fields;
use lb_core::pick::{self, Judge, Seeds, Share, Standing};
use lb_core::rule::{Ask, Rule};
use lb_core::{cohort, key};

use crate::balancer::Balancer;
use crate::marks::{Marks, PLACE_COOKIE, STICKY_COOKIE};
use crate::refusal::Refusal;
use crate::request::RequestContext;
use crate::snapshot::{ProcessTargets, SectionTargets, Target};

/// However much fails, so much of its draws an instance takes, of 1,000: else nobody would see that it is well again.
const RAMP_MIN: f64 = 10.0;

/// What a choice for one request goes by.
pub(crate) struct Choice<'a> {
    pub(crate) balancer: &'a Balancer,
    pub(crate) ctx: &'a RequestContext,
    pub(crate) rule: &'a Rule,
    pub(crate) ask: &'a Ask<'a>,
    /// The release that the client asked to see.
    pub(crate) preview: Option<ReleaseNumber>,
    /// A number for this choice; no secret.
    pub(crate) seed: u64,
}

impl Choice<'_> {
    pub(crate) fn make<'t>(&self, targets: &'t SectionTargets) -> Result<(&'t Target, Marks), Refusal> {
        let nobody = |reason: &str| {
            let (app, process) = (&self.rule.section.published.app, self.rule.process());
            Refusal::no_instance(&format!("app {app} cannot answer: {reason} (process {process})"))
        };
        let Some(process) = targets.process(self.rule.process()) else {
            return Err(nobody("no pool with weight has instances of it"));
        };
        let found = match self.preview {
            Some(release) => process.of_release(release).and_then(|share| self.within(share)),
            None => self.of_cohort(process),
        };
        if found.is_none() && self.preview.is_some() {
            return Err(nobody("the release of this slot has no instance that is up"));
        }
        // Who has no place yet is given one.
        let new_place = (found.is_none() && process.shares.len() > 1 && self.place_cookie().is_none())
            .then(|| self.ctx.marks.place.unwrap_or(Seeds(self.seed).draw() as u16));
        let chosen = found.or_else(|| self.by_weight(process, new_place)).ok_or_else(|| {
            let reason = if process.shares.is_empty() { process.nobody } else { "no other instance is left to try" };
            nobody(reason)
        })?;
        let hash = chosen.backend.hash;
        let untold = chosen.sticky.filter(|number| self.sticky_cookie(*number) != Some(hash));
        let sticks_to = untold.map(|number| (number, hash));
        Ok((chosen, Marks { sticks_to, place: new_place, ..self.ctx.marks }))
    }

    /// The instance that is to have a copy; none when this request is not one of those copied.
    pub(crate) fn mirror<'t>(&self, targets: &'t SectionTargets, chosen: &Target) -> Option<&'t Target> {
        let mirror = self.rule.section.published.mirror.filter(|mirror| mirror.release != chosen.release)?;
        let is_first = self.ctx.attempts == 0 && self.preview.is_none() && matches!(self.ask.method, "GET" | "HEAD");
        let drawn = || Seeds(self.seed.rotate_left(32)).below(100) < Some(mirror.percent.into());
        let process = targets.process(self.rule.process()).filter(|_| is_first && drawn())?;
        self.within(process.of_release(mirror.release)?)
    }

    fn of_cohort<'t>(&self, process: &'t ProcessTargets) -> Option<&'t Target> {
        let client = self.ctx.connection.client;
        let cohorts = &self.rule.section.published.cohorts;
        let own = cohorts.iter().find(|own| cohort::takes(&own.conditions, self.ask, client))?;
        self.within(process.of_release(own.release)?)
    }

    fn by_weight<'t>(&self, process: &'t ProcessTargets, new_place: Option<u16>) -> Option<&'t Target> {
        let placed = Placed { choice: self, place: new_place.or_else(|| self.place_cookie()) };
        self.within(pick::share(&process.shares, &placed, &mut Seeds(self.seed))?)
    }

    /// The instance that the client had, when it is one of these and takes requests still; else one of them.
    fn within<'t>(&self, share: &'t Share<Target>) -> Option<&'t Target> {
        let had = share.members.first().and_then(|target| target.sticky).and_then(|number| self.sticky_cookie(number));
        let is_had = |target: &&Target| Some(target.backend.hash) == had && self.is_able(target);
        let known = had.and_then(|_| share.members.iter().find(is_had));
        let placed = Placed { choice: self, place: None };
        known.or_else(|| pick::within(share, &placed, &mut Seeds(self.seed.rotate_left(16))))
    }

    fn is_able(&self, target: &Target) -> bool {
        !self.ctx.tried.contains(&target.backend.serial)
    }

    fn sticky_cookie(&self, process: u32) -> Option<u64> {
        u64::from_str_radix(cookie(self.ask.fields, &format!("{STICKY_COOKIE}{process:08x}"))?, 16).ok()
    }

    fn place_cookie(&self) -> Option<u16> {
        u16::from_str_radix(cookie(self.ask.fields, PLACE_COOKIE)?, 16).ok()
    }
}

fn cookie<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    std::str::from_utf8(key::cookie(fields, name)?).ok()
}

/// A choice with the client's place in the weights.
struct Placed<'a> {
    choice: &'a Choice<'a>,
    place: Option<u16>,
}

impl Judge<Target> for Placed<'_> {
    fn place(&self) -> Option<u16> {
        self.place
    }

    fn key(&self, key: &HashKey) -> Option<u64> {
        key::of(key, self.choice.ask, self.choice.ctx.connection.client)
    }

    fn is_able(&self, target: &Target) -> bool {
        self.choice.is_able(target)
    }

    fn in_flight(&self, target: &Target) -> u64 {
        target.backend.requests()
    }

    fn hash(&self, target: &Target) -> u64 {
        target.backend.hash
    }

    fn standing(&self, target: &Target) -> Standing {
        let (backend, now) = (&target.backend, self.choice.balancer.clock.elapsed());
        let well = 1.0 - backend.experience.failing(now);
        Standing {
            latency: backend.latency(now),
            in_flight: backend.requests(),
            streams: backend.streams(),
            ramp: (f64::from(target.ramp(now)) * well).max(RAMP_MIN) as u16,
            backs_off: backend.experience.backs_off(now),
        }
    }
}
