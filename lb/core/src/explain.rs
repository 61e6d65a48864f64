//! Explain: what would happen to a request, as data, without sending it. Never holds a secret.

use appbase_core::v1::Health;
use appbase_core::{InstanceId, ReleaseNumber};
use serde::Serialize;

use crate::table::Table;
use crate::v1::InstanceState;
use crate::{host, path, route};

/// The answer of `GET /v1/route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub host: Option<String>,
    /// The canonical path; none when the path is refused.
    pub path: Option<String>,
    pub rule: Option<ExplainedRule>,
    /// One of `forwarded`, `held`, `maintenance`, `no-route`, `no-instance`, `bad-host`, `bad-path`.
    pub outcome: &'static str,
    pub detail: String,
    pub instances: Vec<ExplainedInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedRule {
    pub environment: String,
    pub app: String,
    pub process: String,
    pub host: Option<String>,
    pub path: String,
    pub live: Option<ReleaseNumber>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedInstance {
    pub instance: InstanceId,
    pub release: ReleaseNumber,
    pub weight: u32,
    pub address: std::net::SocketAddr,
    pub state: InstanceState,
    pub health: Health,
    pub in_flight: u64,
    /// Whether a request may go to it now.
    pub eligible: bool,
}

/// What the daemon knows of one instance: health, what is in flight, whether new requests may go to it.
pub type Seen = (Health, u64, bool);

/// Explains a request for `host` and `target` as they came.
pub fn explain(
    table: &Table,
    host: Option<&str>,
    target: &str,
    seen: impl Fn(&InstanceId) -> Option<Seen>,
) -> Explanation {
    let nothing = |outcome, detail: String| Explanation {
        host: host.map(str::to_owned),
        path: None,
        rule: None,
        outcome,
        detail,
        instances: Vec::new(),
    };
    let canonical_host = match host.map(host::canonical).transpose() {
        Ok(host) => host,
        Err(error) => return nothing("bad-host", error.to_string()),
    };
    let canonical = match path::canonical(target) {
        Ok(path) => path,
        Err(error) => return nothing("bad-path", error.to_string()),
    };
    let found =
        Explanation { host: canonical_host, path: Some(canonical.into_owned()), ..nothing("no-route", String::new()) };
    let Some(rule) = route::find(table, found.host.as_deref(), found.path.as_deref().unwrap_or("/")) else {
        return Explanation { detail: "no route covers this host and path".to_owned(), ..found };
    };
    let section = &rule.section.published;
    let mut instances = Vec::new();
    for (&release, pool) in &section.pools {
        for (id, instance) in pool.instances.iter().filter(|(_, instance)| instance.process == rule.process) {
            let (health, in_flight, eligible) = seen(id).unwrap_or((Health::Pending, 0, false));
            instances.push(ExplainedInstance {
                instance: id.clone(),
                release,
                weight: pool.weight,
                address: instance.address,
                state: instance.state,
                health,
                in_flight,
                eligible,
            });
        }
    }
    let (outcome, detail) = if let Some(text) = &section.maintenance {
        ("maintenance", text.clone())
    } else if section.hold {
        ("held", "requests wait until the hold ends".to_owned())
    } else if instances.iter().any(|instance| instance.eligible) {
        ("forwarded", String::new())
    } else {
        ("no-instance", format!("no active instance of process {} is up", rule.process))
    };
    let rule = Some(ExplainedRule {
        environment: section.environment.to_string(),
        app: section.app.to_string(),
        process: rule.process.to_string(),
        host: rule.host.clone(),
        path: rule.path.clone(),
        live: section.live,
    });
    Explanation { rule, outcome, detail, instances, ..found }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::table::tests::section;

    #[test]
    fn says_which_rule_and_which_instances() {
        let table = Table::new(&BTreeMap::from([section("one", &[(Some("a.example"), "/x")])])).expect("sound");
        let up = |_: &InstanceId| Some((Health::Up, 3, true));
        let outcome = |host, path| explain(&table, host, path, up).outcome;
        assert_eq!(outcome(Some("A.example:80"), "/x/y?z"), "forwarded");
        assert_eq!(outcome(Some("a.example"), "/"), "no-route");
        assert_eq!(outcome(Some("a.example"), "/x/../y"), "bad-path");
        assert_eq!(outcome(Some("a b"), "/x"), "bad-host");
        let explained = explain(&table, Some("a.example"), "/x", |_| None);
        assert_eq!((explained.outcome, explained.instances.len()), ("no-instance", 1));
    }
}
