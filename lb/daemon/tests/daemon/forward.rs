//! What goes through, and what lb answers itself.

use axum::http::{Method, StatusCode};

use crate::app::App;
use crate::client::request;
use crate::stage::{Active, Stage, Standby, config, eventually, section};

#[tokio::test]
async fn requests_of_all_kinds_go_through_one_connection() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.client().await;
    for round in 0..3 {
        assert_eq!(client.get("/").await.unwrap().body, "one");
        let body = "x".repeat(200_000 * round);
        assert_eq!(client.send(request(Method::POST, "/echo", &body)).await.unwrap().body, body);
        assert_eq!(client.get("/chunks").await.unwrap().body, "part 0\npart 1\npart 2\n");
        let head = client.send(request(Method::HEAD, "/", "")).await.unwrap();
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
    }
    assert_eq!(app.hits(), 12);
}

#[tokio::test]
async fn the_app_learns_who_asks_and_lies_are_dropped() {
    let (stage, _app) = Stage::with_app("one").await;
    let mut lie = request(Method::GET, "/headers", "");
    for (name, value) in [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4"), ("x-request-id", "abc")] {
        lie.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = stage.client().await.send(lie).await.unwrap();
    for line in [
        "host: hello.example",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: hello.example",
        "x-request-id: abc",
    ] {
        assert!(answer.body.lines().any(|got| got == line), "{line} in {}", answer.body);
    }
    assert!(!answer.body.contains("1.2.3.4"), "{}", answer.body);
    assert_eq!(answer.headers["x-request-id"], "abc");
}

#[tokio::test]
async fn errors_say_who_failed() {
    let stage = Stage::start().await;
    let code = async |path: &str| {
        let answer = stage.client().await.get(path).await.unwrap();
        (answer.status.as_u16(), answer.code().to_owned(), answer.headers.contains_key("retry-after"))
    };
    assert_eq!(code("/").await, (503, "no-table".to_owned(), true));
    assert_eq!(stage.admin("/readyz").await.0, 503);

    let app = stage.app("one").await;
    let mut only_x = section(&[(&app, Standby)]);
    only_x.routes[0].path = "/x".to_owned();
    stage.controller.publish(&[only_x.clone()]).await;
    assert_eq!(stage.admin("/readyz").await.0, 200);
    assert_eq!(code("/").await, (404, "no-route".to_owned(), false));
    assert_eq!(code("/x").await, (503, "no-instance".to_owned(), true));
    only_x.maintenance = Some("back at noon".to_owned());
    stage.controller.publish(&[only_x]).await;
    let answer = stage.client().await.get("/x").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code(), answer.body.as_str()), (503, "maintenance", "back at noon\n"));
    assert_eq!(app.hits(), 0);
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_usable() {
    let (stage, app) = Stage::with_app("one").await;
    let mut only_x = section(&[(&app, Active)]);
    only_x.routes[0].path = "/echo".to_owned();
    stage.controller.publish(&[only_x]).await;
    let mut client = stage.client().await;
    for _ in 0..3 {
        assert_eq!(client.send(request(Method::POST, "/nowhere", "a body")).await.unwrap().code(), "no-route");
        assert_eq!(client.send(request(Method::POST, "/echo", "a body")).await.unwrap().body, "a body");
    }
}

#[tokio::test]
async fn connection_failures_go_to_another_instance_whatever_the_method() {
    let stage = Stage::start().await;
    let dying = stage.shutdown.child();
    let one = stage.app("one").await;
    let two = App::start("two", &stage.tasks, &dying).await;
    let mut both = section(&[(&one, Active), (&two, Active)]);
    for probe in both.pools.values_mut().flat_map(|pool| pool.probes.values_mut()) {
        // Up once, it stays up here, however often it fails.
        (probe.interval_ms, probe.fall) = (60_000, 1_000_000);
    }
    stage.controller.publish(&[both]).await;
    stage.up("one").await;
    stage.up("two").await;
    dying.ask();
    eventually("nothing listens", async || std::net::TcpStream::connect(two.address).is_err()).await;

    let mut client = stage.client().await;
    for number in 0..40 {
        let (method, path) = if number % 2 == 0 { (Method::GET, "/") } else { (Method::POST, "/echo") };
        let answer = client.send(request(method, path, "")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert_eq!(one.hits(), 40, "each request was carried out once");
    let metrics = stage.admin("/metrics").await.1;
    let retries = metrics.lines().find_map(|line| line.strip_prefix("platform_lb_retries_total ")).unwrap();
    assert!(retries.parse::<u64>().unwrap() > 5, "{metrics}");
}

#[tokio::test]
async fn a_post_that_may_have_been_carried_out_is_not_sent_again() {
    let stage = Stage::start().await;
    let (broken, also) = (App::broken(&stage.tasks).await, App::broken(&stage.tasks).await);
    let mut only = section(&[(&broken, Active)]);
    // Another instance of the same kind in the same pool, so that there would be one to try.
    let web = appbase_core::ProcessName::default_name();
    let second = lb_core::v1::PoolInstance { process: web, address: also.address, state: Active };
    let id = appbase_core::InstanceId::parse("also").unwrap();
    only.pools.get_mut(&1).unwrap().instances.insert(id, second);
    stage.controller.publish(&[only]).await;
    stage.up("broken").await;
    stage.up("also").await;

    let hits = || broken.hits() + also.hits();
    let post = stage.client().await.send(request(Method::POST, "/", "body")).await.unwrap();
    assert_eq!((post.status.as_u16(), post.code(), hits()), (502, "instance-broke-off", 1));
    let get = stage.client().await.get("/").await.unwrap();
    assert_eq!((get.status.as_u16(), hits()), (502, 3), "a GET is tried at both");
    let mut keyed = request(Method::POST, "/", "body");
    keyed.headers_mut().insert("idempotency-key", "1".parse().unwrap());
    stage.client().await.send(keyed).await.unwrap();
    assert_eq!(hits(), 5, "and so is a POST with a key");
}

#[tokio::test]
async fn a_pooled_connection_that_the_app_closed_is_nobodys_failure() {
    let stage = Stage::start().await;
    let app = App::once(&stage.tasks).await;
    stage.controller.publish(&[section(&[(&app, Active)])]).await;
    stage.up("once").await;
    let mut client = stage.client().await;
    for number in 1..=10 {
        let answer = client.get("/").await.unwrap();
        assert_eq!((answer.status, app.hits()), (StatusCode::OK, number), "{answer:?}");
    }
    // A POST could not be sent again, so it takes no connection that was idle for long.
    for number in 11..=12 {
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        let answer = client.send(request(Method::POST, "/", "body")).await.unwrap();
        assert_eq!((answer.status, app.hits()), (StatusCode::OK, number), "{answer:?}");
    }
}

#[tokio::test]
async fn explanations_say_what_would_happen() {
    let (stage, _app) = Stage::with_app("one").await;
    let explained = async |query: &str| -> serde_json::Value {
        serde_json::from_str(&stage.admin(&format!("/v1/route?{query}")).await.1).unwrap()
    };
    let found = explained("host=hello.example&path=/x").await;
    assert_eq!((&found["outcome"], &found["rule"]["app"]), (&"forwarded".into(), &"hello".into()), "{found}");
    assert_eq!(found["instances"][0]["eligible"], true, "{found}");
    assert_eq!(explained("path=/../x").await["outcome"], "bad-path");
}

#[tokio::test]
async fn answers_are_counted_by_release() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.client().await;
    for _ in 0..5 {
        client.get("/").await.unwrap();
    }
    stage.controller.publish(&[section(&[(&app, Standby)])]).await;
    client.get("/").await.unwrap();
    let key = appbase_core::SectionKey::try_from("production/hello".to_owned()).unwrap();
    let counted = |status: &appbase_core::v1::MemberStatus| {
        let counters = status.counters.get(&key).and_then(|releases| releases.get(&1));
        counters.is_some_and(|counters| counters.requests == 5 && counters.durations.iter().sum::<u64>() == 5)
    };
    stage.controller.until("5 requests of release 1", counted).await;
    let metrics = stage.admin("/metrics").await.1;
    let line =
        "platform_lb_requests_total{app=\"hello\",environment=\"production\",release=\"1\",code_class=\"2xx\"} 5";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("platform_lb_refused_total{code=\"no-instance\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_table_file_serves_without_a_controller() {
    let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
    let app = App::start("one", &tasks, &shutdown).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    let file = lb_core::v1::TableFile { sections: vec![section(&[(&app, Active)])] };
    std::fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
    let lb = lb::run(lb::Config { table: Some(path.clone()), ..config() }, &tasks, &shutdown).await.unwrap();
    eventually("an answer", async || {
        let mut client = crate::client::Client::connect(lb.http, &tasks).await.unwrap();
        client.get("/").await.unwrap().body == "one"
    })
    .await;

    let text = std::fs::read_to_string(&path).unwrap().replace("\"weight\":", "\"wieght\": 1, \"weight\":");
    std::fs::write(&path, text).unwrap();
    let error = lb::run(lb::Config { table: Some(path), ..config() }, &tasks, &shutdown).await.unwrap_err();
    assert!(error.to_string().contains("sections.0.pools.1.wieght"), "{error}");
    shutdown.ask();
}
