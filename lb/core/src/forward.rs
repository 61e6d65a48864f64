//! Forward: what another app is asked before a request goes on, and which words of its answer the request's own app gets.

use std::sync::Arc;

use appbase_core::v1::{Forward, HeaderEdits, Route};
use appbase_core::{AppName, EnvironmentName, SectionKey};

use crate::http1::Known;
use crate::path;
use crate::rule::{NOT_EDITED, Rule, is_field_name};
use crate::table::Table;

/// Sent where a route names nothing else: what signs people in, and what an answer is chosen by.
const SENT: [&str; 5] = ["accept", "accept-language", "authorization", "cookie", "user-agent"];
const FIELDS_MAX: usize = 32;
const PATH_BYTES_MAX: usize = 1 << 10;

/// Whether a line of a request goes to the app that is asked.
pub fn is_sent(forward: &Forward, name: &str) -> bool {
    let is = |one: &str| one.eq_ignore_ascii_case(name);
    if forward.send.is_empty() { SENT.iter().any(|one| is(one)) } else { forward.send.iter().any(|one| is(one)) }
}

/// A request of lb's own: where it goes whatever its host and path say, and what is said there of the request that it is about.
#[derive(Debug, Clone)]
pub struct Inquiry {
    section: SectionKey,
    route: Route,
}

impl Inquiry {
    /// About a request with this method and target.
    pub fn new(environment: &EnvironmentName, forward: &Forward, method: &str, target: &str) -> Self {
        let set = [("X-Forwarded-Method", method), ("X-Forwarded-Uri", target)];
        let set = set.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let route = Route {
            request_headers: HeaderEdits { set, ..HeaderEdits::default() },
            ..Route::new(None, "/", forward.process.clone())
        };
        Self { section: SectionKey::app(environment, &forward.app), route }
    }

    /// The rule by which it goes; none while the table has no such app.
    pub fn rule(&self, table: &Table) -> Option<Arc<Rule>> {
        Some(Arc::new(Rule::new(self.route.clone(), table.section(&self.section)?)))
    }

    pub fn app(&self) -> Option<&AppName> {
        match &self.section {
            SectionKey::App { app, .. } => Some(app),
            SectionKey::Platform => None,
        }
    }
}

/// Why it cannot be used.
pub(crate) fn check(forward: &Forward) -> Result<(), String> {
    let Forward { path, send, copy, .. } = forward;
    let (asked, _) = path.split_once('?').unwrap_or((path, ""));
    let is_visible = path.bytes().all(|byte| (b'!'..0x7f).contains(&byte) && byte != b'#');
    if path::canonical(asked).ok().as_deref() != Some(asked) || path.len() > PATH_BYTES_MAX || !is_visible {
        return Err(format!("forward: path {} is no path as an app gets it", path.escape_debug()));
    }
    if send.len() > FIELDS_MAX || copy.len() > FIELDS_MAX {
        return Err(format!("forward: at most {FIELDS_MAX} headers are sent, and copied"));
    }
    let is_lbs = |name: &str| {
        let lower = name.to_ascii_lowercase();
        NOT_EDITED.contains(&lower.as_str()) || lower == "host" || lower.starts_with("x-platform-")
    };
    if let Some(name) = send.iter().chain(copy).find(|name| !is_field_name(name) || is_lbs(name)) {
        return Err(format!("forward: header {}: that is no header's name, or lb's own", name.escape_debug()));
    }
    // Whoever the app believes in these, it is lb that says them.
    let is_said = |name: &str| {
        ["for", "host", "proto"].iter().any(|end| name.eq_ignore_ascii_case(&format!("x-forwarded-{end}")))
    };
    // One that lb reads itself, or leaves out, would be there twice or not at all.
    let is_odd = |name: &str| {
        let known = Known::of(name);
        !(known == Known::Other
            || (known == Known::Origin
                && name.len() > 12
                && name.is_char_boundary(12)
                && name[..12].eq_ignore_ascii_case("x-forwarded-")))
    };
    match copy.iter().find(|name| is_said(name) || is_odd(name)) {
        Some(name) => Err(format!("forward: header {name} is not copied: that is lb's own")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use appbase_core::ProcessName;

    use super::*;
    use crate::table::tests::section;

    fn forward(path: &str, send: &[&str], copy: &[&str]) -> Forward {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        Forward {
            app: AppName::parse("auth").expect("a name"),
            process: ProcessName::default_name(),
            path: path.to_owned(),
            send: set(send),
            copy: set(copy),
        }
    }

    #[test]
    fn an_inquiry_goes_to_its_app_as_long_as_there_is_one() {
        let (key, mut published) = section("auth", &[]);
        let inquiry = Inquiry::new(&published.environment, &forward("/check", &[], &[]), "POST", "/a?b");
        assert!(inquiry.rule(&Table::default()).is_none());
        published.hold = true;
        let table = Table::new(&BTreeMap::from([(key, published)])).expect("sound");
        let rule = inquiry.rule(&table).expect("there");
        assert!(rule.section.published.hold && rule.changes_messages() && !rule.is_guarded());
        assert_eq!(rule.route.request_headers.set["X-Forwarded-Uri"], "/a?b");
        assert_eq!(rule.route.request_headers.set["X-Forwarded-Method"], "POST");
    }

    #[test]
    fn what_is_sent_is_named_or_usual() {
        let usual = forward("/", &[], &[]);
        assert!(is_sent(&usual, "Cookie") && is_sent(&usual, "AUTHORIZATION") && !is_sent(&usual, "X-Own"));
        let own = forward("/", &["X-Own"], &[]);
        assert!(is_sent(&own, "x-own") && !is_sent(&own, "Cookie"));
    }

    #[test]
    fn what_an_app_could_not_be_asked_is_refused() {
        assert_eq!(check(&forward("/check?app=shop", &["Cookie", "X-A"], &["X-User", "X-Forwarded-User"])), Ok(()));
        for (wrong, says) in [
            (forward("check", &[], &[]), "no path"),
            (forward("/a/../b", &[], &[]), "no path"),
            (forward("/a b", &[], &[]), "no path"),
            (forward("/a?b\r\nX: y", &[], &[]), "no path"),
            (forward("/", &["a b"], &[]), "no header's name"),
            (forward("/", &["Transfer-Encoding"], &[]), "lb's own"),
            (forward("/", &[], &["Host"]), "lb's own"),
            (forward("/", &[], &["Content-Length"]), "lb's own"),
            (forward("/", &[], &["X-Forwarded-For"]), "not copied"),
            (forward("/", &[], &["X-Real-IP"]), "not copied"),
            (forward("/", &[], &["Content-Type"]), "not copied"),
            (forward("/", &[], &["X_Forwarded_User"]), "not copied"),
        ] {
            let error = check(&wrong).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
