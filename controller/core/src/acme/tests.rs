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
    let (mut runs, mut releases) = (BTreeMap::new(), BTreeMap::new());
    for (app, hosts) in apps {
        let slots = BTreeMap::from([(Slot::Blue, 1), (Slot::Green, 2)]);
        runs.insert(key(app), Run { live: Some(Slot::Blue), slots, ..Run::default() });
        let both = [(1, release(app, 1, hosts)), (2, release(app, 2, &["idle.example"]))];
        releases.insert(key(app), BTreeMap::from(both));
    }
    Wanted::of(&runs, &releases, uploaded, "apps.example")
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
fn only_hosts_that_one_proof_is_enough_for_are_asked_for() {
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
    ] {
        assert_eq!(hosts(&wanted(&[("shop", &[host])], &none)), if expect { vec![host] } else { vec![] }, "{host}");
    }
    let mut uploaded = Uploaded::default();
    uploaded.insert("1".to_owned(), certificate("*.shop.example b.example", 0, 1));
    let found = wanted(&[("shop", &["www.shop.example", "shop.example", "b.example"])], &uploaded);
    assert_eq!(hosts(&found), ["shop.example"], "what people uploaded is enough, even when it ended");
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
    let order = || AcmeOrder { url: String::new(), key: PrivateKey(String::new()), challenges: BTreeMap::new() };
    let got = || AcmeRecord { certificate: Some(certificate("shop.example", 0, 90 * DAY)), ..AcmeRecord::default() };
    for (what, record, now, expect) in [
        ("nothing", None, 5, 5),
        ("a new one", Some(got()), 5, 60 * DAY),
        ("one that ages", Some(got()), 61 * DAY, 61 * DAY),
        ("one that was renewed in vain", Some(AcmeRecord { retry_unix_ms: 62 * DAY, ..got() }), 61 * DAY, 62 * DAY),
        ("an order", Some(AcmeRecord { order: Some(order()), ..got() }), 5, 5),
        ("a failure", Some(AcmeRecord { retry_unix_ms: 9, ..AcmeRecord::default() }), 5, 9),
        ("a failure long ago", Some(AcmeRecord { retry_unix_ms: 9, ..AcmeRecord::default() }), 10, 10),
    ] {
        let records = record.map(|record| ("shop.example".to_owned(), record)).into_iter().collect();
        assert_eq!(next(&records, &wanted, now), Some(("shop.example".to_owned(), expect)), "{what}");
    }
    assert_eq!(next(&BTreeMap::new(), &Wanted::default(), 5), None);
}

#[test]
fn an_order_goes_first_and_a_new_host_before_a_renewal() {
    let wanted = wanted(&[("shop", &["a.example", "b.example", "c.example", "d.example"])], &Uploaded::default());
    let order = AcmeOrder { url: String::new(), key: PrivateKey(String::new()), challenges: BTreeMap::new() };
    let mut records = BTreeMap::from([
        ("a.example".to_owned(), AcmeRecord { retry_unix_ms: 1000, ..AcmeRecord::default() }),
        (
            "b.example".to_owned(),
            AcmeRecord { certificate: Some(certificate("b.example", 0, 90)), ..AcmeRecord::default() },
        ),
        ("d.example".to_owned(), AcmeRecord { order: Some(order), ..AcmeRecord::default() }),
    ]);
    for expect in ["d.example", "c.example", "b.example", "a.example"] {
        let (host, at) = next(&records, &wanted, 100).expect("one is next");
        assert_eq!((host.as_str(), at), (expect, if expect == "a.example" { 1000 } else { 100 }));
        records.insert(host, AcmeRecord { retry_unix_ms: 2000, ..AcmeRecord::default() });
    }
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
}

#[test]
fn failures_wait_a_minute_and_twice_as_long_each_time() {
    const MINUTE: u64 = 60_000;
    for (failures, most) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 360), (11, 360), (u32::MAX, 360)] {
        assert_eq!(pause_ms(failures, 0), most * MINUTE, "after {failures}");
        for draw in [1, 12_345, u64::MAX] {
            let pause = pause_ms(failures, draw);
            assert!(pause <= most * MINUTE && pause > most * MINUTE / 4 * 3, "after {failures}: {pause}");
        }
    }
}
