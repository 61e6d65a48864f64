//! What is told of requests: the access log, and spans.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use kit::{Shutdown, Tasks};
use lb::{AccessForm, AccessSettings, Config, TraceSettings};
use serde_json::{Value, json};

use crate::client::raw;
use crate::recorder::Recorder;
use crate::stage::{Active, Stage, config, eventually, section};

/// A stage with one app that logs in this form.
async fn logging(form: AccessForm, file: &Path, share: &str) -> Stage {
    let access = AccessSettings { form, file: Some(file.to_owned()), share: share.parse().unwrap() };
    let stage = Stage::start_as(Config { access, ..config() }).await;
    let app = stage.app("blue").await;
    let broken = crate::app::App::broken(&stage.tasks).await;
    let mut other = section(&[(&broken, Active)]);
    other.app = appbase_core::AppName::parse("other").unwrap();
    other.routes[0].host = Some("broken.example".to_owned());
    stage.controller.publish(&[section(&[(&app, Active)]), other]).await;
    stage.up("blue").await;
    stage.up("broken").await;
    stage
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    (directory, file)
}

async fn lines(file: &Path, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(file).unwrap_or_default();
    eventually("the lines", async || read().lines().count() >= count).await;
    let lines: Vec<String> = read().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

async fn ask(stage: &Stage, line: &str, host: &str) {
    let lines =
        "User-Agent: test/1\r\nReferer: https://a.example/?secret\r\nX-Request-Id: mine\r\nConnection: close\r\n";
    raw(stage.lb.http, format!("{line}\r\nHost: {host}\r\n{lines}\r\n").as_bytes()).await;
}

#[tokio::test]
async fn each_request_is_one_line() {
    let (_directory, file) = file();
    let stage = logging(AccessForm::Json, &file, "1").await;
    ask(&stage, "GET /?token=secret HTTP/1.1", "a.example").await;
    ask(&stage, "GET / HTTP/1.1", "broken.example").await;
    ask(&stage, "GET /%zz HTTP/1.1", "a.example").await;
    let lines = lines(&file, 3).await;
    let read: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (at, expect) in [
        json!({"method": "GET", "path": "/", "host": "a.example", "status": 200, "app": "hello", "release": 1,
               "environment": "production", "instance": "blue", "end": "complete", "attempts": 1, "request_id": "mine",
               "client": "127.0.0.1", "scheme": "http", "protocol": "HTTP/1.1", "user_agent": "test/1"}),
        json!({"status": 502, "app": "other", "code": "instance-broke-off", "instance": "broken"}),
        json!({"status": 400, "code": "bad-path", "app": null, "attempts": 0}),
    ]
    .into_iter()
    .enumerate()
    {
        for (name, value) in expect.as_object().unwrap() {
            assert_eq!(&read[at][name], value, "{name} of {}", lines[at]);
        }
    }
    assert!(read[0]["response_bytes"].as_u64().unwrap() > 0);
    assert!(read[0]["duration_ms"].as_f64().unwrap() >= read[0]["instance_ms"].as_f64().unwrap());
    assert!(!lines[0].contains("token"), "a query is nobody's business: {}", lines[0]);
}

#[tokio::test]
async fn a_share_is_of_what_went_well_alone() {
    let (_directory, file) = file();
    let stage = logging(AccessForm::Combined, &file, "0").await;
    for _ in 0..20 {
        ask(&stage, "GET / HTTP/1.1", "a.example").await;
    }
    ask(&stage, "GET /x HTTP/1.1", "broken.example").await;
    let lines = lines(&file, 1).await;
    let rest = lines[0].split_once(" +0000] ").unwrap().1;
    assert_eq!(rest, "\"GET /x HTTP/1.1\" 502 0 \"https://a.example/?secret\" \"test/1\"");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_made_anew() {
    let (directory, file) = file();
    let stage = logging(AccessForm::Combined, &file, "1").await;
    ask(&stage, "GET /before HTTP/1.1", "a.example").await;
    lines(&file, 1).await;
    let moved = directory.path().join("access.log.1");
    std::fs::rename(&file, &moved).unwrap();
    ask(&stage, "GET /after HTTP/1.1", "a.example").await;
    assert!(lines(&file, 1).await[0].contains("/after"));
    assert!(lines(&moved, 1).await[0].contains("/before"));
}

#[tokio::test]
async fn what_was_told_last_is_written_before_the_end() {
    let (_directory, file) = file();
    let stage = logging(AccessForm::Combined, &file, "1").await;
    ask(&stage, "GET /last HTTP/1.1", "a.example").await;
    stage.shutdown.ask();
    stage.tasks.finish(std::time::Duration::from_secs(20)).await;
    assert!(std::fs::read_to_string(&file).unwrap().contains("/last"));
}

/// A stand-in collector of traces: each span that came.
async fn collector(tasks: &Tasks, shutdown: &Shutdown) -> (String, Arc<Mutex<Vec<Value>>>) {
    let spans = Arc::new(Mutex::new(Vec::new()));
    let take = |State(spans): State<Arc<Mutex<Vec<Value>>>>, Json(body): Json<Value>| async move {
        let came = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
        spans.lock().unwrap().extend(came);
        Json(json!({}))
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
    let listener = kit::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    kit::serve::http(tasks, "collector", listener, router, shutdown).unwrap();
    (url, spans)
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key).unwrap_or_else(|| panic!("{key}: {span}"));
    let value = found["value"].as_object().unwrap();
    value.values().next().unwrap()
}

#[tokio::test]
async fn a_request_is_a_span_of_its_clients_trace() {
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let (collector, spans) = collector(&tasks, &shutdown).await;
    let trace = TraceSettings { collector: Some(collector), share: "1".parse().unwrap() };
    let (stage, recorder) = Recorder::stage_as(Config { trace, ..config() }).await;
    let (id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let head = format!(
        "GET /a?b HTTP/1.1\r\nHost: a.example\r\ntraceparent: 00-{id}-{parent}-00\r\ntracestate: x=y\r\nConnection: close\r\n\r\n"
    );
    raw(stage.lb.http, head.as_bytes()).await;
    eventually("a span", async || !spans.lock().unwrap().is_empty()).await;
    let span = spans.lock().unwrap()[0].clone();
    assert_eq!((&span["traceId"], &span["parentSpanId"], &span["name"]), (&json!(id), &json!(parent), &json!("GET /")));
    for (key, value) in [
        ("http.response.status_code", "200"),
        ("url.path", "/a"),
        ("platformer.app", "hello"),
        ("platformer.release", "1"),
        ("platformer.instance", "recorder"),
        ("network.protocol.version", "1.1"),
        ("server.address", "a.example"),
    ] {
        assert_eq!(attribute(&span, key), value, "{key}");
    }
    let got = recorder.take();
    let told = format!("traceparent: 00-{id}-{}-01\r\n", span["spanId"].as_str().unwrap());
    assert!(got.contains(&told) && got.contains("tracestate: x=y\r\n"), "{got}");
    assert_eq!(got.matches("traceparent").count(), 1);

    // What names no trace is no part of one.
    raw(
        stage.lb.http,
        b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-1\r\ntracestate: x=y\r\nConnection: close\r\n\r\n",
    )
    .await;
    let got = recorder.take();
    assert!(got.contains("traceparent: 00-") && !got.contains("tracestate"), "{got}");
    shutdown.ask();
}

#[tokio::test]
async fn without_a_collector_a_trace_is_not_lbs_business() {
    let (stage, recorder) = Recorder::stage().await;
    let lines = "traceparent: 00-1\r\ntracestate: x=y\r\n";
    raw(stage.lb.http, format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n").as_bytes()).await;
    assert!(recorder.take().contains(lines));
}

#[tokio::test]
async fn the_dashboard_asks_for_what_lb_says() {
    let dashboard = include_str!("../../../../compose/observability/grafana/platformer.json");
    let (_directory, file) = file();
    let stage = logging(AccessForm::Json, &file, "1").await;
    ask(&stage, "GET / HTTP/1.1", "a.example").await;
    lines(&file, 1).await;
    let (_, metrics) = stage.admin("/metrics").await;
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = dashboard.split("platform_lb_").skip(1).map(|rest| rest.split(|c| !is_name(c)).next().unwrap());
    let mut count = 0;
    for name in names {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(metrics.contains(&format!("# TYPE platform_lb_{family} ")), "{name}");
        count += 1;
    }
    assert!(count > 20);
}
