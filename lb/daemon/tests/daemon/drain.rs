//! What still runs on an instance that takes nothing new.

use axum::http::StatusCode;

use crate::stage::{Active, Draining, Stage, eventually, section};

#[tokio::test]
async fn a_draining_instance_ends_what_it_has_and_says_when() {
    let stage = Stage::start().await;
    let (old, new) = (stage.app("old").await, stage.app("new").await);
    stage.controller.publish(&[section(&[(&old, Active), (&new, Active)])]).await;
    stage.up("old").await;
    stage.up("new").await;
    stage.controller.publish(&[section(&[(&old, Active)])]).await;

    let mut client = stage.client().await;
    let (slow, ()) = tokio::join!(client.get("/slow?ms=400"), async {
        eventually("the request is in flight", async || old.hits() == 1).await;
        stage.controller.publish(&[section(&[(&old, Draining), (&new, Active)])]).await;
        stage.up("new").await;
        let busy = |report: &appbase_core::v1::InstanceReport| report.in_flight == 1 && !report.drained;
        stage.controller.until_instance("old", "one in flight", busy).await;
        let mut other = stage.client().await;
        for _ in 0..10 {
            assert_eq!(other.get("/").await.unwrap().body, "new");
        }
        assert_eq!(old.hits(), 1);
    });
    assert_eq!(slow.unwrap().body, "old", "it ended by itself");
    let done = stage.controller.until_instance("old", "drained", |report| report.drained).await;
    assert_eq!((done.in_flight, done.streams, done.cut), (0, 0, 0));
}

#[tokio::test]
async fn requests_are_cut_at_their_deadline_and_counted() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.client().await;
    let (slow, ()) = tokio::join!(client.get("/slow?ms=60000"), async {
        eventually("the request is in flight", async || app.hits() == 1).await;
        let mut draining = section(&[(&app, Draining)]);
        draining.drain.requests_ms = 100;
        stage.controller.publish(&[draining]).await;
    });
    assert!(slow.is_err(), "{slow:?}");
    let done = stage.controller.until_instance("one", "drained", |report| report.drained).await;
    assert_eq!((done.in_flight, done.cut), (0, 1));
}

#[tokio::test]
async fn what_is_removed_while_busy_ends_its_work() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.client().await;
    let (slow, ()) = tokio::join!(client.get("/slow?ms=300"), async {
        eventually("the request is in flight", async || app.hits() == 1).await;
        stage.controller.publish(&[section(&[])]).await;
        let answer = stage.client().await.get("/").await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    });
    assert_eq!(slow.unwrap().body, "one");
}

#[tokio::test]
async fn an_instance_that_moved_is_another_one() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.client().await;
    assert_eq!(client.get("/").await.unwrap().body, "one");
    // The same id at the address of another program: pending again, and nothing of the old one is used.
    let other = stage.app("one").await;
    stage.controller.publish(&[section(&[(&other, Active)])]).await;
    stage.up("one").await;
    eventually("the new one answers", async || client.get("/").await.unwrap().status == StatusCode::OK).await;
    assert_eq!(app.hits(), 1);
    assert!(other.hits() > 0);
}
