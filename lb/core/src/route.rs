//! Route: which rule is this request's. The rules of the exact host before those of its wildcard before those of every
//! host; within one of them the most special that takes it ([`Rule::takes`]): the longest path, an exact one before a
//! prefix, then whoever wants more headers, more query parameters, fewer methods.

use std::sync::Arc;

use crate::host;
use crate::rule::{Ask, Miss, Rule};
use crate::table::Table;

/// The rule that takes the request.
pub fn find<'a>(table: &'a Table, ask: &Ask<'_>) -> Option<&'a Arc<Rule>> {
    order(table, ask.host).find(|rule| rule.takes(ask).is_ok())
}

/// The same of these rules alone, which stand in order.
pub fn find_in<'a>(rules: &'a [Arc<Rule>], ask: &Ask<'_>) -> Option<&'a Arc<Rule>> {
    rules.iter().find(|rule| rule.takes(ask).is_ok())
}

/// The rules in the order in which they are looked at, up to the one that takes the request, each with why it does not.
pub fn considered<'a>(table: &'a Table, ask: &Ask<'_>) -> Vec<Considered<'a>> {
    until_taken(order(table, ask.host), ask)
}

/// The same of these rules alone.
pub fn considered_in<'a>(rules: &'a [Arc<Rule>], ask: &Ask<'_>) -> Vec<Considered<'a>> {
    until_taken(rules.iter(), ask)
}

pub type Considered<'a> = (&'a Arc<Rule>, Result<(), Miss<'a>>);

fn until_taken<'a>(rules: impl Iterator<Item = &'a Arc<Rule>>, ask: &Ask<'_>) -> Vec<Considered<'a>> {
    let mut considered = Vec::new();
    for rule in rules {
        let takes = rule.takes(ask);
        considered.push((rule, takes));
        if takes.is_ok() {
            break;
        }
    }
    considered
}

fn order<'a>(table: &'a Table, host: Option<&str>) -> impl Iterator<Item = &'a Arc<Rule>> + use<'a> {
    let exact = host.and_then(|host| table.exact.get(host));
    let wildcard = host.and_then(host::wildcard_of).and_then(|domain| table.wildcard.get(domain));
    [exact, wildcard, Some(&table.any)].into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use appbase_core::v1::Route;

    use super::*;
    use crate::http1::{Fields, RequestHead};
    use crate::table::tests::section;

    fn by_path<'a>(table: &'a Table, host: Option<&str>, path: &str) -> Option<&'a Arc<Rule>> {
        find(table, &Ask { host, path, method: "GET", query: "", fields: &Fields::default() })
    }

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
            let rule = by_path(&table, host, path).expect("a rule");
            let got = format!("{} {}", rule.section.published.app, rule.route.path);
            assert_eq!(got, expect, "{host:?} {path}");
        }
    }

    #[test]
    fn without_a_rule_nobody_gets_it() {
        let table = Table::new(&BTreeMap::from([section("one", &[(Some("a.example"), "/x")])])).expect("sound");
        assert_eq!(by_path(&table, Some("a.example"), "/"), None);
        assert_eq!(by_path(&table, Some("b.example"), "/x"), None);
        assert_eq!(by_path(&table, None, "/x"), None);
    }

    #[test]
    fn whoever_wants_more_of_a_request_is_asked_first() {
        let (key, mut one) = section("one", &[]);
        type Change = (&'static str, fn(&mut Route));
        let changes: [Change; 8] = [
            ("plain", |_| {}),
            ("exact", |route| route.exact = true),
            ("get", |route| route.methods = ["GET".to_owned()].into()),
            ("read", |route| route.methods = ["GET".to_owned(), "HEAD".to_owned()].into()),
            ("beta", |route| drop(route.headers.insert("x-beta".to_owned(), "yes".to_owned()))),
            ("json", |route| {
                route.headers =
                    [("x-beta", "yes"), ("accept", "application/*")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
            }),
            ("any-user", |route| drop(route.query.insert("user".to_owned(), "*".to_owned()))),
            ("ann", |route| drop(route.query.insert("user".to_owned(), "Ann B".to_owned()))),
        ];
        for (process, change) in changes {
            let process = appbase_core::ProcessName::parse(process).expect("a name");
            let mut route = Route::new(None, "/x", process);
            change(&mut route);
            one.routes.push(route);
        }
        // Nobody serves them here; a table without instances needs no probes.
        one.pools.clear();
        let table = Table::new(&BTreeMap::from([(key, one)])).expect("sound");
        let got = |method, path, query, lines: &str| {
            let mut head = RequestHead::default();
            head.read(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes()).expect("a head");
            let ask = Ask { host: None, path, method, query, fields: &head.fields };
            let considered = considered(&table, &ask);
            let found = find(&table, &ask).map(|rule| rule.process().to_string());
            assert_eq!(considered.last().is_some_and(|(_, takes)| takes.is_ok()), found.is_some());
            found.unwrap_or_default()
        };
        for (method, path, query, lines, expect) in [
            ("GET", "/x", "", "", "exact"),
            ("GET", "/x", "user=Ann+B", "X-Beta: yes\r\n", "exact"),
            ("GET", "/x/y", "", "", "get"),
            ("HEAD", "/x/y", "", "", "read"),
            ("POST", "/x/y", "", "", "plain"),
            ("POST", "/x/y", "", "X-Beta: yes\r\n", "beta"),
            ("POST", "/x/y", "", "X-Beta: no\r\n", "plain"),
            ("POST", "/x/y", "", "X-Beta: no\r\nx-beta: yes\r\n", "beta"),
            ("POST", "/x/y", "", "X-Beta: yes\r\nAccept: application/json\r\n", "json"),
            ("POST", "/x/y", "user=Ann%20B", "X-Beta: yes\r\nAccept: text/html\r\n", "beta"),
            ("POST", "/x/y", "a=b&user=", "", "any-user"),
            ("POST", "/x/y", "user=Bob", "", "any-user"),
            ("POST", "/x/y", "userx=Bob", "", "plain"),
            ("POST", "/y", "user=Bob", "", ""),
        ] {
            assert_eq!(got(method, path, query, lines), expect, "{method} {path}?{query} {lines:?}");
        }
        // Of two that want a parameter, the one in the order of names; both are equally special.
        assert_eq!(got("POST", "/x/y", "user=Ann+B", ""), "any-user");
    }
}
