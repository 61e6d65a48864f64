use appbase_core::v1::{Policy, PrivateKey, Release, TrafficSpec};
use appbase_core::{AppName, EnvironmentName, ProcessName, Slot, Version};
use proptest::prelude::*;

use super::*;

const DAY: u64 = DAY_MS;

/// What the index must agree with: `*` is exactly one label.
fn covers(name: &str, host: &str) -> bool {
    let (of_name, of_host) = (split(name), split(host));
    name == host || (of_name.0 == "*" && of_host.0 != "*" && !of_host.1.is_empty() && of_name.1 == of_host.1)
}

fn names(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn record(text: &str, until_unix_ms: u64) -> CertificateRecord {
    CertificateRecord {
        certificate: Certificate {
            names: names(text),
            chain: format!("chain {text}"),
            key: PrivateKey("key".to_owned()),
        },
        fingerprint: Digest::of(text.as_bytes()),
        issuer: "somebody".to_owned(),
        authority: None,
        from_unix_ms: 0,
        until_unix_ms,
    }
}

fn uploaded(records: &[(&str, &str, u64)]) -> Uploaded {
    let mut uploaded = Uploaded::default();
    for (id, names, until) in records {
        uploaded.insert((*id).to_owned(), record(names, *until));
    }
    uploaded
}

/// `*` alone is a route for every host.
fn routes(hosts: &str) -> Vec<Route> {
    let host = |host: &str| (host != "*").then(|| host.to_owned());
    hosts.split_whitespace().map(|text| Route::new(host(text), "/", ProcessName::default_name())).collect()
}

#[test]
fn a_wildcard_is_exactly_one_label() {
    for (name, host, expect) in [
        ("a.example", "a.example", true),
        ("a.example", "b.example", false),
        ("*.example", "a.example", true),
        ("*.example", "a.b.example", false),
        ("*.example", "example", false),
        ("*.example", "*.example", true),
        ("a.example", "*.example", false),
        ("*.b.example", "a.b.example", true),
        ("*.b.example", "a.c.example", false),
        ("*.xample", "a.example", false),
        ("localhost", "localhost", true),
    ] {
        assert_eq!(uploaded(&[("1", name, 0)]).covers(host), expect, "{name} for {host}");
        assert_eq!(covers(name, host), expect, "{name} for {host}, said plainly");
    }
}

#[test]
fn those_for_a_host_are_shown() {
    let uploaded = uploaded(&[
        ("org", "example.org www.example.org", 10),
        ("new", "www.example.org", 20),
        ("wild", "*.example.org", 5),
        ("deep", "a.b.example.org", 30),
        ("other", "example.net", 40),
    ]);
    let chosen = |hosts: &str| Offer { uploaded: Some(&uploaded), ..Offer::default() }.chosen(&routes(hosts)).join(" ");
    assert_eq!(chosen("example.org"), "org");
    assert_eq!(chosen("www.example.org"), "new org wild", "the one that lasts longest is first");
    assert_eq!(chosen("shop.example.org"), "wild");
    assert_eq!(chosen("*.example.org"), "new org wild", "some of its hosts are theirs");
    assert_eq!(chosen("a.b.example.org example.net"), "other deep");
    assert_eq!(chosen("*"), "other deep new org wild", "every host");
    assert_eq!(chosen("shop.platform"), "");
    assert_eq!(Offer::default().chosen(&routes("example.org *")), Vec::<&str>::new());
}

#[test]
fn a_local_one_is_for_what_nothing_uploaded_covers() {
    let local = record("shop.localhost shop.platform shop.production.platform", 50);
    let shown = |uploaded: &[(&str, &str, u64)], hosts: &str| -> Vec<BTreeSet<String>> {
        let uploaded = self::uploaded(uploaded);
        let offer = Offer { uploaded: Some(&uploaded), local: Some(&local), acme: None };
        let shown = offer.shown(&routes(hosts));
        assert_eq!(offer.shows_local(&routes(hosts)), shown.iter().any(|one| one.chain == local.certificate.chain));
        shown.into_iter().map(|certificate| certificate.names).collect()
    };
    let hosts = "shop.localhost shop.platform shop.example.org";
    assert_eq!(shown(&[], hosts), [names("shop.localhost shop.platform")], "no name of another release's routes");
    let platform = ("p", "*.platform", 1);
    assert_eq!(shown(&[platform], hosts), [names("*.platform"), names("shop.localhost")], "uploaded before local");
    let localhost = ("l", "shop.localhost", 1);
    assert_eq!(shown(&[platform, localhost], hosts), [names("shop.localhost"), names("*.platform")]);
    assert_eq!(shown(&[], "shop.example.org *"), Vec::<BTreeSet<String>>::new());
}

#[test]
fn what_an_authority_of_the_world_made_stands_between_both() {
    use crate::v1::state::AcmeOrder;
    let local = record("shop.localhost", 50);
    let of = |host: &str| AcmeRecord { certificate: Some(record(host, 10)), ..AcmeRecord::default() };
    let challenges = BTreeMap::from([("t".to_owned(), "t.k".to_owned())]);
    let handshake = Some(record("c.example", 1).certificate);
    let order = |text: &str| AcmeOrder {
        url: String::new(),
        key: PrivateKey("key".to_owned()),
        challenges: challenges.clone(),
        texts: names(text),
        handshake: handshake.clone(),
    };
    let asked = |text: &str| AcmeRecord { order: Some(order(text)), ..AcmeRecord::default() };
    let acme = BTreeMap::from([
        ("a.example".to_owned(), of("a.example")),
        ("b.example".to_owned(), of("b.example")),
        ("c.example".to_owned(), asked("t1")),
        ("*.c.example".to_owned(), asked("t2")),
    ]);
    let uploaded = uploaded(&[("1", "b.example", 1)]);
    let offer = Offer { uploaded: Some(&uploaded), local: Some(&local), acme: Some(&acme) };
    let shown = |hosts: &str| -> Vec<String> {
        offer.shown(&routes(hosts)).into_iter().map(|one| one.names.into_iter().collect()).collect()
    };
    let all = "a.example b.example c.example shop.localhost";
    assert_eq!(shown(all), ["b.example", "a.example", "shop.localhost"], "once each, and none that is not there");
    assert_eq!(offer.acme_hosts(&routes(all)), ["a.example"]);
    assert_eq!(shown("shop.localhost *.example"), ["b.example", "shop.localhost"], "a wildcard is no host of it");
    assert_eq!(offer.challenges(&routes(all)), challenges);
    assert_eq!(offer.challenges(&routes("a.example")), BTreeMap::new());
    let texts = |hosts: &str| offer.texts(&routes(hosts));
    assert_eq!(texts(all), BTreeMap::from([("_acme-challenge.c.example".to_owned(), names("t1"))]));
    assert_eq!(texts("c.example *.c.example")["_acme-challenge.c.example"], names("t1 t2"), "one name for both");
    assert_eq!(texts("a.example shop.localhost"), BTreeMap::new());
    assert_eq!(offer.handshakes(&routes(all)), handshake.into_iter().collect::<Vec<_>>());
    assert_eq!(offer.handshakes(&routes("a.example")), []);
}

#[test]
fn one_that_is_replaced_or_removed_is_found_no_more() {
    let mut kept = uploaded(&[("1", "a.example b.example", 1)]);
    kept.insert("1".to_owned(), record("b.example", 2));
    assert!(!kept.covers("a.example") && kept.covers("b.example"));
    kept.remove("1");
    kept.remove("unknown");
    assert!(!kept.covers("b.example") && kept.records().is_empty() && kept.by_name.is_empty());
}

fn release(number: ReleaseNumber, hosts: &str) -> ReleaseRecord {
    let release = Release {
        needs: Vec::new(),
        app: AppName::parse("shop").expect("a name"),
        environment: EnvironmentName::default_name(),
        number,
        version: Version::parse("1").expect("a version"),
        processes: BTreeMap::new(),
        traffic: TrafficSpec { routes: routes(hosts), processes: BTreeMap::new(), policy: Policy::default() },
    };
    let (document, scale) = (Digest::of(b"document"), BTreeMap::new());
    ReleaseRecord { document, release, scale, made_unix_ms: 0, overlay: Default::default() }
}

#[test]
fn local_names_are_those_of_the_releases_in_either_slot() {
    let own = release(1, "shop.localhost shop.platform *.shop.platform shop.example.org * Bad_.platform");
    let releases = BTreeMap::from([(1, own), (2, release(2, "new.platform")), (3, release(3, "old.platform"))]);
    let of = |slots: &[(Slot, ReleaseNumber)]| {
        let run = Run { live: Some(Slot::Blue), slots: slots.iter().copied().collect(), ..Run::default() };
        local_names(&run, &releases, &local_domains("platform"))
    };
    let blue = "localhost shop.localhost shop.platform *.shop.platform";
    assert_eq!(of(&[(Slot::Blue, 1)]).names, names(blue));
    assert_eq!(of(&[(Slot::Blue, 1), (Slot::Green, 2)]).names, names(&format!("{blue} new.platform")));
    assert_eq!(of(&[]), LocalNames::default());

    let many: String = (0..105).map(|number| format!("a{number:03}.localhost ")).collect();
    let releases = BTreeMap::from([(1, release(1, &many))]);
    let run = Run { slots: BTreeMap::from([(Slot::Blue, 1)]), ..Run::default() };
    let found = local_names(&run, &releases, &local_domains("platform"));
    assert_eq!((found.names.len(), found.left_out), (LOCAL_NAMES_MAX, 5));
}

#[test]
fn what_is_below_a_domain() {
    let below = |host: &str| local_domains("apps.example").iter().any(|domain| is_below(host, domain));
    for (host, expect) in [
        ("localhost", true),
        ("shop.localhost", true),
        ("*.shop.localhost", true),
        ("mylocalhost", false),
        ("localhost.example", false),
        ("apps.example", true),
        ("shop.staging.apps.example", true),
        ("shop.example", false),
        ("", false),
    ] {
        assert_eq!(below(host), expect, "{host}");
    }
}

#[test]
fn a_leaf_is_made_when_it_is_due_and_never_otherwise() {
    let authority = Digest::of(b"authority");
    let leaf = CertificateRecord { authority: Some(authority), ..record("a.localhost", 90 * DAY) };
    let wanted = names("a.localhost");
    let made = |names: &BTreeSet<String>| Some(Due::Issue(names.clone()));
    assert_eq!(due(None, &wanted, &authority, 0), made(&wanted), "the first");
    for (now, expect) in [(0, None), (60 * DAY - 1, None), (60 * DAY, made(&wanted)), (91 * DAY, made(&wanted))] {
        assert_eq!(due(Some(&leaf), &wanted, &authority, now), expect, "two thirds of 90 days, on day {}", now / DAY);
    }
    let more = names("a.localhost b.localhost");
    assert_eq!(due(Some(&leaf), &more, &authority, 0), made(&more), "another host");
    assert_eq!(due(Some(&leaf), &wanted, &Digest::of(b"other"), 0), made(&wanted), "another authority");
    assert_eq!(due(Some(&leaf), &BTreeSet::new(), &authority, 0), Some(Due::Forget));
    assert_eq!(due(None, &BTreeSet::new(), &authority, 0), None);
    let ahead = CertificateRecord { from_unix_ms: 2, ..leaf };
    assert_eq!(due(Some(&ahead), &wanted, &authority, 1), made(&wanted), "the clock was ahead");
    assert_eq!(due(Some(&ahead), &wanted, &authority, 2), None);
}

#[test]
fn what_is_renewed_by_itself_is_late_when_little_is_left() {
    for (life, now, expect) in [(90, 76, false), (90, 77, true), (90, 100, true), (6, 4, false), (6, 6, true)] {
        let record = CertificateRecord { until_unix_ms: life * DAY, ..record("a.example", 0) };
        assert_eq!(is_overdue(&record, now * DAY), expect, "{life} days, on day {now}");
    }
}

#[test]
fn an_authority_lasts_until_its_domains_or_its_time_are_over() {
    let authority = AuthorityRecord {
        certificate: String::new(),
        key: PrivateKey("key".to_owned()),
        fingerprint: Digest::of(b"authority"),
        domains: local_domains("platform"),
        from_unix_ms: 0,
        until_unix_ms: 3650 * DAY,
    };
    assert!(is_authority_due(None, "platform", 0));
    assert!(!is_authority_due(Some(&authority), "platform", 3550 * DAY));
    assert!(is_authority_due(Some(&authority), "platform", 3550 * DAY + 1), "a leaf of 90 days still fits in");
    assert!(is_authority_due(Some(&authority), "apps.example", 0));
    let ahead = AuthorityRecord { from_unix_ms: 10 * DAY, ..authority };
    assert!(is_authority_due(Some(&ahead), "platform", 9 * DAY - 1), "the clock was ahead");
    assert!(!is_authority_due(Some(&ahead), "platform", 9 * DAY), "a wait of a day is better than another authority");
}

#[test]
fn people_are_warned_in_the_last_two_weeks() {
    for (until, now, expect) in [(30, 0, false), (14, 0, false), (14, 1, true), (14, 20, true)] {
        assert_eq!(ends_soon(until * DAY, now * DAY), expect, "{until} on day {now}");
    }
}

#[test]
fn an_id_is_of_the_names_alone() {
    let one = id(&names("www.example.org example.org"));
    assert_eq!(one, id(&names("example.org www.example.org")));
    assert!(one.starts_with("example.org-") && one.len() == "example.org-".len() + ID_HEX, "{one}");
    assert_ne!(one, id(&names("example.org")));
    assert!(id(&names("*.example.org")).starts_with("wildcard.example.org-"));
    assert!(id(&names("*.example.org example.org")).starts_with("example.org-"));
    assert!(!one.contains('/') && local_id(&SectionKey::Platform).contains(':'));
}

proptest! {
    #[test]
    fn the_index_says_what_looking_at_each_says(
        certificates in prop::collection::vec(prop::collection::btree_set("(\\*\\.|[ab]\\.)?[ab](\\.[ab])?", 1..4), 0..6),
        host in "(\\*\\.|[ab]\\.)?[ab](\\.[ab])?",
    ) {
        let mut kept = Uploaded::default();
        for (number, names) in certificates.iter().enumerate() {
            let mut record = record("", number as u64);
            record.certificate.names = names.clone();
            kept.insert(number.to_string(), record);
        }
        let all = || certificates.iter().enumerate();
        let good = |names: &BTreeSet<String>| names.iter().any(|name| covers(name, &host));
        prop_assert_eq!(kept.covers(&host), all().any(|(_, names)| good(names)));
        // A wildcard's host is in part that of whoever it covers.
        let part = |names: &BTreeSet<String>| good(names) || names.iter().any(|name| covers(&host, name));
        let expect: Vec<String> = all().filter(|(_, names)| part(names)).map(|(number, _)| number.to_string()).collect();
        let found: Vec<String> = kept.for_host(&host).into_iter().map(str::to_owned).collect();
        prop_assert_eq!(found, expect);
    }
}
