//! Explain: what would happen to a request, as data, without sending it. Never holds a secret.

use std::net::Ipv4Addr;
use std::sync::Arc;

use appbase_core::v1::{Health, Route};
use appbase_core::{InstanceId, ReleaseNumber};
use serde::{Deserialize, Serialize};

use crate::http1::Fields;
use crate::rule::{Ask, Miss, Rule};
use crate::table::Table;
use crate::v1::InstanceState;
use crate::{cohort, host, path, preview, route};

/// The answer of `GET /v1/route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub host: Option<String>,
    /// The canonical path; none when the path is refused.
    pub path: Option<String>,
    pub rule: Option<ExplainedRule>,
    /// In the order in which they were looked at, up to the one that takes it.
    #[serde(default)]
    pub considered: Vec<Considered>,
    pub outcome: Outcome,
    pub detail: String,
    /// The release it gets whatever the weights say, and why: `2, by preview`, `2, by cohort 1`. Cohorts by network are left
    /// out: nobody asks from anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gets: Option<String>,
    pub instances: Vec<ExplainedInstance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Forwarded,
    Redirected,
    Held,
    Maintenance,
    NoRoute,
    NoInstance,
    BadHost,
    BadPath,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRule {
    pub environment: String,
    pub app: String,
    #[serde(flatten)]
    pub route: Route,
    pub live: Option<ReleaseNumber>,
}

/// A rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    pub environment: String,
    pub app: String,
    #[serde(flatten)]
    pub route: Route,
    /// Why it does not take the request; none: it does.
    pub miss: Option<String>,
}

/// So many rules are shown of those that were looked at.
const CONSIDERED_MAX: usize = 64;

/// A request that nobody sends.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub host: Option<&'a str>,
    /// Path and query.
    pub target: &'a str,
    pub method: &'a str,
    pub fields: &'a Fields,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedInstance {
    pub instance: InstanceId,
    pub release: ReleaseNumber,
    pub weight: u32,
    pub address: std::net::SocketAddr,
    pub state: InstanceState,
    #[serde(flatten)]
    pub seen: Seen,
}

/// What the daemon knows of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub health: Health,
    pub in_flight: u64,
    /// Whether a request may go to it now.
    pub eligible: bool,
    /// Left out because requests failed there.
    #[serde(default)]
    pub ejected: bool,
    /// It asked to be left alone for a while (`Retry-After`).
    #[serde(default)]
    pub backs_off: bool,
    /// How long answers take it; none: it has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
}

/// Explains a request as it came.
pub fn explain(table: &Table, question: &Question<'_>, seen: impl Fn(&InstanceId) -> Option<Seen>) -> Explanation {
    let Question { host, target, method, fields } = *question;
    let nothing = |outcome, detail: String| Explanation {
        host: host.map(str::to_owned),
        path: None,
        rule: None,
        considered: Vec::new(),
        outcome,
        detail,
        gets: None,
        instances: Vec::new(),
    };
    let canonical_host = match host.map(host::canonical).transpose() {
        Ok(host) => host,
        Err(error) => return nothing(Outcome::BadHost, error.to_string()),
    };
    let canonical = match path::canonical(target) {
        Ok(path) => path,
        Err(error) => return nothing(Outcome::BadPath, error.to_string()),
    };
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let ask = Ask { host: canonical_host.as_deref(), path: &canonical, method, query, fields };
    let previewed = ask.host.and_then(|host| preview::by_host(table, host));
    let order = match previewed {
        Some((section, _)) => route::considered_in(table.previewed(&section.key), &ask),
        None => route::considered(table, &ask),
    };
    let preview = preview::find(table, &ask).and_then(|(_, release)| release);
    let found = Explanation {
        host: canonical_host.clone(),
        path: Some(canonical.clone().into_owned()),
        // The last ones: they are the nearest.
        considered: order.iter().skip(order.len().saturating_sub(CONSIDERED_MAX)).map(considered).collect(),
        ..nothing(Outcome::NoRoute, String::new())
    };
    let Some((rule, _)) = order.iter().find(|(_, takes)| takes.is_ok()) else {
        return Explanation { detail: "no route takes this request".to_owned(), ..found };
    };
    let section = &rule.section.published;
    let by_cohort = (1..).zip(&section.cohorts).find(|(_, cohort)| {
        let conditions = &cohort.conditions;
        conditions.networks.is_empty() && cohort::takes(conditions, &ask, Ipv4Addr::UNSPECIFIED.into())
    });
    let gets = match (preview, by_cohort) {
        (Some(release), _) => Some(format!("{release}, by preview")),
        (None, Some((number, cohort))) => Some(format!("{}, by cohort {number}", cohort.release)),
        _ => None,
    };
    let mut instances = Vec::new();
    for (&release, pool) in &section.pools {
        for (id, instance) in pool.instances.iter().filter(|(_, instance)| instance.process == *rule.process()) {
            instances.push(ExplainedInstance {
                instance: id.clone(),
                release,
                weight: pool.weight,
                address: instance.address,
                state: instance.state,
                seen: seen(id).unwrap_or_default(),
            });
        }
    }
    let (outcome, detail) = if let Some(redirect) = &rule.route.redirect {
        let location = rule.location(redirect, &ask).unwrap_or_else(|| "the request's host, which it lacks".to_owned());
        (Outcome::Redirected, format!("{} to {location}", redirect.status))
    } else if let Some(text) = section.maintenance.as_ref().filter(|_| preview.is_none()) {
        (Outcome::Maintenance, text.clone())
    } else if section.hold && preview.is_none() {
        (Outcome::Held, "requests wait until the hold ends".to_owned())
    } else if instances.iter().any(|instance| instance.seen.eligible) {
        let rewritten = rule.rewritten(target, &canonical);
        (Outcome::Forwarded, rewritten.map(|path| format!("as {path}")).unwrap_or_default())
    } else {
        (Outcome::NoInstance, format!("no active instance of process {} is up", rule.process()))
    };
    let rule = Some(ExplainedRule {
        environment: section.environment.to_string(),
        app: section.app.to_string(),
        route: rule.route.shown(),
        live: section.live,
    });
    Explanation { rule, outcome, detail, gets, instances, ..found }
}

fn considered((rule, takes): &(&Arc<Rule>, Result<(), Miss<'_>>)) -> Considered {
    let section = &rule.section.published;
    Considered {
        environment: section.environment.to_string(),
        app: section.app.to_string(),
        route: rule.route.shown(),
        miss: takes.err().map(|miss| miss.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use appbase_core::{Digest, Slot};

    use super::*;
    use crate::table::tests::section;
    use crate::v1::{Cohort, Conditions, Preview};

    #[test]
    fn says_which_rule_and_which_instances() {
        let table = Table::new(&BTreeMap::from([section("one", &[(Some("a.example"), "/x")])])).expect("sound");
        let up = |_: &InstanceId| Some(Seen { health: Health::Up, in_flight: 3, eligible: true, ..Seen::default() });
        let fields = Fields::default();
        let question = |host, target| Question { host, target, method: "GET", fields: &fields };
        let outcome = |host, path| explain(&table, &question(host, path), up).outcome;
        assert_eq!(outcome(Some("A.example:80"), "/x/y?z"), Outcome::Forwarded);
        assert_eq!(outcome(Some("a.example"), "/"), Outcome::NoRoute);
        assert_eq!(outcome(Some("a.example"), "/x/../y"), Outcome::BadPath);
        assert_eq!(outcome(Some("a b"), "/x"), Outcome::BadHost);
        let explained = explain(&table, &question(Some("a.example"), "/x"), |_| None);
        assert_eq!((explained.outcome, explained.instances.len()), (Outcome::NoInstance, 1));
        let (key, mut published) = section("one", &[(Some("a.example"), "/x")]);
        let conditions = Conditions { path: Some("/x/beta".into()), ..Conditions::default() };
        published.cohorts.push(Cohort { release: 1, conditions });
        let secret = "abcdefghijklmnopqrstuvwx12";
        let slots = [(Slot::Green, 1)].into();
        published.preview = Some(Preview { secret: Digest::of(secret.as_bytes()), slots });
        let moved = Table::new(&BTreeMap::from([(key, published)])).expect("sound");
        let shown = format!("{secret}-green.any");
        let gets = |host, path| explain(&moved, &question(Some(host), path), up).gets;
        assert_eq!(gets("a.example", "/x"), None);
        assert_eq!(gets("a.example", "/x/beta/1").as_deref(), Some("1, by cohort 1"));
        assert_eq!(gets(&shown, "/x").as_deref(), Some("1, by preview"));
        let missed = explain(&table, &question(Some("a.example"), "/y"), up);
        assert_eq!(missed.considered[0].miss.as_deref(), Some("another path"));
    }
}
