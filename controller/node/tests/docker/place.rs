//! A place of its own on the real Docker: a cluster id, a range, a base image; all of it gone at the end.

use std::process::Command;
use std::time::Duration;

use appbase_core::v1::{InstanceConfig, Limits, Source};
use appbase_core::{AppName, ClusterId, Digest, EnvironmentName, InstanceId, ProcessName, ServerName, Slot, Version};
use bytes::Bytes;
use controller_core::v1::compute::{CreateInstance, InstanceLabels, ObservedInstance};
use futures_util::stream::{self, BoxStream, StreamExt};
use node::docker::{Config, DockerEngine, EnvironmentSubnet, Subnet};
use node::{Compute, LogRequest};

const LIMIT: Duration = Duration::from_secs(15);

pub(crate) struct Place {
    pub(crate) cluster: ClusterId,
    pub(crate) engine: DockerEngine,
    range: Subnet,
    shutdown: kit::Shutdown,
    tasks: kit::Tasks,
}

/// Lower-case letters and digits, different in each process.
pub(crate) fn cluster(word: &str) -> ClusterId {
    ClusterId::parse(&format!("t{word}{}", kit::random::hex::<4>())).expect("a name")
}

pub(crate) fn server() -> ServerName {
    ServerName::parse("local").expect("a name")
}

impl Place {
    /// None, said aloud, where no Docker answers. `index` picks a range that no other test here uses, nor a platform.
    pub(crate) async fn open(index: u8) -> Option<Self> {
        let cluster = cluster("node");
        // All are /20s, one environment each.
        let range: Subnet = format!("10.208.{}.0/20", u16::from(index) * 16).parse().expect("a range");
        let mut config = Config::new(cluster.clone(), server(), "test");
        config.base_image = format!("platformer-test/{cluster}:base");
        config.range = range;
        config.project = Some(cluster.to_string());
        let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
        let base_image = config.base_image.clone();
        let engine = match DockerEngine::connect(config, kit::Clock::start(), &tasks, &shutdown).await {
            Ok(engine) => engine,
            Err(error) => {
                let required = std::env::var("PLATFORMER_TEST_DOCKER").is_ok_and(|word| word == "require");
                assert!(!required, "PLATFORMER_TEST_DOCKER=require, but: {error}");
                #[expect(clippy::print_stdout, reason = "a skipped test must be seen")]
                {
                    println!("SKIPPED: {error}");
                }
                return None;
            }
        };
        let place = Self { cluster, engine, range, shutdown, tasks };
        let (bytes, image) = archive(&base_image, "65532:65532", &[], "");
        place.engine.load_image(stream(bytes), &image).await.expect("the base image is loaded");
        Some(place)
    }

    /// Another engine for the same cluster, over this socket.
    pub(crate) async fn engine_over(&self, socket: &std::path::Path) -> Result<DockerEngine, node::ComputeError> {
        let mut config = Config::new(self.cluster.clone(), server(), "test");
        (config.base_image, config.range, config.socket) = (self.base_image(), self.range, socket.to_path_buf());
        config.project = Some(self.cluster.to_string());
        DockerEngine::connect(config, kit::Clock::start(), &self.tasks, &self.shutdown).await
    }

    pub(crate) fn tag(&self, word: &str) -> String {
        format!("platformer-test/{}:{word}", self.cluster)
    }

    /// What Docker calls an instance.
    pub(crate) fn name(&self, id: &InstanceId) -> String {
        format!("{}-{id}", self.cluster)
    }

    /// What Docker calls the network of an environment.
    pub(crate) fn network(&self, environment: &str) -> String {
        format!("{}-env-{environment}", self.cluster)
    }

    pub(crate) fn base_image(&self) -> String {
        self.tag("base")
    }

    /// A label that says "made by this test", without making it one of the cluster's.
    pub(crate) fn mark(&self) -> String {
        format!("io.platformer.test={}", self.cluster)
    }

    /// `10.210.16` of 10.210.16.0/20.
    pub(crate) fn range_text(&self) -> String {
        let text = self.range.to_string();
        text.rsplit_once('.').expect("four numbers").0.to_owned()
    }

    pub(crate) fn request(&self, environment: &str, number: u32) -> CreateInstance {
        let environment = EnvironmentName::parse(environment).expect("a name");
        let app = AppName::parse("hello").expect("a name");
        let (version, process) = (Version::parse("1").expect("a version"), ProcessName::default_name());
        let id = InstanceId::parse(&format!("{}-{environment}-{number}", self.cluster)).expect("a name");
        let document = Digest::of(b"document");
        let subnet = EnvironmentSubnet::of(self.range).expect("a /20");
        let ip = subnet.instances().nth(number as usize).expect("an address");
        let variables = [("PORT", "8080"), ("PLATFORM_APP", "hello"), ("OTHER", "x")];
        CreateInstance {
            id: id.clone(),
            labels: InstanceLabels {
                cluster: self.cluster.clone(),
                environment: environment.clone(),
                app: app.clone(),
                version: version.clone(),
                process: process.clone(),
                number,
                release: 1,
                document,
                spec: Digest::of(b"spec"),
                slot: Slot::Blue,
                server: server(),
                address: Some((ip, 8080).into()),
            },
            source: Source::Artifact { layers: vec![Digest::of(b"layer")] },
            base: None,
            command: Vec::new(),
            ip: Some(ip.into()),
            network: None,
            limits: Limits::default(),
            stop_grace_ms: 5_000,
            config: InstanceConfig {
                needs: Vec::new(),
                instance: id,
                environment,
                app,
                version,
                process,
                number,
                release: 1,
                document,
                repository: "http://repository:8082".to_owned(),
                token: "secret".to_owned(),
                environment_variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                restart: false,
            },
        }
    }

    pub(crate) async fn seen(&self, id: &InstanceId) -> Option<ObservedInstance> {
        let seen = self.engine.observe().await.expect("seen");
        seen.instances.into_iter().find(|instance| instance.id == *id)
    }

    pub(crate) async fn wait(&self, id: &InstanceId, fits: impl Fn(&ObservedInstance) -> bool) -> ObservedInstance {
        let mut last = None;
        let looking = async {
            loop {
                last = self.seen(id).await;
                match &last {
                    Some(seen) if fits(seen) => return seen.clone(),
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let found = tokio::time::timeout(LIMIT, looking).await.ok();
        found.unwrap_or_else(|| panic!("{id} is still {last:?}"))
    }

    pub(crate) async fn until(&self, what: &str, fits: impl Fn() -> bool) {
        let looking = async {
            while !fits() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(LIMIT, looking).await.is_ok(), "waited in vain: {what}");
    }

    /// The whole log, once a line in it begins with `word`.
    pub(crate) async fn log_until(&self, id: &InstanceId, word: &str) -> String {
        let reading = async {
            loop {
                let log = self.engine.logs(id, LogRequest { tail: 1_000, follow: false }).await.expect("a log");
                let lines: Vec<String> = log.map(|line| line.expect("readable").text).collect().await;
                if lines.iter().any(|line| line.starts_with(word)) {
                    return lines.join("\n");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("{id} never said {word}"))
    }

    /// Docker's own client, for what the engine does not do.
    pub(crate) fn docker(&self, words: &[&str]) -> String {
        let output = Command::new("docker").args(words).output().expect("the docker client runs");
        assert!(output.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shutdown.ask();
        let list = |words: &[&str]| -> Vec<String> {
            let output = Command::new("docker").args(words).output().expect("the docker client runs");
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
        };
        let run = |words: &[&str], names: Vec<String>| {
            if !names.is_empty() {
                let _ = Command::new("docker").args(words).args(names).output();
            }
        };
        let label = format!("label=io.platformer.cluster={}", self.cluster);
        let mark = format!("label={}", self.mark());
        let project = format!("label=io.platformer.project={}", self.cluster);
        run(&["rm", "-f", "-v"], list(&["ps", "-aq", "-f", &label]));
        run(&["rm", "-f", "-v"], list(&["ps", "-aq", "-f", &mark]));
        run(&["rm", "-f", "-v"], list(&["ps", "-aq", "-f", &project]));
        run(&["volume", "rm", "-f"], list(&["volume", "ls", "-q", "-f", &label]));
        run(&["network", "rm"], list(&["network", "ls", "-q", "-f", &label]));
        let reference = format!("platformer-test/{}", self.cluster);
        run(&["rmi", "-f"], list(&["images", "-q", &reference]));
    }
}

pub(crate) fn stream(bytes: Vec<u8>) -> BoxStream<'static, std::io::Result<Bytes>> {
    stream::iter(bytes.chunks(64 << 10).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>()).boxed()
}

/// A docker-archive with one layer that holds the stub as boot and as `/app`, and the id its image has once loaded.
pub(crate) fn archive(tag: &str, user: &str, words: &[&str], passwd: &str) -> (Vec<u8>, String) {
    let stub = std::fs::read(env!("CARGO_BIN_EXE_node-stub")).expect("the stub is built");
    let mut layer = tar::Builder::new(Vec::new());
    let is_base = words.is_empty();
    let directories: &[&str] =
        if is_base { &["platformer/", "platformer/bin/", "platformer/instance/", "tmp/"] } else { &["etc/", "tmp/"] };
    for path in directories {
        put(
            &mut layer,
            path,
            if *path == "tmp/" { 0o1777 } else { 0o755 },
            if *path == "platformer/instance/" { 65_532 } else { 0 },
            &[],
        );
    }
    if is_base {
        put(&mut layer, "platformer/bin/boot", 0o755, 0, &stub);
    } else {
        put(&mut layer, "etc/passwd", 0o644, 0, passwd.as_bytes());
        put(&mut layer, "app", 0o755, 0, &stub);
    }
    let layer = layer.into_inner().expect("a layer");
    let entrypoint: &[&str] = if is_base { &["/platformer/bin/boot"] } else { words };
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "User": user, "Entrypoint": entrypoint, "Env": ["OF_IMAGE=kept"],
            // Equal images of two tests would have one id, and the first to end would take it from the other.
            "Labels": { "test": tag } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] },
        "history": [],
    });
    let config = serde_json::to_vec(&config).expect("JSON");
    let id = Digest::of(&config);
    let name = format!("{}.json", id.hex());
    let manifest = serde_json::json!([{ "Config": name, "RepoTags": [tag], "Layers": ["layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::new());
    put(&mut archive, &name, 0o644, 0, &config);
    put(&mut archive, "layer.tar", 0o644, 0, &layer);
    put(&mut archive, "manifest.json", 0o644, 0, manifest.to_string().as_bytes());
    (archive.into_inner().expect("an archive"), id.to_string())
}

fn put(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, owner: u64, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    if path.ends_with('/') {
        header.set_entry_type(tar::EntryType::Directory);
    }
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    tar.append_data(&mut header, path, bytes).expect("in memory");
}
