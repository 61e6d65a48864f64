//! A controller in process, on a state that has an app in it, asked over HTTP.

use std::time::Duration;

use appbase_core::v1::{Certificate, PrivateKey, TableUpdate};
use controller_core::v1::api::{AuthorityView, CertificateAnswer, CertificateRequest, EventView};
use kit::client::ClientError;
use kit::problem::Problem;
use lb_core::v1::RouteSection;
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;

use super::*;
use crate::records;
use crate::stage::{Controller, LIMIT, go_live, shop};
use crate::store::SqliteStore;

impl Controller {
    /// The certificates of the shop's section, once it is `so`.
    async fn shown(&self, so: impl Fn(&[Certificate]) -> bool) -> Vec<Certificate> {
        let status = serde_json::json!({"kind": "lb", "boot": "b1"});
        let put = self.api.call::<_, serde_json::Value>(Method::PUT, "/v1/members/lb-1/status", &status, LIMIT);
        put.await.expect("a member is heard");
        let mut after = String::new();
        for _ in 0..50 {
            let path = format!("/v1/members/lb-1/table?kind=lb&wait=5{after}");
            let update: Option<TableUpdate<RouteSection>> = self.api.get(&path, LIMIT).await.expect("a table");
            let update = update.expect("something new in time");
            let shop = update.sections.get(&shop()).expect("the shop's section").clone();
            if so(&shop.tls.certificates) {
                return shop.tls.certificates;
            }
            after = format!("&after={}.{}&cluster=c1", update.generation.epoch, update.generation.number);
        }
        panic!("the table never becomes so");
    }

    async fn add(&self, chain: &str, key: &str) -> Result<CertificateAnswer, Problem> {
        let request = CertificateRequest { chain: chain.to_owned(), key: PrivateKey(key.to_owned()) };
        let answer = self.api.call(Method::POST, "/v1/certificates", &request, LIMIT).await;
        answer.map_err(problem)
    }

    async fn remove(&self, id: &str) -> Result<(), Problem> {
        let path = format!("/v1/certificates/{}", id.replace('/', "%2F"));
        self.api.send(self.api.request(Method::DELETE, &path).timeout(LIMIT)).await.map(|_| ()).map_err(problem)
    }
}

fn problem(error: ClientError) -> Problem {
    match error {
        ClientError::Refused(problem) => problem,
        other => panic!("{other}"),
    }
}

/// A certificate that lasts so many days from now, with its key.
fn made(names: &[&str], days: u64) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names");
    let now = Duration::from_millis(kit::Clock::start().unix_ms());
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(days * 86_400);
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

fn names(certificate: &Certificate) -> Vec<&str> {
    certificate.names.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_local_certificate_is_made_once_and_again_for_other_hosts() {
    let data = tempfile::tempdir().expect("a directory");
    go_live(data.path(), 1, &["shop.localhost", "shop.platform", "shop.example.org"]).await;
    let controller = Controller::start(data.path()).await;
    let first = controller.shown(|shown| shown.len() == 1).await;
    assert_eq!(names(&first[0]), ["shop.localhost", "shop.platform"]);
    let authority: AuthorityView = controller.api.get("/v1/authority", LIMIT).await.expect("an authority");
    assert_eq!(authority.domains.iter().map(String::as_str).collect::<Vec<_>>(), ["localhost", "platform"]);
    let [view] = &controller.list().await[..] else { panic!("one certificate") };
    assert_eq!((view.id.as_str(), view.source.as_str()), ("local:production/shop", "local"));
    assert_eq!(view.apps, [shop()]);
    let refused = controller.remove(&view.id).await.expect_err("it is the controller's own");
    assert_eq!((refused.status, refused.code.as_str()), (409, "local-certificate"));
    controller.stop().await;

    let controller = Controller::start(data.path()).await;
    assert_eq!(controller.shown(|shown| shown.len() == 1).await, first, "the same records give the same table");
    controller.stop().await;

    go_live(data.path(), 2, &["shop.localhost", "new.localhost"]).await;
    let controller = Controller::start(data.path()).await;
    let other = controller.shown(|shown| shown.iter().any(|one| one.names.contains("new.localhost"))).await;
    assert_eq!(names(&other[0]), ["new.localhost", "shop.localhost"]);
    assert_ne!(other[0].key, first[0].key);
    let same: AuthorityView = controller.api.get("/v1/authority", LIMIT).await.expect("an authority");
    assert_eq!(same, authority, "who trusted it goes on to");
    controller.stop().await;

    go_live(data.path(), 3, &["shop.example.org"]).await;
    let controller = Controller::start(data.path()).await;
    controller.shown(<[_]>::is_empty).await;
    assert!(controller.list().await.is_empty());
    controller.stop().await;
}

#[tokio::test]
async fn a_certificate_that_ages_is_made_anew_by_the_same_authority() {
    const DAY_MS: u64 = 86_400_000;
    let data = tempfile::tempdir().expect("a directory");
    go_live(data.path(), 1, &["shop.localhost"]).await;
    let (old, aged) = {
        let store = SqliteStore::open(data.path()).expect("a store");
        let records = std::sync::Mutex::new(Records::load(&store, || panic!("it is there")).await.expect("records"));
        let then = kit::Clock::start().unix_ms() - 61 * DAY_MS;
        let old = authority::new(&"c1".parse().expect("a name"), "platform", then).expect("made");
        let names = BTreeSet::from(["shop.localhost".to_owned()]);
        let aged = authority::issue(&old, &shop(), &names, then).expect("made");
        let writes = vec![Write::Authority(Box::new(old.clone())), Write::Leaf(shop(), Box::new(aged.clone()))];
        records::commit(&store, &records, writes).await.expect("written");
        (old, aged)
    };
    let controller = Controller::start(data.path()).await;
    let renewed = controller.shown(|shown| shown.iter().any(|one| *one != aged.certificate)).await;
    assert_eq!(renewed[0].names, aged.certificate.names);
    let [view] = &controller.list().await[..] else { panic!("one certificate") };
    assert!(view.until_unix_ms > aged.until_unix_ms + 60 * DAY_MS && view.fingerprint != Some(aged.fingerprint));
    let authority: AuthorityView = controller.api.get("/v1/authority", LIMIT).await.expect("an authority");
    assert_eq!(authority.fingerprint, old.fingerprint);
    controller.stop().await;
}

#[tokio::test]
async fn what_people_upload_is_shown_replaced_and_taken_away() {
    let data = tempfile::tempdir().expect("a directory");
    go_live(data.path(), 1, &["shop.localhost", "shop.example.org"]).await;
    let controller = Controller::start(data.path()).await;
    controller.shown(|shown| shown.len() == 1).await;

    let (chain, key) = made(&["shop.example.org", "*.localhost"], 10);
    let added = controller.add(&chain, &key).await.expect("taken");
    assert_eq!((added.outcome.as_str(), &added.certificate.apps[..]), ("added", &[shop()][..]));
    let shown = controller.shown(|shown| shown.iter().any(|one| one.names.contains("shop.example.org"))).await;
    assert_eq!(shown.len(), 1, "it covers all hosts");
    assert_eq!(controller.add(&chain, &key).await.expect("taken").outcome, "unchanged");

    let (newer, its) = made(&["*.localhost", "shop.example.org"], 90);
    let replaced = controller.add(&newer, &its).await.expect("taken");
    assert_eq!((replaced.outcome.as_str(), &replaced.certificate.id), ("replaced", &added.certificate.id));
    let shown = controller.shown(|shown| shown.first().is_some_and(|one| one.chain == newer)).await;
    assert_eq!((shown.len(), &shown[0].key.0), (1, &its));
    let listed = controller.list().await;
    let sources: Vec<_> = listed.iter().map(|view| (view.source.as_str(), view.apps.len())).collect();
    assert_eq!(sources, [("uploaded", 1), ("local", 0)]);

    let refused = controller.add(&newer, &key).await.expect_err("another's key");
    assert_eq!((refused.status, refused.code.as_str()), (422, "other-key"));
    let large = controller.add(&newer.repeat(100), &its).await.expect_err("too large");
    assert_eq!((large.status, large.code.as_str()), (413, "certificate-too-large"));
    controller.stop().await;

    let controller = Controller::start(data.path()).await;
    assert_eq!(controller.shown(|shown| !shown.is_empty()).await, shown, "it is kept");
    controller.remove(&added.certificate.id).await.expect("removed");
    let local = controller.shown(|shown| shown.iter().any(|one| one.names.contains("shop.localhost"))).await;
    assert_eq!(names(&local[0]), ["shop.localhost"], "and the local one is there for its own again");
    let unknown = controller.remove(&added.certificate.id).await.expect_err("gone");
    assert_eq!((unknown.status, unknown.code.as_str()), (404, "unknown-certificate"));

    let events: Vec<EventView> = controller.api.get("/v1/events", LIMIT).await.expect("events");
    let said: Vec<String> = events.iter().map(|event| format!("{:?} {}", event.kind, event.text)).collect();
    let count = |words: &str| said.iter().filter(|line| line.contains(words)).count();
    assert_eq!([count("shop.example.org added by"), count("replaced by"), count("removed by")], [1, 1, 1], "{said:#?}");
    assert_eq!([count("CertificateIssued local authority"), count("local authority for shop.localhost")], [1, 1]);
    assert_eq!(count("PRIVATE"), 0);
    controller.stop().await;
}

#[tokio::test]
async fn people_are_told_of_what_ends() {
    let data = tempfile::tempdir().expect("a directory");
    let controller = Controller::start(data.path()).await;
    let (chain, key) = made(&["soon.example"], 3);
    let added = controller.add(&chain, &key).await.expect("taken");
    let (chain, key) = made(&["later.example"], 30);
    controller.add(&chain, &key).await.expect("taken");
    let mut after = 0;
    let told = tokio::time::timeout(LIMIT, async {
        loop {
            let events: Vec<EventView> =
                controller.api.get(&format!("/v1/events?after={after}"), LIMIT).await.expect("events");
            after = events.last().map_or(after, |event| event.number);
            if let Some(event) = events.into_iter().find(|event| event.kind == EventKind::CertificateEnds) {
                return event.text;
            }
            tokio::task::yield_now().await;
        }
    });
    let told = told.await.expect("told in time");
    assert!(told.contains(&added.certificate.id) && told.contains("ends in 2 d"), "{told}");
    controller.stop().await;
}
