//! Who gets traffic, and when.

use std::sync::atomic::Ordering;

use appbase_core::v1::Health;
use axum::http::{Method, StatusCode};

use crate::app::App;
use crate::client::{Client, request};
use crate::controller::Controller;
use crate::stage::{Active, Stage, Standby, config, eventually, section};

#[tokio::test]
async fn nothing_gets_traffic_before_its_first_pass() {
    let stage = Stage::start().await;
    let (old, new) = (stage.app("old").await, stage.app("new").await);
    new.healthy.store(false, Ordering::SeqCst);
    stage.controller.publish(&[section(&[(&old, Active), (&new, Active)])]).await;
    stage.up("old").await;
    let down = stage.controller.until_instance("new", "down", |report| report.health == Health::Down).await;
    let answer = down.last_probe.unwrap();
    assert_eq!((answer.status, answer.error, answer.body.len()), (Some(503), None, 512));
    assert!(answer.tries >= 2 && answer.body.starts_with("database is away"));
    let mut client = stage.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.unwrap().body, "old");
    }
    new.healthy.store(true, Ordering::SeqCst);
    stage.up("new").await;
    eventually("both answer", async || client.get("/").await.unwrap().body == "new").await;
}

/// Publishes one app at `address` that is probed so.
async fn probed(stage: &Stage, address: std::net::SocketAddr, check: &str, startup_ms: u64) {
    let mut section = crate::stage::section_of(&[("one", address, Active)]);
    let probes = section.pools.values_mut().flat_map(|pool| pool.probes.values_mut());
    probes.for_each(|probe| (probe.check, probe.startup_ms) = (check.parse().unwrap(), startup_ms));
    stage.controller.publish(&[section]).await;
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    let stage = Stage::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    probed(&stage, address, "tcp", 0).await;
    stage.up("one").await;
    drop(listener);
    let down = stage.controller.until_instance("one", "down", |report| report.health == Health::Down).await;
    assert_eq!(down.last_probe.unwrap().error.as_deref(), Some("connection refused"));
}

#[tokio::test]
async fn grpc_says_whether_it_serves() {
    let stage = Stage::start().await;
    let serving = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1));
    let app = App::grpc(std::sync::Arc::clone(&serving), &stage.tasks).await;
    for check in ["grpc", "grpc:shop"] {
        serving.store(1, Ordering::SeqCst);
        probed(&stage, app.address, check, 0).await;
        stage.up("one").await;
        serving.store(2, Ordering::SeqCst);
        let down = stage.controller.until_instance("one", "down", |report| report.health == Health::Down).await;
        assert_eq!(down.last_probe.unwrap().error.as_deref(), Some("it says NOT_SERVING"));
    }
    probed(&stage, app.address, "grpc:till", 0).await;
    let says = |report: &appbase_core::v1::InstanceReport| {
        report.last_probe.as_ref().is_some_and(|answer| answer.error.as_deref() == Some("grpc-status 5"))
    };
    stage.controller.until_instance("one", "asked for another service", says).await;
}

#[tokio::test]
async fn who_starts_is_pending_not_down() {
    let stage = Stage::start().await;
    let app = stage.app("one").await;
    app.healthy.store(false, Ordering::SeqCst);
    probed(&stage, app.address, "/health", 600_000).await;
    let tried =
        |report: &appbase_core::v1::InstanceReport| report.last_probe.as_ref().is_some_and(|answer| answer.tries > 8);
    let report = stage.controller.until_instance("one", "asked often", tried).await;
    assert_eq!(report.health, Health::Pending);
    app.healthy.store(true, Ordering::SeqCst);
    stage.up("one").await;
    app.healthy.store(false, Ordering::SeqCst);
    stage.controller.until_instance("one", "down", |report| report.health == Health::Down).await;
}

#[tokio::test]
async fn standby_is_probed_and_gets_nothing() {
    let stage = Stage::start().await;
    let (old, new) = (stage.app("old").await, stage.app("new").await);
    stage.controller.publish(&[section(&[(&old, Active), (&new, Standby)])]).await;
    stage.up("old").await;
    stage.up("new").await;
    let mut client = stage.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.unwrap().body, "old");
    }
    assert_eq!(new.hits(), 0);
}

#[tokio::test]
async fn requests_wait_for_a_first_probe_and_no_longer() {
    let stage = Stage::start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = section(&[(&stage.app("one").await, Active)]);
    let address = silent.local_addr().unwrap();
    let pool = app.pools.get_mut(&1).unwrap();
    pool.instances.values_mut().for_each(|instance| instance.address = address);
    stage.controller.publish(&[app]).await;
    let (lb, tasks) = (stage.lb.http, stage.tasks.clone());
    let waiting = stage.tasks.spawn("waits", async move {
        let mut client = crate::client::Client::connect(lb, &tasks).await.unwrap();
        client.send(request(Method::POST, "/echo", "waited")).await.unwrap().body
    });
    // The probe is there, the request reached lb, and the app says nothing yet.
    let (mut probe, _) = silent.accept().await.unwrap();
    eventually("it waits", async || stage.admin("/metrics").await.1.contains("connections_open 1\n")).await;
    assert!(!waiting.is_finished());
    answer(&mut probe, "").await;
    let (mut sent, _) = silent.accept().await.unwrap();
    answer(&mut sent, "late").await;
    assert_eq!(waiting.await.unwrap().unwrap(), "late");
}

/// Answers one request in the plainest way.
async fn answer(stream: &mut tokio::net::TcpStream, body: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut head = [0; 4096];
    assert!(stream.read(&mut head).await.unwrap() > 0);
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn up_time_is_reported_and_pending_is_refused() {
    let stage = Stage::start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = section(&[(&stage.app("one").await, Active)]);
    let pool = app.pools.get_mut(&1).unwrap();
    pool.instances.values_mut().for_each(|instance| instance.address = silent.local_addr().unwrap());
    pool.probes.values_mut().for_each(|probe| probe.timeout_ms = 100);
    stage.controller.publish(&[app]).await;
    let answer = stage.client().await.get("/").await.unwrap();
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "no-instance"));
    assert!(answer.body.contains("has passed its probe yet"), "{}", answer.body);

    let (stage, _app) = Stage::with_app("one").await;
    stage.controller.until_instance("one", "up for a while", |report| report.up_for_ms > 50).await;
}

#[tokio::test]
async fn when_all_are_down_they_are_tried_all_the_same() {
    let (stage, app) = Stage::with_app("one").await;
    app.healthy.store(false, Ordering::SeqCst);
    stage.controller.until_instance("one", "panic", |report| report.health == Health::Down && report.panic).await;
    assert_eq!(stage.client().await.get("/").await.unwrap().body, "one");
    assert!(stage.admin("/metrics").await.1.contains("platform_lb_instance_panic{instance=\"one\"} 1\n"));
}

#[tokio::test]
async fn after_a_restart_the_first_answer_decides_and_requests_wait_for_it() {
    let data = tempfile::tempdir().unwrap();
    let stage = Stage::start_with(Some(data.path().to_owned())).await;
    let (old, new) = (stage.app("old").await, stage.app("new").await);
    stage.controller.publish(&[section(&[(&old, Active), (&new, Standby)])]).await;
    stage.up("old").await;

    // Another lb on the same copy. Its controller does not answer, its instances pass no probe any more.
    old.healthy.store(false, Ordering::SeqCst);
    let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
    let gone = Some("http://127.0.0.1:1".to_owned());
    let again = lb::Config { controller: gone, data: Some(data.path().to_owned()), ..config() };
    let lb = lb::run(again, &tasks, &shutdown).await.unwrap();
    let mut client = Client::connect(lb.http, &tasks).await.unwrap();
    let answer = client.send(request(Method::POST, "/echo", "at once")).await.unwrap();
    assert_eq!(answer.body, "at once");
    assert_eq!(new.hits(), 0);
    shutdown.ask();
}

#[tokio::test]
async fn after_a_restart_one_that_hangs_gets_nothing() {
    let data = tempfile::tempdir().unwrap();
    let stage = Stage::start_with(Some(data.path().to_owned())).await;
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, two) = (stage.app("one").await, stage.app("two").await);
    let mut app = section(&[(&one, Active), (&two, Active)]);
    let instances = app.pools.values_mut().flat_map(|pool| pool.instances.iter_mut());
    for (_, instance) in instances.filter(|(id, _)| id.as_str() == "two") {
        instance.address = hanging.local_addr().unwrap();
    }
    stage.controller.publish(&[app]).await;
    stage.up("one").await;

    let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
    let gone = Some("http://127.0.0.1:1".to_owned());
    let again = lb::Config { controller: gone, data: Some(data.path().to_owned()), ..config() };
    let lb = lb::run(again, &tasks, &shutdown).await.unwrap();
    let mut client = Client::connect(lb.http, &tasks).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().body, "one");
    }
    shutdown.ask();
}

#[tokio::test]
async fn shutdown_ends_what_is_in_flight_and_leaves_nothing() {
    let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
    let (lb_tasks, lb_shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
    let controller = Controller::start(&tasks, &shutdown).await;
    let url = format!("http://{}", controller.address);
    let with = lb::Config { controller: Some(url), ..config() };
    let lb = lb::run(with, &lb_tasks, &lb_shutdown).await.unwrap();
    let app = App::start("one", &tasks, &shutdown).await;
    controller.publish(&[section(&[(&app, Active)])]).await;
    controller.until_instance("one", "up", |report| report.health == Health::Up).await;

    let mut client = Client::connect(lb.http, &tasks).await.unwrap();
    let mut idle = Client::connect(lb.http, &tasks).await.unwrap();
    idle.get("/").await.unwrap();
    let (slow, ()) = tokio::join!(client.get("/slow?ms=300"), async {
        eventually("the request is in flight", async || app.hits() == 2).await;
        lb_shutdown.ask();
    });
    let slow = slow.unwrap();
    assert_eq!((slow.body.as_str(), slow.headers["connection"].to_str().unwrap()), ("one", "close"));
    assert_eq!(lb_tasks.finish(std::time::Duration::from_secs(5)).await, Vec::<String>::new());
    assert!(std::net::TcpStream::connect(lb.http).is_err());
    shutdown.ask();
}
