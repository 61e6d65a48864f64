//! Which of several instances gets a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use appbase_core::v1::Balance;
use axum::http::{Method, StatusCode};

use crate::app::App;
use crate::client::{Answer, Client, request};
use crate::stage::{Stage, eventually, together};

fn by(policy: &str) -> Balance {
    Balance { policy: policy.parse().unwrap(), slow_start_ms: 0, ..Balance::default() }
}

async fn pair(balance: Balance) -> (Stage, Arc<App>, Arc<App>) {
    let stage = Stage::start().await;
    let (one, two) = (stage.app("one").await, stage.app("two").await);
    stage.controller.publish(&[together(&[&one, &two], balance)]).await;
    stage.up("one").await;
    stage.up("two").await;
    (stage, one, two)
}

/// The answers' bodies of as many requests, one after the other.
async fn bodies(client: &mut Client, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        bodies.push(client.get("/").await.unwrap().body);
    }
    bodies
}

fn of(bodies: &[String], name: &str) -> usize {
    bodies.iter().filter(|body| *body == name).count()
}

#[tokio::test]
async fn in_turn() {
    let (stage, ..) = pair(by("round-robin")).await;
    let bodies = bodies(&mut stage.client().await, 20).await;
    assert_eq!(of(&bodies, "one"), 10, "{bodies:?}");
    assert!(bodies.windows(2).all(|two| two[0] != two[1]), "{bodies:?}");
}

/// Asks until both have answered: before that a draw decides.
async fn known(stage: &Stage, client: &mut Client) {
    eventually("both have answered", async || {
        client.get("/").await.unwrap();
        let metrics = stage.admin("/metrics").await.1;
        metrics.matches("platform_lb_instance_latency_seconds{").count() == 2
    })
    .await;
}

#[tokio::test]
async fn a_slow_instance_gets_little() {
    let (stage, one, two) = pair(by("peak-ewma")).await;
    one.delay_ms.store(400, Ordering::SeqCst);
    two.delay_ms.store(2, Ordering::SeqCst);
    let mut client = stage.client().await;
    known(&stage, &mut client).await;
    let bodies = bodies(&mut client, 60).await;
    // One answer of the other that took as long by chance may turn a few over.
    assert!(of(&bodies, "one") <= 10, "{bodies:?}");
    let report = stage.controller.until_instance("one", "a latency", |report| report.latency_us.is_some()).await;
    assert!(report.latency_us.unwrap() > 100_000, "{report:?}");
}

#[tokio::test]
async fn failing_quickly_attracts_nothing() {
    let balance = Balance { eject_after: 0, ..by("peak-ewma") };
    for failure in [500, 503] {
        let (stage, one, two) = pair(balance.clone()).await;
        *one.fails_with.lock().unwrap() = Some((failure, None));
        two.delay_ms.store(20, Ordering::SeqCst);
        let mut client = stage.client().await;
        known(&stage, &mut client).await;
        // Each failure halves what it takes, and what was is forgotten by and by.
        let bodies = bodies(&mut client, 100).await;
        assert!(of(&bodies, "one") <= 25, "{failure}: {bodies:?}");
    }
}

#[tokio::test]
async fn what_a_client_does_slowly_is_not_the_instances_fault() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (stage, _one, _two) = pair(by("round-robin")).await;
    let mut stream = tokio::net::TcpStream::connect(stage.lb.http).await.unwrap();
    let head =
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nwait\r\n";
    stream.write_all(head).await.unwrap();
    let in_flight = |report: &appbase_core::v1::InstanceReport| report.in_flight > 0;
    let asked = async |name: &str| stage.controller.until_instance(name, "asked", in_flight).await;
    tokio::select! { _ = asked("one") => {} _ = asked("two") => {} }
    // The end of its body comes late.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("wait"), "{answer}");
    let metrics = stage.admin("/metrics").await.1;
    let line = metrics.lines().find(|line| line.starts_with("platform_lb_instance_latency_seconds")).unwrap();
    let seconds: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seconds < 1.0, "{line}");
}

#[tokio::test]
async fn retry_after_is_kept() {
    let soon = Duration::from_millis(kit::Clock::start().unix_ms()) + Duration::from_secs(30);
    for after in ["30", &httpdate::fmt_http_date(std::time::UNIX_EPOCH + soon)] {
        let (stage, one, _two) = pair(Balance { eject_after: 0, ..by("round-robin") }).await;
        *one.fails_with.lock().unwrap() = Some((503, Some(after.to_owned())));
        let bodies = bodies(&mut stage.client().await, 40).await;
        assert_eq!(of(&bodies, "one"), 1, "{after}: {bodies:?}");
    }
}

fn with_user(user: &str) -> axum::http::Request<http_body_util::Full<axum::body::Bytes>> {
    let mut request = request(Method::GET, "/", "");
    request.headers_mut().insert("x-user", user.parse().unwrap());
    request
}

#[tokio::test]
async fn a_hash_keeps_users_where_they_are() {
    let (stage, one, two) = pair(by("hash:header:x-user")).await;
    let mut client = stage.client().await;
    let mut seen = std::collections::BTreeMap::new();
    for round in 0..3 {
        for user in 0..20 {
            let body = client.send(with_user(&format!("user-{user}"))).await.unwrap().body;
            let before = seen.entry(user).or_insert_with(|| body.clone());
            assert_eq!(*before, body, "round {round}");
        }
    }
    assert!(seen.values().any(|name| name == "one") && seen.values().any(|name| name == "two"), "{seen:?}");
    let third = stage.app("third").await;
    stage.controller.publish(&[together(&[&one, &two, &third], by("hash:header:x-user"))]).await;
    stage.up("third").await;
    let mut moved = 0;
    for (user, before) in &seen {
        let body = client.send(with_user(&format!("user-{user}"))).await.unwrap().body;
        assert!(body == *before || body == "third", "{user} moved from {before} to {body}");
        moved += usize::from(body == "third");
    }
    assert!(moved > 0, "the new one has users too");
}

fn cookie(answer: &Answer) -> Option<String> {
    let cookie = answer.headers.get("set-cookie")?.to_str().unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    Some(cookie.split(';').next().unwrap().to_owned())
}

fn with_cookie(cookie: &str) -> axum::http::Request<http_body_util::Full<axum::body::Bytes>> {
    let mut request = request(Method::GET, "/", "");
    request.headers_mut().insert("cookie", format!("a=b; {cookie}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_client_stays_with_its_instance_while_that_is_there() {
    let (stage, one, two) = pair(Balance { sticky: true, ..by("round-robin") }).await;
    let mut client = stage.client().await;
    let first = client.get("/").await.unwrap();
    let mine = cookie(&first).expect("a cookie");
    assert!(mine.starts_with("platformer-instance-"), "{mine}");
    for _ in 0..20 {
        let answer = client.send(with_cookie(&mine)).await.unwrap();
        assert_eq!((answer.body.as_str(), cookie(&answer)), (first.body.as_str(), None));
    }
    let left = if first.body == "one" { &two } else { &one };
    stage.controller.publish(&[together(&[left], Balance { sticky: true, ..by("round-robin") })]).await;
    let moved = client.send(with_cookie(&mine)).await.unwrap();
    assert_eq!(moved.body, left.name);
    assert!(cookie(&moved).is_some_and(|new| new != mine), "it is told of its new instance");
    let name = mine.split('=').next().unwrap();
    let nonsense = client.send(with_cookie(&format!("{name}=zzz"))).await.unwrap();
    assert!(cookie(&nonsense).is_some());
}

#[tokio::test]
async fn who_joins_others_starts_slowly() {
    let stage = Stage::start().await;
    let (one, two) = (stage.app("one").await, stage.app("two").await);
    let balance = Balance { slow_start_ms: 3_600_000, ..by("round-robin") };
    stage.controller.publish(&[together(&[&one], balance.clone())]).await;
    stage.controller.until_instance("one", "up for a while", |report| report.up_for_ms > 2_100).await;
    stage.controller.publish(&[together(&[&one, &two], balance.clone())]).await;
    stage.up("two").await;
    let mut client = stage.client().await;
    let bodies_joined = bodies(&mut client, 400).await;
    let joined = of(&bodies_joined, "two");
    assert!((4..=60).contains(&joined), "a tenth of its half: {joined} of 400");

    // All of them new: nobody starts slowly.
    let stage = Stage::start().await;
    let (one, two) = (stage.app("one").await, stage.app("two").await);
    stage.controller.publish(&[together(&[&one, &two], balance)]).await;
    eventually("both take requests", async || {
        let answered = bodies(&mut stage.client().await, 20).await;
        of(&answered, "one") == 10
    })
    .await;
}

#[tokio::test]
async fn gateway_failures_in_a_row_put_an_instance_out_and_a_probe_lets_it_in() {
    let (stage, one, two) = pair(by("round-robin")).await;
    *one.fails_with.lock().unwrap() = Some((502, None));
    let mut client = stage.client().await;
    let mut answered = Vec::new();
    eventually("it is out", async || {
        answered.extend(bodies(&mut client, 20).await);
        of(&answered, "one") == 5
    })
    .await;
    assert_eq!(of(&bodies(&mut client, 20).await, "one"), 0);
    let report = stage.controller.until_instance("one", "out", |report| report.ejected).await;
    assert_eq!(report.health, appbase_core::v1::Health::Up, "its probes pass");
    let metrics = stage.admin("/metrics").await.1;
    assert!(metrics.contains("platform_lb_instance_ejected{instance=\"one\"} 1\n"), "{metrics}");
    assert!(metrics.contains("platform_lb_ejections_total 1\n"), "{metrics}");

    // The last one is never out.
    *two.fails_with.lock().unwrap() = Some((504, None));
    let answered = bodies(&mut client, 30).await;
    assert_eq!(of(&answered, "two"), 30);
    let metrics = stage.admin("/metrics").await.1;
    assert!(metrics.contains("platform_lb_instance_ejected{instance=\"two\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn an_apps_own_errors_put_nobody_out() {
    let (stage, one, _two) = pair(by("round-robin")).await;
    *one.fails_with.lock().unwrap() = Some((500, None));
    let answered = bodies(&mut stage.client().await, 500).await;
    assert!(of(&answered, "one") >= 6, "it is asked again and again: {answered:?}");
    assert!(stage.admin("/metrics").await.1.contains("platform_lb_ejections_total 0\n"));
}

#[tokio::test]
async fn answers_that_break_off_put_an_instance_out() {
    let stage = Stage::start().await;
    let (one, two) = (App::breaking_off(&stage.tasks).await, stage.app("two").await);
    let balance = Balance { eject_after: 3, ..by("round-robin") };
    stage.controller.publish(&[together(&[&one, &two], balance)]).await;
    stage.up("breaking").await;
    stage.up("two").await;
    eventually("it is left out", async || {
        let _ = stage.client().await.get("/").await;
        stage.admin("/metrics").await.1.contains("platform_lb_instance_ejected{instance=\"breaking\"} 1\n")
    })
    .await;
}

#[tokio::test]
async fn an_app_that_breaks_everything_off_costs_its_budget_of_retries() {
    let stage = Stage::start().await;
    let (one, two) = (App::broken(&stage.tasks).await, App::broken(&stage.tasks).await);
    let mut section = together(&[&one], Balance { eject_after: 0, ..by("round-robin") });
    let pool = section.pools.get_mut(&1).unwrap();
    let mut other = pool.instances.values().next().unwrap().clone();
    other.address = two.address;
    pool.instances.insert(appbase_core::InstanceId::parse("broken-2").unwrap(), other);
    pool.probes.values_mut().for_each(|probe| (probe.interval_ms, probe.fall) = (60_000, 1_000_000));
    stage.controller.publish(&[section]).await;
    stage.up("broken").await;
    stage.up("broken-2").await;
    for _ in 0..300 {
        let answer = stage.client().await.get("/").await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    }
    let retries = one.hits() + two.hits() - 300;
    // A fifth of 300, the reserve of 30, and 3 for each second that passed.
    assert!((60..200).contains(&retries), "{retries}");
    let metrics = stage.admin("/metrics").await.1;
    assert!(metrics.contains(&format!("platform_lb_retries_total {retries}\n")), "{metrics}");
    assert!(metrics.contains(&format!("platform_lb_retries_denied_total {}\n", 300 - retries)), "{metrics}");
}
