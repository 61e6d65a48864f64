//! The process engine with the real boot and the real hello-world, and a repository in this process.
//!
//! Needs both binaries in the profile's directory: `cargo build --profile ci -p boot -p hello-world`.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use appbase_core::v1::{InstanceConfig, InstanceSpec, Limits, Source};
use appbase_core::{AppName, ClusterId, Digest, EnvironmentName, InstanceId, ProcessName, ServerName, Slot, Version};
use axum::Router;
use axum::extract::{Path as Params, State};
use axum::http::StatusCode;
use axum::routing::get;
use controller_core::v1::compute::{CreateInstance, InstanceLabels, InstancePhase, ObservedInstance};
use futures_util::StreamExt;
use kit::{Clock, Tasks};
use node::process::{ProcessConfig, ProcessEngine, find_boot};
use node::{Compute, ComputeError, LogRequest};
use serde_json::json;

type Blobs = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

struct World {
    directory: tempfile::TempDir,
    tasks: Tasks,
    blobs: Blobs,
    repository: String,
    layer: Digest,
}

async fn blob(
    State(blobs): State<Blobs>,
    Params((_, digest)): Params<(String, String)>,
) -> Result<Vec<u8>, StatusCode> {
    blobs.lock().unwrap().get(&digest).cloned().ok_or(StatusCode::NOT_FOUND)
}

/// hello-world lies where boot does.
fn hello_world() -> PathBuf {
    let path = find_boot().expect("built beside this test").with_file_name("hello-world");
    assert!(path.is_file(), "{} is missing: cargo build --profile ci -p boot -p hello-world", path.display());
    path
}

fn layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    // A program may lie on the disk with holes.
    builder.sparse(false);
    builder.append_path_with_name(hello_world(), "hello-world").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    builder.append_data(&mut header, "version", &b"7\n"[..]).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

impl World {
    async fn new() -> Self {
        let (tasks, blobs) = (Tasks::new(), Blobs::default());
        let listener = kit::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let repository = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v2/{app}/blobs/{digest}", get(blob)).with_state(Arc::clone(&blobs));
        kit::serve::http(&tasks, "repository", listener, router, &kit::Shutdown::new()).unwrap();
        let bytes = layer();
        let layer = Digest::of(&bytes);
        blobs.lock().unwrap().insert(layer.to_string(), bytes);
        Self { directory: tempfile::tempdir().unwrap(), tasks, blobs, repository, layer }
    }

    fn engine_of(&self, cluster: &str) -> ProcessEngine {
        let config = ProcessConfig {
            data: self.directory.path().to_path_buf(),
            boot: find_boot().unwrap(),
            server: ServerName::parse("here").unwrap(),
            cluster: ClusterId::parse(cluster).unwrap(),
        };
        ProcessEngine::new(config, &self.tasks, Clock::start()).unwrap()
    }

    fn engine(&self) -> ProcessEngine {
        self.engine_of("cluster1")
    }

    fn path(&self, id: &InstanceId) -> PathBuf {
        self.directory.path().join("instances").join(id.as_str())
    }

    /// A request for instance `number` with these switches of hello-world; its port is free now.
    fn request(&self, number: u32, switches: &[(&str, &str)]) -> CreateInstance {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let values: BTreeMap<_, _> = switches.iter().map(|(name, value)| (*name, json!({"plain": value}))).collect();
        let spec: InstanceSpec = serde_json::from_value(json!({
            "source": Source::Artifact { layers: vec![self.layer] }, "command": ["./hello-world"],
            "values": values, "port": 8080, "stop_grace_ms": 1000,
        }))
        .unwrap();
        let release = serde_json::to_vec(&json!({
            "app": "hello-world", "environment": "production", "number": 1, "version": "7",
            "processes": {"web": spec},
            "traffic": {"routes": [], "processes": {}, "policy": appbase_core::v1::Policy::default()},
        }))
        .unwrap();
        let document = Digest::of(&release);
        self.blobs.lock().unwrap().insert(document.to_string(), release);
        let (app, environment) = (AppName::parse("hello-world").unwrap(), EnvironmentName::default_name());
        let (version, process) = (Version::parse("7").unwrap(), ProcessName::default_name());
        let id = InstanceId::of(&environment, &app, "7", 1, &process, number);
        let labels = InstanceLabels {
            cluster: ClusterId::parse("cluster1").unwrap(),
            environment: environment.clone(),
            app: app.clone(),
            version: version.clone(),
            process: process.clone(),
            number,
            release: 1,
            document,
            spec: spec.digest(),
            slot: Slot::Blue,
            server: ServerName::parse("here").unwrap(),
            address: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        };
        let config = InstanceConfig {
            needs: Vec::new(),
            instance: id.clone(),
            environment,
            app,
            version,
            process,
            number,
            release: 1,
            document,
            repository: self.repository.clone(),
            token: "secret-token".to_owned(),
            environment_variables: [("PORT".to_owned(), port.to_string())].into(),
            restart: true,
        };
        let (source, command) = (spec.source.clone(), spec.command.clone());
        let limits = Limits::default();
        CreateInstance {
            id,
            labels,
            source,
            base: None,
            command,
            ip: None,
            network: None,
            limits,
            stop_grace_ms: 1000,
            config,
        }
    }

    async fn started(&self, engine: &ProcessEngine, request: &CreateInstance) {
        engine.create(request).await.unwrap();
        engine.start(&request.id).await.unwrap();
    }

    async fn listening(&self, engine: &ProcessEngine, request: &CreateInstance) {
        self.started(engine, request).await;
        until("it answers", async || get_text(request, "/health").await.is_some()).await;
    }
}

impl Drop for World {
    /// A failed test leaves nothing running.
    fn drop(&mut self) {
        let entries = std::fs::read_dir(self.directory.path().join("instances")).unwrap().flatten();
        for entry in entries {
            let Some(pid) = state(&entry.path(), "boot_pid") else { continue };
            for stat in kit::process::all().into_iter().filter(|stat| stat.session == pid) {
                let _ = rustix::process::kill_process(
                    rustix::process::Pid::from_raw(stat.pid).unwrap(),
                    rustix::process::Signal::KILL,
                );
            }
        }
    }
}

fn state(directory: &Path, field: &str) -> Option<i32> {
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(directory.join("state.json")).ok()?).ok()?;
    i32::try_from(state.get(field)?.as_i64()?).ok()
}

async fn get_text(request: &CreateInstance, path: &str) -> Option<String> {
    let url = format!("http://{}{path}", request.labels.address.unwrap());
    reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.ok()?.text().await.ok()
}

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    for _ in 0..750 {
        if reached().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not reached in 15 s: {what}");
}

async fn seen(engine: &ProcessEngine, id: &InstanceId) -> Option<ObservedInstance> {
    engine.observe().await.unwrap().instances.into_iter().find(|seen| seen.id == *id)
}

fn alive(pid: i32) -> bool {
    kit::process::stat(pid).is_some_and(|stat| !stat.zombie)
}

async fn lines(engine: &ProcessEngine, id: &InstanceId, tail: usize) -> Vec<String> {
    let lines = engine.logs(id, LogRequest { tail, follow: false }).await.unwrap();
    lines.map(|line| line.unwrap().text).collect().await
}

#[tokio::test]
async fn an_instance_lives_from_create_to_remove() {
    let world = World::new().await;
    let engine = world.engine();
    let request = world.request(1, &[]);
    let id = &request.id;
    let mut hints = engine.hints();
    engine.create(&request).await.unwrap();
    let created = seen(&engine, id).await.unwrap();
    assert_eq!((created.phase, &created.labels, created.running_for_ms), (InstancePhase::Created, &request.labels, 0));
    engine.create(&request).await.expect("twice is once");
    let mode = std::fs::metadata(world.path(id).join("instance.json")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600, "it holds a token");

    engine.start(id).await.unwrap();
    hints.changed().await.unwrap();
    until("it answers", async || get_text(&request, "/greeting").await.is_some()).await;
    assert_eq!(get_text(&request, "/greeting").await.unwrap(), "hello from hello-world 7\n");
    assert!(get_text(&request, "/instance").await.unwrap().contains("\"instance\":\"hello-world-v7-r1-web-1\""));
    let boot = state(&world.path(id), "boot_pid").unwrap();
    engine.start(id).await.expect("twice is once");
    assert_eq!(state(&world.path(id), "boot_pid").unwrap(), boot);
    until("the run is counted", async || seen(&engine, id).await.unwrap().running_for_ms > 0).await;
    let running = seen(&engine, id).await.unwrap();
    assert_eq!((running.phase, running.restarts, running.problem), (InstancePhase::Running, 0, None));
    assert!(running.running_for_ms < 60_000, "{}", running.running_for_ms);

    engine.stop(id, Duration::from_secs(10)).await.unwrap();
    let stopped = seen(&engine, id).await.unwrap();
    assert_eq!((stopped.phase, stopped.running_for_ms), (InstancePhase::Ended, 0));
    assert_eq!(stopped.last_exit.unwrap().code, Some(0), "it was asked and ended by itself");
    assert!(kit::process::stat(boot).is_none(), "not even a zombie is left");
    engine.stop(id, Duration::from_secs(10)).await.expect("twice is once");

    engine.start(id).await.unwrap();
    until("it answers again", async || get_text(&request, "/health").await.is_some()).await;
    let app = state(&world.path(id), "app_pid").unwrap();
    engine.remove(id).await.unwrap();
    assert!(seen(&engine, id).await.is_none() && !world.path(id).exists() && !alive(app));
    engine.remove(id).await.expect("twice is once");
    assert!(matches!(engine.start(id).await, Err(ComputeError::Unknown(_))));
    engine.stop(id, Duration::ZERO).await.expect("one that is not there is stopped");
}

#[tokio::test]
async fn a_new_engine_adopts_what_runs() {
    let world = World::new().await;
    let request = world.request(1, &[]);
    let first = world.engine();
    world.listening(&first, &request).await;
    drop(first);
    let second = world.engine();
    let adopted = seen(&second, &request.id).await.unwrap();
    assert_eq!((adopted.phase, adopted.labels), (InstancePhase::Running, request.labels.clone()));
    let boot = state(&world.path(&request.id), "boot_pid").unwrap();
    second.create(&request).await.unwrap();
    second.start(&request.id).await.unwrap();
    assert_eq!(state(&world.path(&request.id), "boot_pid").unwrap(), boot, "nothing was started again");
    second.stop(&request.id, Duration::from_secs(10)).await.unwrap();
    assert!(!alive(boot));
    assert_eq!(seen(&second, &request.id).await.unwrap().phase, InstancePhase::Ended);
}

#[tokio::test]
async fn who_ignores_sigterm_is_killed_after_the_grace() {
    let world = World::new().await;
    let (engine, request) = (world.engine(), world.request(1, &[("HELLO_IGNORE_SIGTERM", "1")]));
    world.listening(&engine, &request).await;
    let clock = Clock::start();
    engine.stop(&request.id, Duration::from_millis(300)).await.unwrap();
    let took = clock.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    let ended = seen(&engine, &request.id).await.unwrap();
    assert_eq!((ended.phase, ended.last_exit.unwrap().signal), (InstancePhase::Ended, Some(9)));
}

#[tokio::test]
async fn a_crash_loop_is_reported_and_can_be_stopped() {
    let world = World::new().await;
    let (engine, request) = (world.engine(), world.request(1, &[("HELLO_CRASH_AT_ONCE", "1")]));
    world.started(&engine, &request).await;
    until("it was started again twice", async || seen(&engine, &request.id).await.unwrap().restarts >= 2).await;
    let crashing = seen(&engine, &request.id).await.unwrap();
    assert_eq!((crashing.phase, crashing.last_exit.unwrap().code), (InstancePhase::Running, Some(1)));
    let log = lines(&engine, &request.id, 100).await;
    assert_eq!(log[0], "hello-world: crashing at once, on purpose");
    assert_eq!(log[1], "boot: app ended (code 1); starting again in 200 ms");
    assert_eq!(lines(&engine, &request.id, 1).await.len(), 1);
    engine.stop(&request.id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(seen(&engine, &request.id).await.unwrap().phase, InstancePhase::Ended);
}

#[tokio::test]
async fn logs_are_followed_to_the_end_of_the_instance() {
    let world = World::new().await;
    let (engine, request) = (world.engine(), world.request(1, &[]));
    world.listening(&engine, &request).await;
    let mut lines = engine.logs(&request.id, LogRequest { tail: 10, follow: true }).await.unwrap();
    assert!(lines.next().await.unwrap().unwrap().text.contains("version 7 listens on port"));
    engine.stop(&request.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().text, "hello-world: stopping: finishing what is in flight");
    assert!(lines.next().await.is_none(), "an ended instance has no more to say");
}

#[tokio::test]
async fn a_killed_boot_is_seen_and_its_app_makes_way() {
    let world = World::new().await;
    let (engine, request) = (world.engine(), world.request(1, &[]));
    world.listening(&engine, &request).await;
    let [boot, app] = ["boot_pid", "app_pid"].map(|field| state(&world.path(&request.id), field).unwrap());
    rustix::process::kill_process(rustix::process::Pid::from_raw(boot).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until("its loss is seen", async || seen(&engine, &request.id).await.unwrap().phase == InstancePhase::Lost).await;
    let problem = seen(&engine, &request.id).await.unwrap().problem.unwrap();
    assert!(problem.contains(&format!("its app still runs (pid {app})")), "{problem}");
    engine.start(&request.id).await.unwrap();
    until("the new app answers on the same port", async || {
        get_text(&request, "/instance").await.is_some_and(|text| !text.contains(&format!("\"pid\":{app},")))
    })
    .await;
    assert!(!alive(app));

    let boot = state(&world.path(&request.id), "boot_pid").unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(boot).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until("boot is gone", async || !alive(boot)).await;
    engine.remove(&request.id).await.unwrap();
    assert!(get_text(&request, "/health").await.is_none(), "the app left behind was ended, too");
}

#[tokio::test]
async fn a_problem_of_boot_is_the_instances() {
    let world = World::new().await;
    let (engine, request) = (world.engine(), world.request(1, &[]));
    world.blobs.lock().unwrap().clear();
    world.started(&engine, &request).await;
    until("the problem is seen", async || {
        let seen = seen(&engine, &request.id).await.unwrap();
        seen.phase == InstancePhase::Running && seen.problem.is_some_and(|text| text.contains("cannot fetch release"))
    })
    .await;
    engine.remove(&request.id).await.unwrap();
}

#[tokio::test]
async fn only_what_is_of_this_cluster_is_seen_or_touched() {
    let world = World::new().await;
    let (mine, other, request) = (world.engine(), world.engine_of("cluster2"), world.request(1, &[]));
    mine.create(&request).await.unwrap();
    std::fs::create_dir(world.directory.path().join("instances/a-strangers")).unwrap();
    assert_eq!(mine.observe().await.unwrap().instances.len(), 1);
    assert!(other.observe().await.unwrap().instances.is_empty());
    for refused in [other.create(&request).await, other.start(&request.id).await, other.remove(&request.id).await] {
        assert!(matches!(refused, Err(ComputeError::Refused { .. })), "{refused:?}");
    }
    let mut changed = request.clone();
    changed.labels.slot = Slot::Green;
    assert!(matches!(mine.create(&changed).await, Err(ComputeError::Refused { .. })));
    mine.remove(&InstanceId::parse("a-strangers").unwrap()).await.unwrap();
    assert!(world.directory.path().join("instances/a-strangers").exists());
}

#[tokio::test]
async fn damage_is_a_problem_never_an_absence() {
    let world = World::new().await;
    let (engine, request) = (world.engine(), world.request(1, &[]));
    engine.create(&request).await.unwrap();
    std::fs::write(world.path(&request.id).join("labels.json"), "{torn").unwrap();
    let seen = seen(&engine, &request.id).await.unwrap();
    assert_eq!(seen.labels, request.labels);
    assert!(seen.problem.unwrap().contains("labels.json is damaged"));
    std::fs::write(world.path(&request.id).join("state.json"), "{torn").unwrap();
    let seen = engine.observe().await.unwrap().instances.remove(0);
    assert!(seen.phase == InstancePhase::Running && seen.problem.unwrap().contains("state.json"));
    std::fs::write(world.path(&request.id).join("request.json"), "{torn").unwrap();
    let error = engine.observe().await.unwrap_err().to_string();
    assert!(error.contains("cannot read the labels of") && error.contains(request.id.as_str()), "{error}");
}

#[tokio::test]
async fn images_are_refused_and_a_missing_boot_is_named() {
    let world = World::new().await;
    let (engine, mut request) = (world.engine(), world.request(1, &[]));
    let reason = "refused: the process engine runs artifacts only; images need Docker";
    assert_eq!(engine.has_image("x").await.unwrap_err().to_string(), reason);
    assert_eq!(engine.load_image(futures_util::stream::empty().boxed(), "x").await.unwrap_err().to_string(), reason);
    request.source = Source::Image { archive: world.layer, image: "sha256:x".to_owned() };
    assert_eq!(engine.create(&request).await.unwrap_err().to_string(), reason);

    let config = ProcessConfig {
        data: world.directory.path().to_path_buf(),
        boot: "/nowhere/boot".into(),
        server: ServerName::parse("here").unwrap(),
        cluster: ClusterId::parse("cluster1").unwrap(),
    };
    let error = ProcessEngine::new(config, &world.tasks, Clock::start()).unwrap_err().to_string();
    assert!(error.contains("looked at /nowhere/boot"), "{error}");
}
