use appbase_core::v1::{Certificate, Policy, PrivateKey, Release, Route, TrafficSpec};
use appbase_core::{AppName, Digest, EnvironmentName, ProcessName, Slot, Version};

use super::*;
use crate::v1::state::{AcmeOrder, CertificateRecord};

const DAY: u64 = 24 * 3_600_000;

fn key(app: &str) -> SectionKey {
    SectionKey::app(&EnvironmentName::default_name(), &AppName::parse(app).expect("a name"))
}

fn release(app: &str, number: u64, hosts: &[&str]) -> ReleaseRecord {
    let host = |host: &str| (host != "*").then(|| host.to_owned());
    let routes = hosts.iter().map(|text| Route::new(host(text), "/", ProcessName::default_name())).collect();
    let release = Release {
        needs: Vec::new(),
        app: AppName::parse(app).expect("a name"),
        environment: EnvironmentName::default_name(),
        number,
        version: Version::parse("1").expect("a version"),
        processes: BTreeMap::new(),
        traffic: TrafficSpec { routes, processes: BTreeMap::new(), policy: Policy::default() },
    };
    let (document, scale) = (Digest::of(b"document"), BTreeMap::new());
    ReleaseRecord { document, release, scale, made_unix_ms: 0, overlay: Default::default() }
}

/// Apps with one live release each, and another in the idle slot that has `idle.example`.
fn wanted(apps: &[(&str, &[&str])], uploaded: &Uploaded) -> Wanted {
    wanted_with(apps, uploaded, &BTreeMap::new())
}

fn reach() -> Reach {
    Reach { domain: "apps.example".to_owned(), names: ["zone.example".to_owned()].into(), by_handshake: false }
}

fn wanted_with(apps: &[(&str, &[&str])], uploaded: &Uploaded, records: &BTreeMap<String, AcmeRecord>) -> Wanted {
    let (mut runs, mut releases) = (BTreeMap::new(), BTreeMap::new());
    for (app, hosts) in apps {
        let slots = BTreeMap::from([(Slot::Blue, 1), (Slot::Green, 2)]);
        runs.insert(key(app), Run { live: Some(Slot::Blue), slots, ..Run::default() });
        let both = [(1, release(app, 1, hosts)), (2, release(app, 2, &["idle.example"]))];
        releases.insert(key(app), BTreeMap::from(both));
    }
    Wanted::of(&runs, &releases, uploaded, records, &reach())
}

fn hosts(wanted: &Wanted) -> Vec<&str> {
    wanted.hosts.keys().map(String::as_str).collect()
}

fn certificate(names: &str, from: u64, until: u64) -> CertificateRecord {
    CertificateRecord {
        certificate: Certificate {
            names: names.split_whitespace().map(str::to_owned).collect(),
            chain: String::new(),
            key: PrivateKey(String::new()),
        },
        fingerprint: Digest::of(names.as_bytes()),
        issuer: String::new(),
        authority: None,
        from_unix_ms: from,
        until_unix_ms: until,
    }
}

#[test]
fn only_hosts_that_can_be_shown_to_be_ours_are_asked_for() {
    let none = Uploaded::default();
    for (host, expect) in [
        ("shop.example", true),
        ("www.shop.example", true),
        ("xn--bcher-kva.example", true),
        ("*.shop.example", false),
        ("*", false),
        ("shop", false),
        ("localhost", false),
        ("shop.localhost", false),
        ("apps.example", false),
        ("shop.apps.example", false),
        ("myapps.example", true),
        ("10.0.0.1", false),
        ("shop_1.example", false),
        ("*.zone.example", true),
        ("*.shop.zone.example", true),
        ("*.otherzone.example", false),
    ] {
        assert_eq!(hosts(&wanted(&[("shop", &[host])], &none)), if expect { vec![host] } else { vec![] }, "{host}");
    }
    let mut uploaded = Uploaded::default();
    uploaded.insert("1".to_owned(), certificate("*.shop.example b.example", 0, 1));
    let found = wanted(&[("shop", &["www.shop.example", "shop.example", "b.example"])], &uploaded);
    assert_eq!(hosts(&found), ["shop.example"], "what people uploaded is enough, even when it ended");
}

#[test]
fn each_host_is_shown_to_be_ours_in_its_way() {
    let of = |by_handshake, names: &str, host: &str| {
        let names = names.split_whitespace().map(str::to_owned).collect();
        Reach { domain: "apps.example".to_owned(), names, by_handshake }.proof(host)
    };
    assert_eq!(of(false, "", "shop.example"), Some(Proof::Http));
    assert_eq!(of(true, "", "shop.example"), Some(Proof::Handshake));
    assert_eq!(of(true, "shop.example", "www.shop.example"), Some(Proof::Names));
    assert_eq!(of(false, "shop.example", "*.shop.example"), Some(Proof::Names));
    assert_eq!(of(false, "", "shop.apps.example"), None, "the local authority is for it");
    assert_eq!(of(false, "apps.example", "shop.apps.example"), Some(Proof::Names));
    assert_eq!(of(false, "localhost", "shop.localhost"), None);
    assert_eq!(of(false, "example", "*.example"), None, "no authority signs for a whole ending");
    assert_eq!(text_name("*.shop.example"), text_name("shop.example"));
    assert_eq!(text_name("shop.example"), "_acme-challenge.shop.example");
}

#[test]
fn hosts_that_are_known_have_their_places_first() {
    let many: Vec<String> = (0..APP_HOSTS_MAX).map(|number| format!("a{number:03}.example")).collect();
    let mut hosts: Vec<&str> = many.iter().map(String::as_str).collect();
    hosts.push("z.example");
    let (none, known) = (BTreeMap::new(), BTreeMap::from([("z.example".to_owned(), AcmeRecord::default())]));
    let of = |records| wanted_with(&[("shop", &hosts)], &Uploaded::default(), records);
    assert!(!of(&none).hosts.contains_key("z.example"));
    let found = of(&known);
    assert!(found.hosts.contains_key("z.example") && !found.hosts.contains_key("a099.example"));
    assert_eq!((found.hosts.len(), found.left_out), (APP_HOSTS_MAX, 1));
}

#[test]
fn apps_share_hosts_and_have_only_so_many() {
    let none = Uploaded::default();
    let shared = wanted(&[("one", &["a.example", "b.example"]), ("two", &["a.example"])], &none);
    assert_eq!(shared.hosts["a.example"], BTreeSet::from([key("one"), key("two")]));
    assert_eq!(shared.hosts["b.example"], BTreeSet::from([key("one")]));

    let many: Vec<String> = (0..APP_HOSTS_MAX + 5).map(|number| format!("a{number:03}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let found = wanted(&[("one", &many), ("two", &["z.example"])], &none);
    assert_eq!((found.hosts.len(), found.left_out), (APP_HOSTS_MAX + 1, 5));

    let of = |app: usize| (0..APP_HOSTS_MAX).map(move |number| format!("h{number:03}.a{app:02}.example"));
    let all: Vec<(String, Vec<String>)> = (0..11).map(|app| (format!("a{app:02}"), of(app).collect())).collect();
    let all: Vec<(&str, Vec<&str>)> =
        all.iter().map(|(app, hosts)| (app.as_str(), hosts.iter().map(String::as_str).collect())).collect();
    let all: Vec<(&str, &[&str])> = all.iter().map(|(app, hosts)| (*app, hosts.as_slice())).collect();
    let found = wanted(&all, &none);
    assert_eq!((found.hosts.len(), found.left_out), (HOSTS_MAX, APP_HOSTS_MAX));
}

#[test]
fn what_is_missing_or_two_thirds_over_is_due() {
    let wanted = wanted(&[("shop", &["shop.example"])], &Uploaded::default());
    let window = (80 * DAY, 82 * DAY);
    let suggested = |at_unix_ms| Some(AcmeRenewal { window_unix_ms: window, at_unix_ms, look_unix_ms: 0 });
    let got = || AcmeRecord { certificate: Some(certificate("shop.example", 0, 90 * DAY)), ..AcmeRecord::default() };
    for (what, record, now, expect) in [
        ("nothing", None, 5, 5),
        ("a new one", Some(got()), 5, 60 * DAY),
        ("one that ages", Some(got()), 61 * DAY, 61 * DAY),
        ("one that was renewed in vain", Some(AcmeRecord { retry_unix_ms: 62 * DAY, ..got() }), 61 * DAY, 62 * DAY),
        ("an order", Some(AcmeRecord { order: Some(order()), ..got() }), 5, 5),
        ("sooner, as is wanted", Some(AcmeRecord { renewal: suggested(3), ..got() }), 5, 5),
        ("later, as is wanted", Some(AcmeRecord { renewal: suggested(70 * DAY), ..got() }), 5, 70 * DAY),
        ("too late, as is wanted", Some(AcmeRecord { renewal: suggested(85 * DAY), ..got() }), 5, 75 * DAY),
        ("a wait of a clock that was ahead", Some(AcmeRecord { retry_unix_ms: 5 + 2 * DAY, ..got() }), 5, 60 * DAY),
        ("a failure", Some(AcmeRecord { retry_unix_ms: 9, ..AcmeRecord::default() }), 5, 9),
        ("a failure long ago", Some(AcmeRecord { retry_unix_ms: 9, ..AcmeRecord::default() }), 10, 10),
    ] {
        let records = record.map(|record| ("shop.example".to_owned(), record)).into_iter().collect();
        assert_eq!(next(&records, &wanted, &BTreeSet::new(), now), Some(("shop.example".to_owned(), expect)), "{what}");
    }
    assert_eq!(next(&BTreeMap::new(), &Wanted::default(), &BTreeSet::new(), 5), None);
}

fn order() -> AcmeOrder {
    let (challenges, texts, handshake) = Default::default();
    AcmeOrder { url: String::new(), key: PrivateKey(String::new()), challenges, texts, handshake }
}

#[test]
fn hosts_that_failed_hold_nobody_up() {
    let hosts = ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example"];
    let wanted = wanted(&[("shop", &hosts)], &Uploaded::default());
    let of = |name: &str| certificate(name, 0, 90);
    let failed = || AcmeRecord { failures: 3, retry_unix_ms: 50, ..AcmeRecord::default() };
    let records = BTreeMap::from([
        ("a.example".to_owned(), AcmeRecord { retry_unix_ms: 1000, ..AcmeRecord::default() }),
        ("b.example".to_owned(), AcmeRecord { certificate: Some(of("b.example")), ..AcmeRecord::default() }),
        ("d.example".to_owned(), AcmeRecord { order: Some(order()), ..AcmeRecord::default() }),
        ("e.example".to_owned(), failed()),
        ("f.example".to_owned(), AcmeRecord { order: Some(order()), ..failed() }),
        ("g.example".to_owned(), AcmeRecord { certificate: Some(of("g.example")), ..failed() }),
    ]);
    let mut under_way = BTreeSet::new();
    for expect in ["d.example", "c.example", "b.example", "f.example", "g.example", "e.example", "a.example"] {
        let (host, at) = next(&records, &wanted, &under_way, 100).expect("one is next");
        assert_eq!((host.as_str(), at), (expect, if expect == "a.example" { 1000 } else { 100 }));
        under_way.insert(host);
    }
    assert_eq!(next(&records, &wanted, &under_way, 100), None, "all are asked for");
}

#[test]
fn an_authority_is_asked_when_to_renew_as_often_as_it_wants() {
    let wanted = wanted(&[("shop", &["a.example", "b.example", "c.example"])], &Uploaded::default());
    let said = |look_unix_ms| Some(AcmeRenewal { window_unix_ms: (7, 9), at_unix_ms: 8, look_unix_ms });
    let of = |name: &str, renewal| {
        let certificate = Some(certificate(name, 0, 90 * DAY));
        (name.to_owned(), AcmeRecord { certificate, renewal, ..AcmeRecord::default() })
    };
    let records = BTreeMap::from([of("a.example", said(500)), of("b.example", None)]);
    let look = |asked: &[(&str, u64)]| {
        let asked = asked.iter().map(|(host, at)| ((*host).to_owned(), *at)).collect();
        next_look(&records, &wanted, &asked, 100)
    };
    assert_eq!(look(&[]), Some(("b.example".to_owned(), 100)), "it was never asked; one without certificate is not");
    assert_eq!(look(&[("b.example", 600)]), Some(("a.example".to_owned(), 500)));
    assert_eq!(look(&[("b.example", 400)]), Some(("b.example".to_owned(), 400)));
    assert_eq!(look(&[("b.example", 101 + DAY)]), Some(("b.example".to_owned(), 100)), "the clock was ahead");
    assert_eq!(next_look(&records, &Wanted::default(), &BTreeMap::new(), 100), None);

    let first = renewal_in((1000, 2000), 5, None, 12_345);
    assert_eq!((first.at_unix_ms, first.look_unix_ms), (1345, 5));
    assert_eq!(renewal_in((1000, 2000), 6, Some(&first), 1).at_unix_ms, 1345, "the same window, the same moment");
    assert_eq!(renewal_in((1000, 3000), 6, Some(&first), 1).at_unix_ms, 1001);
    assert_eq!(renewal_in((1000, 900), 6, None, u64::MAX).at_unix_ms, 1000, "one that ends before it begins");
}

#[test]
fn a_host_that_left_is_forgotten_after_thirty_days() {
    let (wanted, none) = (wanted(&[("shop", &["shop.example"])], &Uploaded::default()), Wanted::default());
    let host = || "shop.example".to_owned();
    let of = |left_unix_ms| BTreeMap::from([(host(), AcmeRecord { left_unix_ms, ..AcmeRecord::default() })]);
    assert_eq!(notes(&of(None), &wanted, 5), []);
    assert_eq!(notes(&of(None), &none, 5), [Note::Left(host())]);
    assert_eq!(notes(&of(Some(5)), &none, 5 + KEEP_MS - 1), []);
    assert_eq!(notes(&of(Some(5)), &none, 5 + KEEP_MS), [Note::Forget(host())]);
    assert_eq!(notes(&of(Some(5)), &wanted, 6), [Note::Back(host())]);
    assert_eq!(notes(&of(Some(5)), &none, 4), [Note::Left(host())], "the clock was ahead");
}

#[test]
fn failures_wait_a_minute_and_twice_as_long_each_time() {
    const MINUTE: u64 = 60_000;
    for (failures, most) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 360), (11, 360), (u32::MAX, 360)] {
        assert_eq!(pause_ms(failures, None, 0), most * MINUTE, "after {failures}");
        for draw in [1, 12_345, u64::MAX] {
            let pause = pause_ms(failures, None, draw);
            assert!(pause <= most * MINUTE && pause > most * MINUTE / 4 * 3, "after {failures}: {pause}");
        }
    }
    assert_eq!(pause_ms(1, Some(10), 0), MINUTE, "not less than its own");
    assert_eq!(pause_ms(1, Some(3_600_000), 7), 3_600_000, "an hour was asked for");
    assert_eq!(pause_ms(1, Some(u64::MAX), 7), DAY);
}
