//! Route: which rule is this request's. Exact host before wildcard before none; the longest path that covers it.

use crate::table::{Rule, Table};
use crate::{host, path};

/// The rule for a canonical `host` (none: the request had none) and a canonical `path`.
///
/// When the rules of the exact host do not cover the path, those of the wildcard are asked, then those without a host.
pub fn find<'a>(table: &'a Table, host: Option<&str>, path: &str) -> Option<&'a Rule> {
    let exact = host.and_then(|host| table.exact.get(host));
    let wildcard = host.and_then(host::wildcard_of).and_then(|domain| table.wildcard.get(domain));
    // Sorted longest first, so the first that covers is the most specific.
    [exact, wildcard, Some(&table.any)]
        .into_iter()
        .flatten()
        .find_map(|rules| rules.iter().find(|rule| path::covers(&rule.path, path)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::table::tests::section;

    #[test]
    fn the_most_specific_rule_wins() {
        let table = Table::new(&BTreeMap::from([
            section("any", &[(None, "/"), (None, "/deep/er")]),
            section("wild", &[(Some("*.example"), "/"), (Some("*.example"), "/deep")]),
            section("exact", &[(Some("a.example"), "/api"), (Some("a.example"), "/api/v2/")]),
            section("other", &[(Some("a.example"), "/api/v2/admin")]),
        ]))
        .expect("a sound table");
        for (host, path, expect) in [
            (Some("a.example"), "/api", "exact /api"),
            (Some("a.example"), "/api/", "exact /api"),
            (Some("a.example"), "/apix", "wild /"),
            (Some("a.example"), "/api/v2", "exact /api/v2"),
            (Some("a.example"), "/api/v2/admin/x", "other /api/v2/admin"),
            (Some("a.example"), "/deep/er", "wild /deep"),
            (Some("b.example"), "/api", "wild /"),
            (Some("x.b.example"), "/api", "any /"),
            (Some("example"), "/deep/er/x", "any /deep/er"),
            (Some("[::1]"), "/", "any /"),
            (None, "/api", "any /"),
        ] {
            let rule = find(&table, host, path).expect("a rule");
            let got = format!("{} {}", rule.section.published.app, rule.path);
            assert_eq!(got, expect, "{host:?} {path}");
        }
    }

    #[test]
    fn without_a_rule_nobody_gets_it() {
        let table = Table::new(&BTreeMap::from([section("one", &[(Some("a.example"), "/x")])])).expect("sound");
        assert_eq!(find(&table, Some("a.example"), "/"), None);
        assert_eq!(find(&table, Some("b.example"), "/x"), None);
        assert_eq!(find(&table, None, "/x"), None);
    }
}
