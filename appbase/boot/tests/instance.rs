//! boot as the engines start it: the real program, a repository in this process.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use appbase_core::Digest;
use appbase_core::v1::{InstanceExit, InstanceState};
use axum::Router;
use axum::extract::{Path as Params, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;

/// Blobs by digest and manifests by tag, served until dropped; counts what was asked.
#[derive(Clone, Default)]
struct Shelf {
    blobs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<u32>>,
}

impl Shelf {
    fn put(&self, bytes: Vec<u8>) -> String {
        let digest = Digest::of(&bytes).to_string();
        self.blobs.lock().unwrap().insert(digest.clone(), bytes);
        digest
    }

    fn asked(&self) -> u32 {
        *self.asked.lock().unwrap()
    }
}

async fn serve_one(
    State(shelf): State<Shelf>,
    Params((_, name)): Params<(String, String)>,
) -> Result<Vec<u8>, StatusCode> {
    *shelf.asked.lock().unwrap() += 1;
    shelf.blobs.lock().unwrap().get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
}

struct World {
    directory: tempfile::TempDir,
    shelf: Shelf,
    repository: String,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let repository = format!("http://{}", listener.local_addr().unwrap());
        let shelf = Shelf::default();
        let router = Router::new()
            .route("/v2/{app}/blobs/{digest}", get(serve_one))
            .route("/v2/{app}/manifests/{digest}", get(serve_one))
            .with_state(shelf.clone());
        let serve = std::future::IntoFuture::into_future(axum::serve(listener, router));
        std::thread::spawn({
            let handle = runtime.handle().clone();
            move || drop(handle.block_on(serve))
        });
        Self { directory: tempfile::tempdir().unwrap(), shelf, repository, _runtime: runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("instance").join(name)
    }

    /// Writes `instance.json` for a release whose app is the shell script `script`.
    fn release(&self, script: &str, values: serde_json::Value, restart: bool) -> String {
        let layer = self.shelf.put(layer(&[("run.sh", script), ("data/word", "inside")]));
        self.release_of(json!([layer]), json!(["/bin/sh", "run.sh"]), values, restart)
    }

    fn release_of(
        &self,
        layers: serde_json::Value,
        command: serde_json::Value,
        values: serde_json::Value,
        restart: bool,
    ) -> String {
        let document = self.shelf.put(
            serde_json::to_vec(&json!({
                "app": "shop", "environment": "production", "number": 3, "version": "7",
                "processes": {"web": {
                    "source": {"kind": "artifact", "layers": layers}, "command": command,
                    "values": values, "port": 8080, "stop_grace_ms": 300,
                }},
                "traffic": {"routes": [], "processes": {}, "policy": {"settle_ms": 0, "probe_deadline_ms": 0,
                    "request_drain_ms": 0, "stream_drain_ms": 0, "rollback_window_ms": 0}},
            }))
            .unwrap(),
        );
        self.config(&document, &self.repository, restart);
        document
    }

    fn config(&self, document: &str, repository: &str, restart: bool) {
        fs::create_dir_all(self.path("")).unwrap();
        let config = json!({
            "instance": "shop-v7-r3-web-1", "environment": "production", "app": "shop", "version": "7",
            "process": "web", "number": 1, "release": 3, "document": document, "repository": repository,
            "environment_variables": {"PORT": "20001"}, "restart": restart,
        });
        fs::write(self.path("instance.json"), config.to_string()).unwrap();
    }

    fn boot(&self, arguments: &[&str]) -> Boot {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boot"));
        command.args(["run", "--config"]).arg(self.path("instance.json")).args(arguments);
        Boot::start(&mut command)
    }

    fn state(&self) -> Option<InstanceState> {
        serde_json::from_slice(&fs::read(self.path("state.json")).ok()?).ok()
    }

    fn exit(&self) -> InstanceExit {
        serde_json::from_slice(&fs::read(self.path("exit.json")).unwrap()).unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

struct Boot(Child);

impl Boot {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("boot has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Exit code and what it wrote on stdout and stderr.
    fn finished(mut self) -> (i32, String, String) {
        use std::io::Read;
        let code = self.ended().code().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (code, out, err)
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.signal("TERM");
            std::thread::sleep(Duration::from_millis(50));
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if reached() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not reached in 15 s: {what}");
}

fn runs(pid: &str) -> bool {
    pid.trim().parse().is_ok_and(|pid| kit::process::stat(pid).is_some_and(|stat| !stat.zombie))
}

#[test]
fn it_fetches_runs_and_needs_no_repository_again() {
    let world = World::new();
    let script = "echo $WORD $PORT $PLATFORM_INSTANCE $(cat data/word) $(pwd); exit 7";
    let document = world.release(script, json!({"WORD": {"plain": "hello"}, "PORT": {"plain": "1"}}), false);
    let (code, out, err) = world.boot(&[]).finished();
    let app = world.path("app").canonicalize().unwrap();
    let expect = format!("hello 20001 shop-v7-r3-web-1 inside {}\n", app.display());
    assert_eq!((code, out.as_str(), err.as_str()), (7, expect.as_str(), ""));
    assert_eq!((world.exit().code, world.exit().signal), (Some(7), None));
    assert_eq!(world.state().unwrap().phase, "ended");
    assert_eq!(world.shelf.asked(), 2, "the document and one layer");

    world.config(&document, "http://127.0.0.1:1", false);
    assert_eq!(world.boot(&[]).finished(), (7, expect, String::new()));

    // A document that is not the marker's is fetched, and what was unpacked makes way.
    world.release("echo two; ls", json!({}), false);
    assert_eq!(world.boot(&[]).finished().1, "two\ndata\nrun.sh\n");
    assert_eq!(world.shelf.asked(), 4);
}

#[test]
fn what_cannot_be_kept_runs_all_the_same() {
    let world = World::new();
    world.release("echo up", json!({}), false);
    fs::create_dir_all(world.path("release.json/taken")).unwrap();
    let (code, out, err) = world.boot(&[]).finished();
    assert_eq!((code, out.as_str()), (0, "up\n"));
    assert!(err.contains("the next start will fetch it again: cannot write to "), "{err}");
    assert!(!world.path("marker.json").exists(), "it would say more than is there");
    fs::remove_dir_all(world.path("release.json")).unwrap();
    assert_eq!(world.boot(&[]).finished(), (0, out, String::new()));
    assert_eq!(world.shelf.asked(), 4);
}

#[test]
fn an_unreachable_repository_is_waited_for_and_said() {
    let world = World::new();
    let document = world.release("echo up; exec sleep 100", json!({}), false);
    let blob = world.shelf.blobs.lock().unwrap().remove(&document).unwrap();
    let mut boot = world.boot(&["--session"]);
    let problem = || world.state().and_then(|state| state.problem).unwrap_or_default();
    until("a missing document is a problem", || {
        problem().contains(&format!("cannot fetch release document {document}"))
    });
    world.shelf.blobs.lock().unwrap().insert(document.clone(), b"something else".to_vec());
    until("so is a wrong one", || problem().contains("the repository or the way to it is damaged"));
    world.shelf.blobs.lock().unwrap().insert(document, blob);
    until("it runs", || world.state().is_some_and(|state| state.phase == "running" && state.problem.is_none()));
    until("its log is kept", || world.text("log").ends_with("up\n"));
    boot.signal("TERM");
    assert_eq!(boot.ended().code(), Some(128 + 15));
    assert_eq!(world.exit().signal, Some(15));
}

#[test]
fn asked_to_stop_while_fetching_it_stops() {
    let world = World::new();
    world.config(&Digest::of(b"nowhere").to_string(), "http://127.0.0.1:1", true);
    let mut boot = world.boot(&["--session"]);
    until("fetching", || world.state().is_some_and(|state| state.problem.is_some()));
    boot.signal("TERM");
    assert_eq!(boot.ended().code(), Some(128 + 15));
}

#[test]
fn what_cannot_be_run_is_refused_with_a_reason() {
    let hostile = {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "way-out", "/etc").unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    };
    let world = World::new();
    let [sound, bad] = [layer(&[("sound", "x")]), hostile].map(|bytes| world.shelf.put(bytes));
    let refused = |expect: &str| {
        let (code, _, err) = world.boot(&[]).finished();
        assert!(code == 125 && err.contains(expect), "{code} {err}");
        assert!(world.state().unwrap().problem.unwrap().contains(expect));
        let left: Vec<_> =
            ["app", "unfinished", "marker.json"].into_iter().filter(|n| world.path(n).exists()).collect();
        assert!(left.is_empty(), "{left:?}");
    };
    world.release_of(json!([sound, bad]), json!(["x"]), json!({}), true);
    refused("entry \"way-out\" is a link out of the directory");
    world.release_of(json!([sound]), json!(["x"]), json!({"KEY": {"secret": {"version": "s-1"}}}), true);
    refused("has the secret KEY: this boot cannot open secrets");
    let document = world.shelf.put(b"{}".to_vec());
    world.config(&document, &world.repository, true);
    refused("it is unreadable: missing field");

    world.release_of(json!([sound]), json!(["./gone"]), json!({}), false);
    let (code, _, err) = world.boot(&[]).finished();
    assert!(code == 127 && err.contains("app/./gone: no such program"), "{code} {err}");
}

#[test]
fn signals_reach_the_app_and_nothing_is_left_behind() {
    let world = World::new();
    // The child ignores TERM and the grandchild leaves the group: both must be gone in the end.
    let script = "trap 'echo got usr1' USR1; trap 'echo got hup' HUP; trap 'echo got term; exit 3' TERM
        (trap '' TERM; while :; do sleep 1; done) & echo $! > child
        setsid sleep 1000 & echo $! > stray
        echo ready; while :; do sleep 0.05; done";
    world.release(script, json!({}), true);
    let mut boot = world.boot(&["--session"]);
    until("ready", || world.text("log").contains("ready\n"));
    boot.signal("USR1");
    until("USR1", || world.text("log").contains("got usr1\n"));
    boot.signal("HUP");
    until("HUP", || world.text("log").contains("got hup\n"));
    boot.signal("TERM");
    assert_eq!(boot.ended().code(), Some(3), "a stop is no reason to restart");
    assert!(world.text("log").contains("got term\n"));
    for name in ["app/child", "app/stray"] {
        let pid = world.text(name);
        assert!(!pid.is_empty() && !runs(&pid), "{name} {pid} still runs");
    }
}

#[test]
fn an_app_that_will_not_stop_is_killed_after_its_grace() {
    let world = World::new();
    world.release("trap '' TERM; echo ready; while :; do sleep 0.05; done", json!({}), true);
    let mut boot = world.boot(&["--session"]);
    until("ready", || world.text("log").contains("ready\n"));
    boot.signal("TERM");
    until("stopping is said", || world.state().unwrap().phase == "stopping");
    assert_eq!(boot.ended().code(), Some(128 + 9));
    assert!(world.text("log").contains("boot: app has not stopped in 300 ms: killing it"));
    assert_eq!(world.exit().signal, Some(9));
}

#[test]
fn a_crashing_app_is_started_again_more_and_more_slowly() {
    let world = World::new();
    world.release("echo try; exit 5", json!({}), true);
    let mut boot = world.boot(&["--session"]);
    until("three restarts", || world.state().is_some_and(|state| state.restarts >= 3 && state.phase == "waiting"));
    let state = world.state().unwrap();
    assert_eq!(state.last_exit.unwrap().code, Some(5));
    let log = world.text("log");
    for pause in [200, 400, 800] {
        assert!(log.contains(&format!("try\nboot: app ended (code 5); starting again in {pause} ms\n")), "{log}");
    }
    boot.signal("TERM");
    assert_eq!(boot.ended().code(), Some(5));
}

#[test]
fn one_directory_has_one_boot() {
    let world = World::new();
    world.release("echo ready; exec sleep 100", json!({}), false);
    let _first = world.boot(&["--session"]);
    until("ready", || world.text("log").contains("ready\n"));
    let (code, _, err) = world.boot(&["--session"]).finished();
    assert!(code == 125 && err.contains("another boot runs in"), "{code} {err}");
}

#[test]
fn an_image_keeps_its_own_directory_and_environment() {
    let world = World::new();
    let document = json!({
        "app": "shop", "environment": "production", "number": 3, "version": "7",
        "processes": {"web": {"source": {"kind": "image", "archive": Digest::of(b"a"), "image": "sha256:1"},
            "values": {"WORD": {"plain": "value"}}, "stop_grace_ms": 300}},
        "traffic": {"routes": [], "processes": {}, "policy": {"settle_ms": 0, "probe_deadline_ms": 0,
            "request_drain_ms": 0, "stream_drain_ms": 0, "rollback_window_ms": 0}},
    });
    let document = world.shelf.put(serde_json::to_vec(&document).unwrap());
    world.config(&document, &world.repository, false);
    let mut command = Command::new(env!("CARGO_BIN_EXE_boot"));
    command.args(["run", "--config"]).arg(world.path("instance.json"));
    command.args(["--", "/bin/sh", "-c", "echo $OF_IMAGE $WORD $(pwd)"]).env("OF_IMAGE", "image").current_dir("/usr");
    assert_eq!(Boot::start(&mut command).finished(), (0, "image value /usr\n".to_owned(), String::new()));
    assert_eq!(world.shelf.asked(), 1, "only the document");
}

#[test]
fn the_live_release_is_found_by_its_tag() {
    let world = World::new();
    let document = world.release("echo live $PORT $PLATFORM_INSTANCE", json!({}), false);
    let manifest =
        json!({"schemaVersion": 2, "config": {"digest": document, "size": 1, "mediaType": "x"}, "layers": []});
    world.shelf.blobs.lock().unwrap().insert("production-live".to_owned(), manifest.to_string().into_bytes());
    let start = |repository: &str, directory: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boot"));
        Boot::start(command.args(["shop", repository]).env("BOOT_DIR", directory)).finished()
    };
    let directory = world.directory.path().join("live");
    let host = world.repository.strip_prefix("http://").unwrap();
    assert_eq!(start(host, &directory), (0, "live 8080 shop-v7-r3-web-1\n".to_owned(), String::new()));
    // Without the repository it starts what it has, and says so.
    let (code, out, err) = start("127.0.0.1:1", &directory);
    assert_eq!((code, out.as_str()), (0, "live 8080 shop-v7-r3-web-1\n"));
    assert!(
        err.contains("no answer from http://127.0.0.1:1") && err.contains("starting what was fetched before"),
        "{err}"
    );
}

#[test]
fn it_writes_with_care() {
    let world = World::new();
    world.release("exit 0", json!({}), false);
    fs::create_dir_all(world.path("unfinished/app")).unwrap();
    fs::File::create(world.path("unfinished/layer")).unwrap().write_all(b"cut short").unwrap();
    assert_eq!(world.boot(&[]).finished().0, 0);
    assert!(!world.path("unfinished").exists(), "what an earlier boot left half done is gone");
    assert!(world.path("marker.json").exists());
}
