//! Traffic moves: who gets which release.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use appbase_core::{Digest, Prefix, Slot};
use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode};
use http_body_util::Full;
use lb_core::v1::{Cohort, Conditions, Mirror, Preview, RouteSection};

use crate::app::App;
use crate::client::{Answer, request};
use crate::stage::{Active, Stage, Standby, eventually, section};

const SECRET: &str = "abcdefghijklmnopqrstuvwx12";

/// Release 1 is live, release 2 stands by.
async fn stage() -> (Stage, Arc<App>, Arc<App>) {
    let stage = Stage::start().await;
    let (old, new) = (stage.app("old").await, stage.app("new").await);
    (stage, old, new)
}

fn standing_by(old: &Arc<App>, new: &Arc<App>) -> RouteSection {
    section(&[(old, Active), (new, Standby)])
}

async fn publish(stage: &Stage, section: RouteSection) {
    stage.controller.publish(&[section]).await;
    stage.up("old").await;
    stage.up("new").await;
}

fn with(name: &str, value: &str) -> Request<Full<Bytes>> {
    let mut request = request(Method::GET, "/", "");
    let name: axum::http::HeaderName = name.parse().unwrap();
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn place(answer: &Answer) -> Option<String> {
    let cookies = answer.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
    cookies
        .filter_map(|cookie| cookie.split(';').next())
        .find(|cookie| cookie.starts_with("platformer-place="))
        .map(str::to_owned)
}

#[tokio::test]
async fn a_share_of_the_clients_gets_the_new_release_and_keeps_it_while_that_grows() {
    let (stage, old, new) = stage().await;
    let weighted = |percent| {
        let mut section = section(&[(&old, Active), (&new, Active)]);
        section.pools.get_mut(&1).unwrap().weight = 100 - percent;
        section.pools.get_mut(&2).unwrap().weight = percent;
        section
    };
    publish(&stage, weighted(20)).await;
    let mut client = stage.client().await;
    let mut clients = BTreeMap::new();
    for _ in 0..300 {
        let answer = client.get("/").await.unwrap();
        clients.insert(place(&answer).expect("a place"), answer.body);
    }
    let on_new = clients.values().filter(|body| *body == "new").count();
    assert!((25..=95).contains(&on_new), "a fifth of {}: {on_new}", clients.len());
    for (cookie, body) in &clients {
        let answer = client.send(with("cookie", cookie)).await.unwrap();
        assert_eq!((&answer.body, place(&answer)), (body, None), "{cookie}");
    }
    publish(&stage, weighted(60)).await;
    let mut moved = 0;
    for (cookie, before) in &clients {
        let body = client.send(with("cookie", cookie)).await.unwrap().body;
        assert!(body == *before || body == "new", "{cookie} was moved back");
        moved += usize::from(body != *before);
    }
    assert!(moved > 0);
    // With all of the traffic on one release there is nothing to remember.
    publish(&stage, weighted(100)).await;
    assert_eq!(place(&client.get("/").await.unwrap()), None);
}

#[tokio::test]
async fn a_cohort_gets_its_release_whatever_the_weights() {
    let (stage, old, new) = stage().await;
    let mut both = standing_by(&old, &new);
    let map = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let conditions = [
        Conditions { headers: map("x-beta", "yes"), ..Conditions::default() },
        Conditions { cookies: map("beta", "1*"), ..Conditions::default() },
        Conditions { path: Some("/beta".into()), ..Conditions::default() },
        Conditions { networks: BTreeSet::from([Prefix::parse("10.0.0.0/8").unwrap()]), ..Conditions::default() },
    ];
    both.cohorts = conditions.into_iter().map(|conditions| Cohort { release: 2, conditions }).collect();
    publish(&stage, both.clone()).await;
    let mut client = stage.client().await;
    assert_eq!(client.get("/").await.unwrap().body, "old");
    assert_eq!(client.send(with("x-beta", "yes")).await.unwrap().body, "new");
    assert_eq!(client.send(with("x-beta", "no")).await.unwrap().body, "old");
    assert_eq!(client.send(with("cookie", "a=b; beta=12")).await.unwrap().body, "new");
    assert_eq!(client.get("/beta/x").await.unwrap().body, "new");
    both.cohorts[3].conditions.networks.insert(Prefix::parse("127.0.0.0/8").unwrap());
    publish(&stage, both.clone()).await;
    assert_eq!(client.get("/").await.unwrap().body, "new");

    // When its release has nobody who is up, the weights decide.
    new.healthy.store(false, Ordering::SeqCst);
    stage.controller.until_instance("new", "down", |report| report.health == appbase_core::v1::Health::Down).await;
    assert_eq!(client.get("/").await.unwrap().body, "old");
}

fn previewed(old: &Arc<App>, new: &Arc<App>) -> RouteSection {
    let mut section = standing_by(old, new);
    section.preview = Some(Preview {
        secret: Digest::of(SECRET.as_bytes()),
        slots: BTreeMap::from([(Slot::Blue, 1), (Slot::Green, 2)]),
    });
    section
}

#[tokio::test]
async fn who_knows_the_secret_sees_either_slot() {
    let (stage, old, new) = stage().await;
    publish(&stage, previewed(&old, &new)).await;
    let mut client = stage.client().await;
    for (slot, expect) in [("blue", "old"), ("green", "new")] {
        let by_host = client.send(with("host", &format!("{SECRET}-{slot}.platform:8080"))).await.unwrap();
        let by_header = client.send(with("x-platform-preview", &format!("{SECRET}-{slot}"))).await.unwrap();
        for answer in [by_host, by_header] {
            assert_eq!(answer.body, expect);
            assert_eq!(answer.headers["x-robots-tag"], "noindex, nofollow");
            assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        }
    }
    let wrong = SECRET.replace('a', "b");
    for other in
        [with("x-platform-preview", &format!("{wrong}-green")), with("host", &format!("{wrong}-green.platform"))]
    {
        let answer = client.send(other).await.unwrap();
        assert_eq!((answer.body.as_str(), answer.headers.get("x-robots-tag")), ("old", None), "as everybody");
    }
    // The secret stays here.
    let mut asks = with("x-platform-preview", &format!("{SECRET}-green"));
    *asks.uri_mut() = "/headers".parse().unwrap();
    assert!(!client.send(asks).await.unwrap().body.contains(SECRET));
}

#[tokio::test]
async fn a_preview_passes_hold_and_maintenance_and_counts_for_nothing() {
    let (stage, old, new) = stage().await;
    let mut closed = previewed(&old, &new);
    (closed.hold, closed.maintenance) = (true, Some("back at noon".to_owned()));
    publish(&stage, closed).await;
    let mut client = stage.client().await;
    let green = || with("x-platform-preview", &format!("{SECRET}-green"));
    assert_eq!(client.send(green()).await.unwrap().body, "new");
    assert_eq!(client.get("/").await.unwrap().code(), "maintenance");
    assert!(!stage.admin("/metrics").await.1.contains("release=\"2\",code_class"));

    // Taken from the table, it is gone at once.
    publish(&stage, standing_by(&old, &new)).await;
    assert_eq!(client.send(green()).await.unwrap().body, "old");
    assert!(new.hits() == 1);
}

#[tokio::test]
async fn reads_are_copied_and_nobody_waits_for_the_copies() {
    let (stage, old, new) = stage().await;
    let mut mirrored = standing_by(&old, &new);
    mirrored.mirror = Some(Mirror { release: 2, percent: 100 });
    publish(&stage, mirrored).await;
    let mut client = stage.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap().body, "old");
    }
    assert_eq!(client.send(request(Method::POST, "/echo", "once")).await.unwrap().body, "once");
    eventually("the copies", async || new.hits() == 10).await;
    let said = |metrics: &str, name: &str, count: u64| {
        metrics.contains(&format!(
            "platform_lb_{name}{{app=\"hello\",environment=\"production\",release=\"2\"}} {count}\n"
        ))
    };
    eventually("they are counted", async || {
        let metrics = stage.admin("/metrics").await.1;
        said(&metrics, "copies_total", 10) && said(&metrics, "copies_failed_total", 0)
    })
    .await;
    // One that hangs is nobody's business but its own.
    new.delay_ms.store(60_000, Ordering::SeqCst);
    for _ in 0..100 {
        assert_eq!(client.get("/").await.unwrap().body, "old");
    }
    // One connection, so one thread: so many at once, and no more.
    eventually("the copies", async || new.hits() >= 10 + 32).await;
    assert_eq!(client.get("/").await.unwrap().body, "old");
    assert_eq!((old.hits(), new.hits()), (112, 10 + 32));
}

#[tokio::test]
async fn a_notice_is_told_to_the_app_and_to_the_client() {
    let (stage, old, new) = stage().await;
    let mut noted = standing_by(&old, &new);
    noted.notice = Some("closed from 22 h – thanks".to_owned());
    publish(&stage, noted).await;
    let mut asks = with("x-platform-notice", "a client's own");
    *asks.uri_mut() = "/headers".parse().unwrap();
    let answer = stage.client().await.send(asks).await.unwrap();
    let expect = "closed%20from%2022%20h%20%E2%80%93%20thanks";
    assert_eq!((answer.status, answer.headers["x-platform-notice"].to_str().unwrap()), (StatusCode::OK, expect));
    assert!(answer.body.contains(&format!("x-platform-notice: {expect}\n")), "{}", answer.body);
    assert!(!answer.body.contains("own"), "{}", answer.body);
}
