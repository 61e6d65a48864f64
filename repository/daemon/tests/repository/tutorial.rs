//! The tutorial's two paths.

use std::collections::BTreeMap;

use appbase_core::v1::{InstanceSpec, Limits, Release, Source, TrafficSpec, Value, media};
use appbase_core::{AppName, Digest, EnvironmentName, ProcessName, Version};
use reqwest::{Response, StatusCode};

use crate::world::{World, header};

fn release(environment: &str, greeting: &str) -> Vec<u8> {
    let values = [
        ("GREETING".to_owned(), Value::Plain(greeting.to_owned())),
        ("KEY".to_owned(), Value::Secret { version: "s-secret".to_owned() }),
    ];
    let spec = InstanceSpec {
        source: Source::Artifact { layers: vec![Digest::of(b"tgz")] },
        base: None,
        command: vec!["./server".to_owned(), "--say hello".to_owned()],
        values: BTreeMap::from(values),
        port: Some(8080),
        limits: Limits::default(),
        overlap: false,
        stop_grace_ms: 10_000,
    };
    let release = Release {
        needs: Vec::new(),
        app: AppName::parse("hello").expect("a name"),
        environment: EnvironmentName::parse(environment).expect("a name"),
        number: 1,
        version: Version::parse("1").expect("a version"),
        processes: BTreeMap::from([(ProcessName::default_name(), spec)]),
        traffic: TrafficSpec::default(),
    };
    serde_json::to_vec(&release).expect("plain data")
}

async fn problem(response: Response, status: u16, code: &str) -> kit::problem::Problem {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let problem: kit::problem::Problem = response.json().await.expect("a problem");
    assert_eq!(problem.code, code);
    assert!(!problem.hint.is_empty() || status == 400, "{problem:?}");
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_release_is_readable_by_a_shell() {
    let world = World::start().await;
    let answer = problem(world.get("/config/hello/hello.config").await, 404, "nothing-live").await;
    assert!(answer.hint.contains("platformctl deploy hello"), "{}", answer.hint);
    problem(world.get("/files/hello/hello.tgz").await, 404, "nothing-live").await;

    let one = world.manifest("hello", media::RELEASE, &release("production", "one"), &[b"tgz"]).await;
    world.put_manifest("hello", "production-live", &one).await;
    let response = world.get("/config/hello/hello.config").await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.expect("text");
    assert_eq!(
        text,
        "STARTUP_COMMAND=\"./server '--say hello'\"\nGREETING=\"one\"\n# KEY is a secret: it is given to instances only\n"
    );
    let response = world.get("/files/hello/hello.tgz").await;
    assert_eq!(header(&response, "content-type"), "application/gzip");
    assert_eq!(response.bytes().await.expect("a body"), "tgz");

    let two = world.manifest("hello", media::RELEASE, &release("production", "two"), &[b"tgz"]).await;
    world.put_manifest("hello", "production-live", &two).await;
    assert!(world.get("/config/hello/hello.config").await.text().await.expect("text").contains("\"two\""));
    let staging = world.manifest("hello", media::RELEASE, &release("staging", "three"), &[b"tgz"]).await;
    world.put_manifest("hello", "staging-live", &staging).await;
    let response = world.get("/config/hello/hello.config?environment=staging").await;
    assert!(response.text().await.expect("text").contains("\"three\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_such_text_or_file_says_so() {
    let world = World::start().await;
    problem(world.get("/config/Hello/Hello.config").await, 400, "name-invalid").await;
    problem(world.get("/config/hello/other.config").await, 404, "unknown-path").await;
    problem(world.get("/files/hello/hello.zip").await, 404, "unknown-path").await;
    problem(world.get("/config/hello/hello.config?environment=..").await, 400, "name-invalid").await;

    let parts = world.manifest("hello", media::RELEASE, &release("production", "x"), &[b"one", b"two"]).await;
    world.put_manifest("hello", "production-live", &parts).await;
    problem(world.get("/files/hello/hello.tgz").await, 409, "no-single-file").await;
    let version = world.manifest("hello", media::VERSION, b"{}", &[b"tgz"]).await;
    world.put_manifest("hello", "production-live", &version).await;
    problem(world.get("/config/hello/hello.config").await, 409, "release-unreadable").await;
    let broken = world.manifest("hello", media::RELEASE, b"{}", &[b"tgz"]).await;
    world.put_manifest("hello", "production-live", &broken).await;
    problem(world.get("/config/hello/hello.config").await, 409, "release-unreadable").await;
}
