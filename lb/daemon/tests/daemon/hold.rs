//! Requests wait while an app is on hold.

use axum::http::Method;

use crate::client::request;
use crate::stage::{Active, Stage, eventually, section};

#[tokio::test]
async fn held_requests_go_on_when_the_hold_ends() {
    let (stage, app) = Stage::with_app("one").await;
    let mut held = section(&[(&app, Active)]);
    held.hold = true;
    stage.controller.publish(&[held.clone()]).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (address, tasks) = (stage.lb.http, stage.tasks.clone());
            stage.tasks.spawn("held", async move {
                let mut client = crate::client::Client::connect(address, &tasks).await.unwrap();
                client.send(request(Method::POST, "/echo", "waited")).await.unwrap().body
            })
        })
        .collect();
    // Only a request that reached lb can show that it waits: all twenty connections are open, and none was answered.
    eventually("all wait", async || stage.admin("/metrics").await.1.contains("connections_open 20\n")).await;
    stage.controller.publish(&[held.clone()]).await;
    assert_eq!(app.hits(), 0, "another table with the hold lets nobody go");
    assert!(waiting.iter().all(|task| !task.is_finished()));
    held.hold = false;
    stage.controller.publish(&[held]).await;
    for task in waiting {
        assert_eq!(task.await.unwrap().unwrap(), "waited");
    }
    assert_eq!(app.hits(), 20);
}

#[tokio::test]
async fn browsers_get_a_page() {
    let stage = Stage::start().await;
    let app = stage.app("one").await;
    let mut closed = section(&[(&app, Active)]);
    closed.maintenance = Some("back at <noon>".to_owned());
    stage.controller.publish(&[closed]).await;
    let mut client = stage.client().await;
    let plain = client.get("/").await.unwrap();
    assert_eq!(
        (plain.headers["content-type"].to_str().unwrap(), plain.body.as_str()),
        ("text/plain; charset=utf-8", "back at <noon>\n")
    );
    let mut asks = request(axum::http::Method::GET, "/", "");
    asks.headers_mut().insert("accept", "text/html,*/*;q=0.8".parse().unwrap());
    let page = client.send(asks).await.unwrap();
    assert_eq!((page.status.as_u16(), page.code()), (503, "maintenance"));
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.body.contains("<p>back at &lt;noon&gt;</p>"), "{}", page.body);
    assert_eq!(client.get("/").await.unwrap().body, plain.body, "the connection goes on");
}
