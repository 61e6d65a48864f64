//! Inquiry: another app decides whether a request goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use appbase_core::v1::{Basic, Forward, Guard};
use appbase_core::{AppName, ProcessName};
use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lb::{Config, Limits};
use lb_core::v1::{InstanceState, RouteSection};

use crate::app::App;
use crate::client::{Client, request};
use crate::stage::{Active, Draining, Stage, config, section, section_of};

/// What the app that is asked answers: 200 to whoever has a cookie, a page to sign in on to others. Its body says what it got.
async fn decide(method: Method, headers: HeaderMap) -> Response {
    let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let told = format!(
        "{method} {} {} {} body:{} own:{}",
        text("x-forwarded-method"),
        text("x-forwarded-host"),
        text("x-forwarded-uri"),
        headers.contains_key("content-length") || headers.contains_key("transfer-encoding"),
        text("x-own"),
    );
    assert!(!headers.contains_key("authorization"), "nobody here sends one that is not lb's");
    match text("cookie").as_str() {
        "sid=large" => (StatusCode::FORBIDDEN, "x".repeat(70_000)).into_response(),
        "sid=silent" => std::future::pending().await,
        "" => (StatusCode::FOUND, [("location", "/sign-in"), ("set-cookie", "try=1")], told).into_response(),
        _ => ([("x-user", "ada"), ("x-told", &told), ("x-other", "no")], "fine").into_response(),
    }
}

async fn asked_app(stage: &Stage) -> std::net::SocketAddr {
    let listener = kit::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/health", get(async || "ok")).route("/check", get(decide).post(post_is_wrong));
    kit::serve::http(&stage.tasks, "asked-app", listener, router, &stage.shutdown).unwrap();
    address
}

async fn post_is_wrong() -> StatusCode {
    StatusCode::METHOD_NOT_ALLOWED
}

/// App `auth`, which has no route.
fn asked(instances: &[(&str, std::net::SocketAddr, InstanceState)]) -> RouteSection {
    RouteSection { app: AppName::parse("auth").unwrap(), routes: Vec::new(), ..section_of(instances) }
}

fn guarded(app: &Arc<App>) -> RouteSection {
    let copy = ["X-User", "X-Told"].map(str::to_owned).into();
    let forward = Forward {
        app: AppName::parse("auth").unwrap(),
        process: ProcessName::default_name(),
        path: "/check".to_owned(),
        send: Default::default(),
        copy,
    };
    let mut table = section(&[(app, Active)]);
    table.routes[0].guard = Guard { forward: Some(forward), ..Guard::default() };
    table
}

async fn start(config: Config) -> (Stage, Arc<App>) {
    let stage = Stage::start_as(config).await;
    let app = stage.app("one").await;
    let address = asked_app(&stage).await;
    stage.controller.publish(&[guarded(&app), asked(&[("auth-1", address, Active)])]).await;
    stage.up("one").await;
    stage.up("auth-1").await;
    (stage, app)
}

fn with_cookie(
    method: Method,
    path: &str,
    body: &str,
    cookie: &str,
) -> axum::http::Request<http_body_util::Full<axum::body::Bytes>> {
    let mut request = request(method, path, body);
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    request
}

#[tokio::test]
async fn what_it_lets_in_goes_on_with_its_words() {
    let (stage, app) = start(config()).await;
    for is_http2 in [false, true] {
        let mut client = match is_http2 {
            true => Client::connect_http2(stage.lb.http, &stage.tasks).await.unwrap(),
            false => stage.client().await,
        };
        let mut asks = with_cookie(Method::GET, "/headers?a=b", "", "sid=1");
        for (name, value) in [("x-user", "root"), ("x_user", "root"), ("x-other", "mine"), ("x-own", "secret")] {
            asks.headers_mut().insert(name, value.parse().unwrap());
        }
        let seen = client.send(asks).await.unwrap().body;
        assert!(seen.contains("x-user: ada\n") && seen.contains("x-other: mine\n") && !seen.contains("root"), "{seen}");
        assert!(seen.contains("x-told: GET GET hello.example /headers?a=b body:false own:\n"), "{seen}");
        let echoed = client.send(with_cookie(Method::POST, "/echo", "a body", "sid=1")).await.unwrap();
        assert_eq!((echoed.status.as_u16(), echoed.body.as_str()), (200, "a body"), "its body is the app's alone");
    }
    assert_eq!(app.hits(), 4);
}

#[tokio::test]
async fn a_password_of_lbs_is_not_for_the_asked_app() {
    let (stage, app) = start(config()).await;
    let address = asked_app(&stage).await;
    let mut table = guarded(&app);
    let users = [("ada".to_owned(), kit::password::hash_in(10_000, b"b"))].into();
    table.routes[0].guard.basic = Some(Basic { realm: Basic::usual_realm(), users });
    stage.controller.publish(&[table, asked(&[("auth-1", address, Active)])]).await;
    stage.up("auth-1").await;
    let mut client = stage.client().await;
    let mut asks = with_cookie(Method::GET, "/headers", "", "sid=1");
    assert_eq!(client.send(asks.clone()).await.unwrap().status, 401);
    asks.headers_mut().insert("authorization", "Basic YWRhOmI=".parse().unwrap());
    let seen = client.send(asks).await.unwrap();
    assert!(seen.status == 200 && seen.body.contains("x-user: ada\n"), "{seen:?}");
    assert!(seen.body.contains("x-forwarded-user: ada\n") && !seen.body.contains("authorization"), "{seen:?}");
}

#[tokio::test]
async fn what_else_it_says_is_the_clients() {
    let (stage, app) = start(config()).await;
    for is_http2 in [false, true] {
        let mut client = match is_http2 {
            true => Client::connect_http2(stage.lb.http, &stage.tasks).await.unwrap(),
            false => stage.client().await,
        };
        let answer = client.send(request(Method::POST, "/echo", "a body")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code()), (302, ""));
        assert_eq!(
            (&answer.headers["location"], &answer.headers["set-cookie"]),
            (&"/sign-in".parse().unwrap(), &"try=1".parse().unwrap())
        );
        assert_eq!(answer.body, "GET POST hello.example /echo body:false own:");
        let head = client.send(request(Method::HEAD, "/", "")).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body.as_str()), (302, ""));
    }
    assert_eq!(app.hits(), 0);
}

#[tokio::test]
async fn without_a_sound_answer_nothing_goes_on() {
    let limits = Limits { inquiry: Duration::from_millis(300), ..Limits::default() };
    let (stage, app) = start(Config { limits, ..config() }).await;
    let mut client = stage.client().await;
    let large = client.send(with_cookie(Method::GET, "/", "", "sid=large")).await.unwrap();
    assert_eq!((large.status.as_u16(), large.code()), (502, "auth-failed"));
    let silent = client.send(with_cookie(Method::GET, "/", "", "sid=silent")).await.unwrap();
    assert_eq!((silent.status.as_u16(), silent.code()), (504, "auth-timeout"));
    let broken = App::broken(&stage.tasks).await;
    stage.controller.publish(&[guarded(&app), asked(&[("broken", broken.address, Active)])]).await;
    stage.up("broken").await;
    let broke_off = client.send(with_cookie(Method::GET, "/", "", "sid=1")).await.unwrap();
    assert_eq!((broke_off.status.as_u16(), broke_off.code()), (502, "auth-failed"));
    stage.controller.publish(&[guarded(&app)]).await;
    let gone = client.send(with_cookie(Method::GET, "/", "", "sid=1")).await.unwrap();
    assert_eq!((gone.status.as_u16(), gone.code()), (503, "auth-failed"));
    assert_eq!(app.hits(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_of_the_asked_app_are_seen_by_nobody() {
    let (stage, app) = start(config()).await;
    let (blue, green) = (asked_app(&stage).await, asked_app(&stage).await);
    let flipped = |to_green: bool| {
        let states = if to_green { (Draining, Active) } else { (Active, Draining) };
        [guarded(&app), asked(&[("blue", blue, states.0), ("green", green, states.1)])]
    };
    stage.controller.publish(&[guarded(&app), asked(&[("blue", blue, Active), ("green", green, Active)])]).await;
    stage.up("blue").await;
    stage.up("green").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, tasks, address) = (Arc::clone(&stop), stage.tasks.clone(), stage.lb.http);
            stage.tasks.spawn("asking", async move {
                let mut client = Client::connect(address, &tasks).await.unwrap();
                let mut asked = 0;
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.send(with_cookie(Method::POST, "/echo", "x", "sid=1")).await.unwrap();
                    assert_eq!((answer.status.as_u16(), answer.code()), (200, ""));
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for flip in 0..100 {
        stage.controller.publish(&flipped(flip % 2 == 0)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap().expect("no panic") > 0);
    }
}
