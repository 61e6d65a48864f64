//! The promise: flips lose nothing and do nothing twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};

use crate::client::{Client, request};
use crate::stage::{Active, Draining, Stage, section};

const FLIPS: u64 = 500;

/// What the clients of one test saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
    posted: AtomicU64,
}

impl Seen {
    fn note(&self, answer: Result<crate::client::Answer, String>, what: &str) {
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => drop(self.answered.fetch_add(1, Ordering::SeqCst)),
            Ok(answer) => self.failures.lock().unwrap().push(format!("{what}: {answer:?}")),
            Err(error) => self.failures.lock().unwrap().push(format!("{what}: {error}")),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    KeepAlive,
    NewConnections,
    Post,
    Slow,
    Http2,
    Http2Post,
}

/// One client of a kind, until told to stop.
async fn load(seen: Arc<Seen>, kind: Kind, address: std::net::SocketAddr, tasks: kit::Tasks) {
    let mut client = match kind {
        Kind::Http2 | Kind::Http2Post => Client::connect_http2(address, &tasks).await.unwrap(),
        _ => Client::connect(address, &tasks).await.unwrap(),
    };
    while seen.goes_on() {
        match kind {
            Kind::KeepAlive | Kind::Http2 => seen.note(client.get("/").await, "keep-alive"),
            Kind::NewConnections => match Client::connect(address, &tasks).await {
                Ok(mut client) => seen.note(client.get("/").await, "new connection"),
                Err(error) => seen.note(Err(error), "connect"),
            },
            Kind::Post | Kind::Http2Post => {
                let number = seen.posted.fetch_add(1, Ordering::SeqCst);
                let mut post = request(Method::POST, "/echo", &"b".repeat(number as usize % 3000));
                post.headers_mut().insert("x-test-id", number.into());
                seen.note(client.send(post).await, "post");
            }
            Kind::Slow => seen.note(client.get("/slow?ms=15").await, "slow"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_flips_under_load_lose_nothing_and_do_nothing_twice() {
    let stage = Stage::start().await;
    let (blue, green) = (stage.app("blue").await, stage.app("green").await);
    let tables = [section(&[(&blue, Active), (&green, Draining)]), section(&[(&blue, Draining), (&green, Active)])];
    stage.controller.publish(&tables[..1]).await;
    stage.up("blue").await;
    stage.up("green").await;

    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = [
        (Kind::KeepAlive, 6),
        (Kind::NewConnections, 3),
        (Kind::Post, 6),
        (Kind::Slow, 6),
        (Kind::Http2, 4),
        (Kind::Http2Post, 4),
    ]
    .into_iter()
    .flat_map(|(kind, count)| std::iter::repeat_n(kind, count))
    .map(|kind| stage.tasks.spawn("load", load(Arc::clone(&seen), kind, stage.lb.http, stage.tasks.clone())))
    .collect();
    for flip in 1..=FLIPS {
        stage.controller.publish(&[tables[flip as usize % 2].clone()]).await;
    }
    seen.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap().expect("no client panicked");
    }

    let failures = seen.failures.lock().unwrap();
    assert!(failures.is_empty(), "{} failures, first: {:?}", failures.len(), failures.first());
    assert!(seen.answered.load(Ordering::SeqCst) > FLIPS, "there was load");
    let mut executed = blue.executed.lock().unwrap().clone();
    for (id, times) in green.executed.lock().unwrap().iter() {
        *executed.entry(id.clone()).or_default() += times;
    }
    assert_eq!(executed.len() as u64, seen.posted.load(Ordering::SeqCst));
    assert!(executed.values().all(|times| *times == 1), "a POST was carried out twice");
    assert!(blue.hits() > 0 && green.hits() > 0, "both had traffic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_drained_is_reported_nothing_reaches_the_instance() {
    let stage = Stage::start().await;
    let (blue, green) = (stage.app("blue").await, stage.app("green").await);
    let tables = [section(&[(&blue, Active), (&green, Draining)]), section(&[(&blue, Draining), (&green, Active)])];
    stage.controller.publish(&tables[..1]).await;
    stage.up("blue").await;
    stage.up("green").await;
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = [Kind::KeepAlive, Kind::NewConnections, Kind::Post, Kind::Slow, Kind::KeepAlive, Kind::Post]
        .into_iter()
        .map(|kind| stage.tasks.spawn("load", load(Arc::clone(&seen), kind, stage.lb.http, stage.tasks.clone())))
        .collect();
    for flip in 1..=40 {
        let generation = stage.controller.publish(&[tables[flip % 2].clone()]).await;
        let (drained, app) = if flip % 2 == 1 { ("blue", &blue) } else { ("green", &green) };
        let id = appbase_core::InstanceId::parse(drained).unwrap();
        stage
            .controller
            .until("drained", |status| {
                status.in_force.as_ref() == Some(&generation)
                    && status.instances.get(&id).is_some_and(|report| report.drained)
            })
            .await;
        let before = app.hits();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(app.hits(), before, "flip {flip}");
    }
    seen.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap().expect("no client panicked");
    }
    let failures = seen.failures.lock().unwrap();
    assert!(failures.is_empty(), "{} failures, first: {:?}", failures.len(), failures.first());
}
