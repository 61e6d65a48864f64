//! Input of strangers and of broken disks: nothing panics, and what is taken is taken in one way.

use std::collections::BTreeMap;

use appbase_core::v1::{Route, Tls};
use appbase_core::{AppName, EnvironmentName, ProcessName, SectionKey};
use lb_core::http1::RequestHead;
use lb_core::rule::Ask;
use lb_core::v1::{Drain, RouteSection, TableFile};
use lb_core::{Table, host, preview, route};
use proptest::prelude::*;

/// A table as `lb --table` reads it, with everything that a section can have.
const FILE: &str = r#"{"sections": [{
  "environment": "production", "app": "shop", "live": 1,
  "routes": [{"host": "*.shop.example", "path": "/api", "methods": ["GET"], "headers": {"x-beta": "y*"}, "process": "web",
              "rewrite": "/", "response_headers": {"set": {"Cache-Control": "no-store"}, "remove": ["Server"]}},
             {"host": "shop.example", "path": "/old", "exact": true, "process": "web",
              "redirect": {"to": "https://{host}/new{rest}", "status": 301}}],
  "pools": {"1": {"weight": 90, "probes": {"web": {"check": "/health", "interval_ms": 1000, "timeout_ms": 2000, "rise": 1,
                  "fall": 3}}, "balance": {"web": {"policy": "hash:cookie:sid", "sticky": true, "slow_start_ms": 9}},
                  "instances": {"shop-1": {"process": "web", "address": "127.0.0.1:1", "state": "active"}}},
            "2": {"weight": 10, "probes": {"web": {"check": "grpc:shop", "interval_ms": 1, "timeout_ms": 1, "rise": 1,
                  "fall": 1}}, "instances": {"shop-2": {"process": "web", "address": "[::1]:2", "state": "standby"}}}},
  "cohorts": [{"release": 2, "path": "/beta", "cookies": {"beta": "1"}, "networks": ["10.0.0.0/8"]}],
  "preview": {"secret": "sha256:0000000000000000000000000000000000000000000000000000000000000000", "slots": {"blue": 1}},
  "mirror": {"release": 2, "percent": 5}, "notice": "soon", "hold": false, "maintenance": "later",
  "drain": {"requests_ms": 1, "streams_ms": 1}
}]}"#;

fn table_of(file: TableFile) -> Option<Table> {
    let key = |section: &RouteSection| SectionKey::app(&section.environment, &section.app);
    Table::new(&file.sections.into_iter().map(|section| (key(&section), section)).collect()).ok()
}

#[test]
fn the_file_itself_is_sound() {
    assert!(table_of(serde_json::from_str(FILE).expect("it is read")).is_some());
}

/// One part of a host or path that programs have been found to read in two ways, or any text.
fn part() -> impl Strategy<Value = String> {
    let odd = [
        "a", "A", ".", "..", "-", "_", "*", "%41", "%2f", "%", "%zz", "é", ":", ":80", "@", "[", "[::1]", "//", "\\",
        "?", "#", " ", "\0",
    ];
    prop_oneof![proptest::sample::select(odd.to_vec()).prop_map(str::to_owned), "[a-z0-9.]{0,8}", any::<String>()]
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(part(), 0..6).prop_map(|parts| parts.concat())
}

/// Names and paths from few words, so that rules and requests meet.
fn few(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(words), 1..4).prop_map(|words| words.concat())
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let host = proptest::option::of(proptest::sample::select(vec!["a.test", "b.test", "*.test", "c.a.test"]));
    let route = (host, few(&["/a", "/b", "/a/b", "/"]), any::<bool>()).prop_map(|(host, path, exact)| Route {
        exact,
        ..Route::new(host.map(str::to_owned), path.replace("//", "/"), ProcessName::default_name())
    });
    proptest::collection::vec(route, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_host_has_one_form(text in text()) {
        if let Ok(canonical) = host::canonical(&text) {
            prop_assert_eq!(host::canonical(&canonical), Ok(canonical.clone()));
            prop_assert!(!canonical.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || byte >= 0x7f));
            prop_assert!(!preview::masked(&canonical).is_empty());
        }
    }

    #[test]
    fn a_rule_that_takes_a_request_is_the_last_that_is_looked_at(
        routes in routes(),
        asked in proptest::sample::select(vec!["a.test", "b.test", "x.test", "c.a.test", "other"]),
        path in few(&["/a", "/b", "/c", "/"]),
    ) {
        let (environment, app) = (EnvironmentName::default_name(), AppName::parse("shop").expect("a name"));
        let section = RouteSection {
            environment: environment.clone(), app: app.clone(), live: None, routes, pools: BTreeMap::new(), hold: false,
            maintenance: None, drain: Drain { requests_ms: 1, streams_ms: 1 }, cohorts: Vec::new(), preview: None,
            mirror: None, notice: None, tls: Tls::default(),
        };
        let Ok(table) = Table::new(&BTreeMap::from([(SectionKey::app(&environment, &app), section)])) else { return Ok(()) };
        let (head, path) = (RequestHead::default(), path.replace("//", "/"));
        let ask = Ask { host: Some(asked), path: &path, method: "GET", query: "", fields: &head.fields };
        let found = route::find(&table, &ask);
        let considered = route::considered(&table, &ask);
        prop_assert_eq!(found, considered.iter().find(|(_, takes)| takes.is_ok()).map(|(rule, _)| *rule));
        let earlier = considered.len().saturating_sub(usize::from(found.is_some()));
        prop_assert!(considered[..earlier].iter().all(|(_, takes)| takes.is_err()));
        if let Some(rule) = found {
            prop_assert!(path.starts_with(rule.route.path.trim_end_matches('/')), "{} for {}", rule.route.path, path);
            let fits = |host: &str| host == asked || host.strip_prefix("*").is_some_and(|domain| asked.ends_with(domain));
            prop_assert!(rule.route.host.as_deref().is_none_or(fits));
        }
    }

    #[test]
    fn a_table_from_a_broken_disk_is_read_or_refused(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0usize..4), 1..6),
    ) {
        let mut bytes = FILE.as_bytes().to_vec();
        for (at, byte, cut) in changes {
            let at = at.index(bytes.len());
            match cut {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                // A digit or a letter for another one: most of these are well-formed.
                _ => bytes[at] = b"0123456789abcdef-/*."[usize::from(byte) % 20],
            }
        }
        if let Ok(file) = serde_json::from_slice::<TableFile>(&bytes)
            && let Some(table) = table_of(file)
        {
            let head = RequestHead::default();
            let ask = Ask { host: Some("shop.example"), path: "/old", method: "GET", query: "", fields: &head.fields };
            let _ = preview::find(&table, &ask);
        }
    }

    #[test]
    fn a_head_of_anything_is_read_or_refused(lines in proptest::collection::vec(text(), 0..6), target in text()) {
        let bytes = format!("GET {target} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        let mut head = RequestHead::default();
        if head.read(bytes.as_bytes()).is_ok() && let Ok((host, target)) = lb_core::http1::framing::target(&head) {
            let _ = lb_core::http1::framing::of_request(&head);
            let _ = (host.map(host::canonical), lb_core::path::canonical(target));
        }
    }
}
