//! A controller in process between a stand-in authority and a stand-in lb that answers with the table it has in force.

mod authority;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use appbase_core::Digest;
use appbase_core::v1::{Certificate, MemberKind, MemberStatus, TableUpdate};
use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use controller_core::v1::api::{EventView, PlatformStatus};
use controller_core::v1::state::CertificateRecord;
use dns_core::v1::NameSection;
use kit::{Shutdown, Tasks};
use lb_core::v1::RouteSection;
use reqwest::Method;

use self::authority::Authority;
use super::*;
use crate::records::{self, Records, Write};
use crate::stage::{Controller, LIMIT, go_live, shop};
use crate::store::SqliteStore;

const HOST: &str = "shop.example.org";
const DAY_MS: u64 = 86_400_000;

/// Takes tables, and answers challenges by the last one it took.
struct Lb {
    address: SocketAddr,
    /// Whether it takes tables with challenges.
    takes: AtomicBool,
    /// Whether it was offered one.
    offered: AtomicBool,
    section: Mutex<Option<RouteSection>>,
}

impl Lb {
    async fn start(controller: &Controller, takes: bool) -> Arc<Self> {
        let listener = kit::serve::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let lb = Arc::new(Self {
            address,
            takes: AtomicBool::new(takes),
            offered: AtomicBool::new(false),
            section: Mutex::default(),
        });
        let router = axum::Router::new().fallback(challenge).with_state(Arc::clone(&lb));
        kit::serve::http(&controller.tasks, "lb", listener, router, &controller.shutdown).expect("it serves");
        let (follower, api, stop) = (Arc::clone(&lb), controller.api.clone(), controller.shutdown.asked());
        controller.tasks.spawn("lb-follows", async move {
            tokio::select! { () = stop => {}, () = follower.follow(api) => {} }
        });
        lb
    }

    async fn follow(&self, api: kit::client::Client) {
        let mut in_force = None;
        loop {
            let status = MemberStatus {
                kind: MemberKind::Lb,
                boot: "b1".to_owned(),
                in_force: in_force.clone(),
                refused: None,
                live: Default::default(),
                instances: Default::default(),
                counters: Default::default(),
            };
            let put = api.call::<_, serde_json::Value>(Method::PUT, "/v1/members/lb-1/status", &status, LIMIT).await;
            // Always all of it: then what it does not take is offered again.
            let update: Option<TableUpdate<RouteSection>> = match put {
                Ok(_) => api.get("/v1/members/lb-1/table?kind=lb", LIMIT).await.unwrap_or_default(),
                Err(_) => None,
            };
            if let Some(update) = update {
                let section = update.sections.get(&shop()).cloned();
                let is_challenged = section.as_ref().is_some_and(|section| !section.tls.challenges.is_empty());
                self.offered.fetch_or(is_challenged, Ordering::SeqCst);
                if !is_challenged || self.takes.load(Ordering::SeqCst) {
                    *self.section.lock().unwrap_or_else(PoisonError::into_inner) = section;
                    in_force = Some(update.generation);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn section(&self) -> Option<RouteSection> {
        self.section.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificates in force, once they are `so` and no challenge is.
    async fn shown(&self, so: impl Fn(&[Certificate]) -> bool) -> Vec<Certificate> {
        let mut shown = Vec::new();
        eventually("certificates", async || {
            let tls = self.section().map(|section| section.tls).unwrap_or_default();
            shown.clone_from(&tls.certificates);
            tls.challenges.is_empty() && so(&shown)
        })
        .await;
        shown
    }
}

async fn challenge(State(lb): State<Arc<Lb>>, uri: axum::http::Uri) -> String {
    let token = uri.path().strip_prefix("/.well-known/acme-challenge/").unwrap_or_default().to_owned();
    lb.section().and_then(|section| section.tls.challenges.get(&token).cloned()).unwrap_or_default()
}

async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "did not come in time: {what}");
}

async fn controller(data: &Path, authority: &Authority) -> Controller {
    controller_with(data, authority, |_| {}).await
}

async fn controller_with(data: &Path, authority: &Authority, more: impl FnOnce(&mut Config)) -> Controller {
    let change = |config: &mut Config| {
        config.acme_directory = Some(authority.directory());
        config.acme_email = Some("ops@example.org".to_owned());
        more(config);
    };
    Controller::start_with(data, change).await
}

/// A stand-in dns: what it answers are the texts of the last table it took.
struct Dns {
    takes: AtomicBool,
    offered: AtomicBool,
    texts: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Dns {
    async fn start(controller: &Controller) -> Arc<Self> {
        let (takes, offered) = (AtomicBool::new(false), AtomicBool::new(false));
        let dns = Arc::new(Self { takes, offered, texts: Mutex::default() });
        let (follower, api, stop) = (Arc::clone(&dns), controller.api.clone(), controller.shutdown.asked());
        controller.tasks.spawn("dns-follows", async move {
            tokio::select! { () = stop => {}, () = follower.follow(api) => {} }
        });
        dns
    }

    async fn follow(&self, api: kit::client::Client) {
        let mut in_force: Option<appbase_core::Generation> = None;
        loop {
            let status = serde_json::json!({"kind": "dns", "boot": "b1", "in_force": in_force});
            let put = api.call::<_, serde_json::Value>(Method::PUT, "/v1/members/dns-1/status", &status, LIMIT).await;
            let update: Option<TableUpdate<NameSection>> = match put {
                Ok(_) => api.get("/v1/members/dns-1/table?kind=dns", LIMIT).await.unwrap_or_default(),
                Err(_) => None,
            };
            if let Some(update) = update {
                let texts = match update.sections.get(&shop()) {
                    Some(NameSection::App(app)) => app.texts.clone(),
                    _ => BTreeMap::new(),
                };
                self.offered.fetch_or(!texts.is_empty(), Ordering::SeqCst);
                if texts.is_empty() || self.takes.load(Ordering::SeqCst) {
                    *self.texts.lock().unwrap_or_else(PoisonError::into_inner) = texts;
                    in_force = Some(update.generation);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// `cert retry`, until an order of the host has failed.
async fn retry(controller: &Controller, host: &str) {
    let path = format!("/v1/certificates/acme:{host}/retry");
    eventually("a failed order", async || {
        controller.api.call::<_, serde_json::Value>(Method::POST, &path, &(), LIMIT).await.is_ok()
    })
    .await;
}

/// What `cert ls` says of the host's problem, once it is `so`.
async fn problem(controller: &Controller, so: impl Fn(&str) -> bool) -> String {
    let mut problem = String::new();
    eventually("a problem", async || {
        let list = controller.list().await;
        problem = list.into_iter().find_map(|view| view.problem).unwrap_or_default();
        so(&problem)
    })
    .await;
    problem
}

/// The record of the host in a stopped controller's state, and then changed.
async fn record(data: &Path, change: impl FnOnce(&mut AcmeRecord)) -> AcmeRecord {
    let store = SqliteStore::open(data).expect("a store");
    let records = Mutex::new(Records::load(&store, || panic!("it is there")).await.expect("records"));
    let mut record = lock(&records).acme.get(HOST).cloned().unwrap_or_default();
    let before = record.clone();
    change(&mut record);
    if record != before {
        let writes = vec![Write::Acme(HOST.to_owned(), Box::new(record.clone()))];
        records::commit(&store, &records, writes).await.expect("written");
    }
    record
}

async fn events(controller: &Controller) -> Vec<EventView> {
    controller.api.get("/v1/events", LIMIT).await.expect("events")
}

fn said(events: &[EventView], kind: EventKind, words: &str) -> usize {
    events.iter().filter(|event| event.kind == kind && event.text.contains(words)).count()
}

struct World {
    data: tempfile::TempDir,
    authority: Arc<Authority>,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl World {
    async fn new(hosts: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        go_live(data.path(), 1, hosts).await;
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let authority = Authority::start(&tasks, &shutdown).await;
        Self { data, authority, tasks, shutdown }
    }

    async fn end(self) {
        self.shutdown.ask();
        assert!(self.tasks.finish(LIMIT).await.is_empty());
    }
}

#[tokio::test]
async fn a_host_gets_its_certificate_once_every_lb_answers_for_it() {
    let world = World::new(&[HOST, "shop.localhost", "*.example.org", "shop"]).await;
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, false).await;
    world.authority.lead_to(lb.address);
    eventually("a challenge in a table", async || lb.offered.load(Ordering::SeqCst)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.authority.counts(), (1, 1, 0), "it is not told before lb has the table");
    lb.takes.store(true, Ordering::SeqCst);

    let names = |one: &Certificate| one.names.iter().cloned().collect::<Vec<_>>();
    let shown = lb.shown(|shown| shown.iter().any(|one| one.names.contains(HOST))).await;
    assert_eq!(shown.iter().map(names).collect::<Vec<_>>(), [[HOST], ["shop.localhost"]]);
    assert_eq!(shown[0].chain.matches("BEGIN CERTIFICATE").count(), 2, "with what leads to its authority");
    assert_eq!(world.authority.counts(), (1, 1, 1));
    let list = controller.list().await;
    let view = list.iter().find(|view| view.source == "acme").expect("it is listed");
    assert_eq!((view.id.as_str(), &view.apps[..], &view.problem), ("acme:shop.example.org", &[shop()][..], &None));
    let got = "certificate for shop.example.org got";
    eventually("an event", async || said(&events(&controller).await, EventKind::CertificateIssued, got) == 1).await;
    let events = events(&controller).await;
    assert_eq!(said(&events, EventKind::CertificateFailed, ""), 0);
    assert!(!serde_json::to_string(&(events, list)).expect("JSON").contains("PRIVATE"));
    controller.stop().await;

    let controller = self::controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    assert_eq!(lb.shown(|shown| shown.len() == 2).await, shown, "it is kept");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.authority.counts(), (1, 1, 1), "and nobody asks again");
    controller.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_refusal_is_said_and_waited_out() {
    let world = World::new(&[HOST]).await;
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    let mut problem = String::new();
    eventually("a problem", async || {
        let list = controller.list().await;
        let found = list.into_iter().find_map(|view| view.problem.filter(|_| view.until_unix_ms == 0));
        found.map(|found| problem = found).is_some()
    })
    .await;
    assert_eq!(problem, "unauthorized: shop.example.org answered \"no address\"");
    let status: PlatformStatus = controller.api.get("/v1/status", LIMIT).await.expect("a status");
    let expect = format!("no certificate for {HOST}: {problem}");
    assert!(status.problems.contains(&expect), "{:?}", status.problems);
    lb.shown(<[_]>::is_empty).await;
    let told = async || said(&events(&controller).await, EventKind::CertificateFailed, &problem) == 1;
    eventually("an event", told).await;
    controller.stop().await;
    let now = kit::Clock::start().unix_ms();
    let kept = record(world.data.path(), |record| record.retry_unix_ms = 0).await;
    assert_eq!((kept.failures, kept.order, kept.certificate), (1, None, None));
    assert_eq!(world.authority.counts(), (1, 1, 1), "it is asked once");

    // A minute later it fails in the same way: the wait is longer, and people were told.
    let controller = self::controller(world.data.path(), &world.authority).await;
    let _lb = Lb::start(&controller, true).await;
    eventually("another try", async || world.authority.counts().2 == 2).await;
    eventually("its end", async || lock_free(&controller).await).await;
    assert_eq!(said(&events(&controller).await, EventKind::CertificateFailed, ""), 1);
    controller.stop().await;
    let kept = record(world.data.path(), |_| {}).await;
    let wait = kept.retry_unix_ms.saturating_sub(now);
    assert!(kept.failures == 2 && (90_000..180_000).contains(&wait), "{} failures, {wait} ms", kept.failures);
    world.end().await;
}

/// Whether no order is under way, as its table shows.
async fn lock_free(controller: &Controller) -> bool {
    let table = controller.api.get::<TableUpdate<RouteSection>>("/v1/members/lb-1/table?kind=lb", LIMIT).await;
    table.is_ok_and(|table| table.sections.values().all(|section| section.tls.challenges.is_empty()))
}

#[tokio::test]
async fn one_that_ages_is_renewed_and_shown_until_then() {
    let world = World::new(&[HOST]).await;
    let then = kit::Clock::start().unix_ms() - 61 * DAY_MS;
    let old = crate::authority::new(&"c1".parse().expect("a name"), "platform", then).expect("made");
    let old = crate::authority::issue(&old, &shop(), &BTreeSet::from([HOST.to_owned()]), then).expect("made");
    let old = CertificateRecord { authority: None, fingerprint: Digest::of(b"old"), ..old };
    record(world.data.path(), |record| record.certificate = Some(old.clone())).await;
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, false).await;
    world.authority.lead_to(lb.address);
    assert_eq!(
        lb.shown(|shown| !shown.is_empty()).await,
        std::slice::from_ref(&old.certificate),
        "it is good for a month"
    );
    lb.takes.store(true, Ordering::SeqCst);
    let shown = lb.shown(|shown| shown.first().is_some_and(|one| *one != old.certificate)).await;
    assert_eq!((shown.len(), &shown[0].names), (1, &old.certificate.names));
    assert_ne!(shown[0].key, old.certificate.key);
    controller.stop().await;
    let kept = record(world.data.path(), |_| {}).await;
    let until = kept.certificate.map(|certificate| certificate.until_unix_ms);
    assert!(until > Some(old.until_unix_ms + 60 * DAY_MS));
    world.end().await;
}

#[tokio::test]
async fn an_order_that_another_start_began_is_gone_on_with() {
    let world = World::new(&[HOST]).await;
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, false).await;
    eventually("a challenge in a table", async || lb.offered.load(Ordering::SeqCst)).await;
    controller.stop().await;
    assert!(record(world.data.path(), |_| {}).await.order.is_some());
    let controller = self::controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, false).await;
    world.authority.lead_to(lb.address);
    lb.takes.store(true, Ordering::SeqCst);
    lb.shown(|shown| shown.len() == 1).await;
    assert_eq!(world.authority.counts(), (1, 1, 1), "one account, one order, told once");
    controller.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_wildcard_is_shown_to_be_ours_by_dns_once_it_has_the_record() {
    let world = World::new(&["*.zone.example"]).await;
    world.authority.mood(|mood| mood.kinds = vec!["dns-01"]);
    let names = |config: &mut Config| {
        config.acme_dns = vec![String::new(), "Zone.example".to_owned()];
        config.name_ttl_ms = 10;
    };
    let controller = controller_with(world.data.path(), &world.authority, names).await;
    let lb = Lb::start(&controller, true).await;
    let dns = Dns::start(&controller).await;
    let asked = Arc::clone(&dns);
    world.authority.look_with(Arc::new(move |kind, host| {
        assert_eq!((kind, host), ("dns-01", "*.zone.example"));
        let texts = asked.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.get("_acme-challenge.zone.example").into_iter().flatten().cloned().collect()
    }));
    eventually("a record in a table", async || dns.offered.load(Ordering::SeqCst)).await;
    assert_eq!(world.authority.counts(), (1, 1, 0), "it is not told before dns has the table");
    dns.takes.store(true, Ordering::SeqCst);
    let shown = lb.shown(|shown| !shown.is_empty()).await;
    assert_eq!(shown[0].names, BTreeSet::from(["*.zone.example".to_owned()]));
    assert_eq!(world.authority.counts(), (1, 1, 1));
    let is_over = async || dns.texts.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
    eventually("no record any more", is_over).await;
    controller.stop().await;
    world.end().await;
}

#[tokio::test]
async fn where_http_is_not_offered_lb_shows_it_in_a_handshake() {
    let world = World::new(&[HOST]).await;
    world.authority.mood(|mood| mood.kinds = vec!["dns-01", "tls-alpn-01"]);
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    let asked = Arc::clone(&lb);
    world.authority.look_with(Arc::new(move |kind, host| {
        assert_eq!((kind, host), ("tls-alpn-01", HOST));
        let section = asked.section().expect("a section");
        let shown = section.tls.handshakes.iter().find(|one| one.names.contains(host)).expect("a certificate");
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(shown.chain.as_bytes());
        let der: rustls::pki_types::CertificateDer<'_> = der.expect("PEM");
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).expect("X.509");
        // RFC 8737, section 6.1: id-pe-acmeIdentifier, an octet string.
        let mut proof = certificate.extensions().iter().filter(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let proof = proof.next().expect("the proof");
        assert!(proof.critical && proof.value.starts_with(&[4, 32]));
        vec![BASE64_URL_SAFE_NO_PAD.encode(&proof.value[2..])]
    }));
    let shown = lb.shown(|shown| !shown.is_empty()).await;
    assert_eq!(shown[0].names, BTreeSet::from([HOST.to_owned()]));
    eventually("no handshake any more", async || lb.section().is_some_and(|one| one.tls.handshakes.is_empty())).await;
    controller.stop().await;
    world.end().await;
}

#[tokio::test]
async fn an_account_is_never_a_dead_end() {
    let world = World::new(&[HOST]).await;
    world.authority.mood(|mood| (mood.loses_account, mood.refuses_contact) = (true, true));
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    world.authority.lead_to(lb.address);
    problem(&controller, |problem| problem.contains("it broke off")).await;
    controller.stop().await;

    // It was made all the same: whoever asks again, with the key that was kept, has it. Its address is refused, and said so.
    let controller = self::controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    world.authority.lead_to(lb.address);
    retry(&controller, HOST).await;
    lb.shown(|shown| shown.len() == 1).await;
    assert_eq!(world.authority.counts(), (1, 1, 1), "one account");
    let events = events(&controller).await;
    assert_eq!(said(&events, EventKind::CertificateFailed, "does not take the address ops@example.org"), 1);
    let path = format!("/v1/certificates/acme:{HOST}/retry");
    let again = controller.api.call::<_, serde_json::Value>(Method::POST, &path, &(), LIMIT);
    let refused = again.await.expect_err("nothing failed").to_string();
    assert!(refused.contains("no order for shop.example.org failed"), "{refused}");

    // Deactivated there: the next order but one has another account.
    world.authority.mood(|mood| (mood.closed, mood.refuses_contact) = (1, false));
    let path = format!("/v1/certificates/acme:{HOST}");
    controller.api.send(controller.api.request(Method::DELETE, &path).timeout(LIMIT)).await.expect("removed");
    let said = problem(&controller, |problem| !problem.is_empty()).await;
    assert!(said.contains("takes the account no more"), "{said}");
    retry(&controller, HOST).await;
    lb.shown(|shown| shown.len() == 1).await;
    assert_eq!(world.authority.counts(), (2, 2, 2));
    controller.stop().await;
    world.end().await;
}

#[tokio::test]
async fn an_authority_that_is_busy_is_waited_for_as_long_as_it_asks() {
    let world = World::new(&[HOST]).await;
    world.authority.mood(|mood| mood.busy_s = Some(7200));
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    world.authority.lead_to(lb.address);
    assert_eq!(problem(&controller, |problem| !problem.is_empty()).await, "rateLimited: too many orders");
    controller.stop().await;
    let now = kit::Clock::start().unix_ms();
    let kept = record(world.data.path(), |_| {}).await;
    let wait = kept.retry_unix_ms.saturating_sub(now);
    assert!(kept.failures == 1 && (7_100_000..=7_200_000).contains(&wait), "{wait} ms");

    world.authority.mood(|mood| mood.busy_s = None);
    let controller = self::controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    world.authority.lead_to(lb.address);
    retry(&controller, HOST).await;
    lb.shown(|shown| shown.len() == 1).await;
    controller.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_when_its_authority_wants_it() {
    let world = World::new(&[HOST]).await;
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    world.authority.lead_to(lb.address);
    let first = lb.shown(|shown| shown.len() == 1).await;
    controller.stop().await;
    record(world.data.path(), |record| record.retry_unix_ms = 0).await;

    let window = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    world.authority.mood(|mood| mood.window = Some(window));
    let controller = self::controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    world.authority.lead_to(lb.address);
    let second = lb.shown(|shown| shown.first().is_some_and(|one| *one != first[0])).await;
    let replaced = world.authority.mood(|mood| mood.replaced.clone());
    let expect = crate::x509::identifier(&first[0].chain).map(|identifier| identifier.to_string());
    assert_eq!(replaced, expect.into_iter().collect::<Vec<_>>(), "and it said what it replaces");
    assert_ne!(second[0].key, first[0].key);
    controller.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_token_that_is_none_is_not_answered() {
    let world = World::new(&[HOST]).await;
    world.authority.mood(|mood| mood.token = Some("../t0ken"));
    let controller = controller(world.data.path(), &world.authority).await;
    let lb = Lb::start(&controller, true).await;
    let said = problem(&controller, |problem| !problem.is_empty()).await;
    assert!(said.contains("token has characters"), "{said}");
    assert!(!lb.offered.load(Ordering::SeqCst) && world.authority.counts() == (1, 1, 0));
    controller.stop().await;

    // Nobody asks an authority any more: what is kept of the host can be taken away.
    let controller = Controller::start(world.data.path()).await;
    let path = format!("/v1/certificates/acme:{HOST}");
    let off = controller.api.call::<_, serde_json::Value>(Method::POST, &format!("{path}/retry"), &(), LIMIT).await;
    assert!(off.expect_err("it is off").to_string().contains("no ACME authority"));
    controller.api.send(controller.api.request(Method::DELETE, &path).timeout(LIMIT)).await.expect("removed");
    assert!(controller.list().await.is_empty());
    controller.stop().await;
    world.end().await;
}
