//! Platform: every part a process or a container of its own, so that each can be killed alone.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::Load;
use crate::docker::{self, Docker};

/// No state of a test takes longer than this to come about.
pub const LIMIT: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(20);

/// What a platform of a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Parts and instances are processes of this machine.
    Process,
    /// They are containers.
    Docker,
}

impl Engine {
    /// Whether it is there; what is missing is said aloud.
    pub fn answers(self) -> bool {
        self == Self::Process || docker::answers()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Repository,
    Controller,
    Lb1,
    Lb2,
    Dns,
}

impl Part {
    pub const ALL: [Self; 5] = [Self::Repository, Self::Controller, Self::Lb1, Self::Lb2, Self::Dns];

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Controller => "controller",
            Self::Lb1 | Self::Lb2 => "lb",
            Self::Dns => "dns",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lb1 => "lb-1",
            Self::Lb2 => "lb-2",
            other => other.program(),
        }
    }
}

/// A running platform.
pub struct Platform {
    directory: tempfile::TempDir,
    listen: BTreeMap<Part, SocketAddr>,
    admin: BTreeMap<Part, SocketAddr>,
    /// Where lbs take requests over TLS.
    https: BTreeMap<Part, SocketAddr>,
    pub(crate) children: BTreeMap<Part, Child>,
    pub(crate) settings: Vec<(String, String)>,
    /// Programs with fail points, where there are such.
    pub(crate) faulty: bool,
    /// What the owner shows instead of the keys.
    pub(crate) owner_token: Option<PathBuf>,
    /// Where the parts are, unless they are processes.
    docker: Option<Docker>,
}

/// Where the programs of this build are: tests stand in a directory beside them, the bench is one of them.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let directory = own.parent().expect("it stands in a directory");
    let directory = directory.parent().filter(|_| directory.ends_with("deps")).unwrap_or(directory);
    let path = directory.join(name);
    assert!(path.exists(), "{} is not built: tests/build.sh", path.display());
    path
}

/// The same with fail points (see `kit::faults`).
pub fn faulty_program(name: &str) -> PathBuf {
    program(&format!("faults/{name}"))
}

impl Platform {
    /// All parts as processes.
    pub fn start() -> Self {
        Self::on(Engine::Process)
    }

    /// All parts, with a settle time and name TTL of 200 ms.
    pub fn on(engine: Engine) -> Self {
        let mut platform = Self::prepare();
        if engine == Engine::Docker {
            let docker = Docker::prepare(&platform.settings, &platform.keys());
            [platform.listen, platform.admin, platform.https] = docker.addresses();
            platform.docker = Some(docker);
        }
        platform.start_parts();
        platform
    }

    /// The same with further environment variables for every part.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut platform = Self::prepare();
        platform.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        platform.start_parts();
        platform
    }

    /// Lets `prepare` do something to the empty directory first.
    pub fn start_prepared(prepare: impl FnOnce(&Path)) -> Self {
        let mut platform = Self::prepare();
        prepare(platform.directory.path());
        platform.start_parts();
        platform
    }

    /// Directory and ports; nothing runs yet.
    pub(crate) fn prepare() -> Self {
        let platform = Self {
            directory: tempfile::tempdir().expect("a directory"),
            listen: Part::ALL.iter().map(|part| (*part, free_address(*part == Part::Dns))).collect(),
            admin: Part::ALL.iter().map(|part| (*part, free_address(false))).collect(),
            https: [Part::Lb1, Part::Lb2].map(|lb| (lb, free_address(false))).into(),
            children: BTreeMap::new(),
            settings: [("NAME_TTL_MS", "200"), ("SETTLE_MS", "200"), ("PROBE_INTERVAL_MS", "100")]
                .map(|(name, value)| (format!("PLATFORMER_{name}"), value.to_owned()))
                .into(),
            faulty: false,
            owner_token: None,
            docker: None,
        };
        platform.make_keys();
        platform
    }

    pub fn start_parts(&mut self) {
        match &self.docker {
            Some(docker) => docker.start_all(),
            None => Part::ALL.into_iter().for_each(|part| self.start_part(part)),
        }
        for part in Part::ALL {
            self.wait_ready(part);
        }
    }

    pub fn make_keys(&self) {
        let made = Command::new(program("platformer"))
            .env_clear()
            .args(["init", "--keys"])
            .arg(self.keys())
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("platformer runs").success(), "no keys in {}", self.keys().display());
    }

    pub fn keys(&self) -> PathBuf {
        self.path("keys")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn lb(&self) -> SocketAddr {
        self.listen[&Part::Lb1]
    }

    pub fn address(&self, part: Part) -> SocketAddr {
        self.listen[&part]
    }

    /// Of an lb.
    pub fn https(&self, part: Part) -> SocketAddr {
        self.https[&part]
    }

    pub fn api(&self) -> String {
        format!("http://{}", self.listen[&Part::Controller])
    }

    /// The containers; only on Docker.
    pub fn docker(&self) -> &Docker {
        self.docker.as_ref().expect("it was started on Docker")
    }

    pub fn start_part(&mut self, part: Part) {
        if let Some(docker) = &self.docker {
            return docker.start(part);
        }
        let child = self.command(part).spawn().expect("the program starts");
        self.children.insert(part, child);
    }

    /// A part's program with its settings; what it says goes to its log.
    pub(crate) fn command(&self, part: Part) -> Command {
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("{}.log", part.word())));
        let with_points = self.faulty && matches!(part, Part::Controller | Part::Repository);
        let program = if with_points { faulty_program } else { program };
        let mut command = Command::new(program(part.program()));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log file"));
        command.env("RUST_LOG", "info,hyper=warn");
        for (name, value) in &self.settings {
            command.env(name, value);
        }
        for (name, value) in self.environment(part) {
            command.env(name, value);
        }
        command
    }

    /// What a part said since the test began.
    pub fn log(&self, part: Part) -> String {
        fs::read_to_string(self.path(&format!("{}.log", part.word()))).unwrap_or_default()
    }

    fn environment(&self, part: Part) -> Vec<(&'static str, String)> {
        let listen = self.listen[&part].to_string();
        let (admin, data) = (self.admin[&part].to_string(), self.path(part.word()).display().to_string());
        let repository = format!("http://{}", self.listen[&Part::Repository]);
        let key = |name: &str| self.keys().join(name).display().to_string();
        match part {
            Part::Repository => vec![
                ("PLATFORMER_REPOSITORY_LISTEN", listen),
                ("PLATFORMER_REPOSITORY_ADMIN", admin),
                ("PLATFORMER_REPOSITORY_DATA", data),
                ("PLATFORMER_TRUST_FILE", key("cluster.json")),
            ],
            Part::Controller => vec![
                ("PLATFORMER_CONTROLLER_LISTEN", listen),
                ("PLATFORMER_CONTROLLER_DATA", data),
                ("PLATFORMER_KEYS", self.keys().display().to_string()),
                ("PLATFORMER_CONTROLLER_REPOSITORY", repository),
                ("PLATFORMER_CONTROLLER_LB_ADMIN", format!("http://{}", self.admin[&Part::Lb1])),
                ("PLATFORMER_CONTROLLER_PUBLIC_DNS", self.listen[&Part::Dns].to_string()),
                ("PLATFORMER_BOOT", program("boot").display().to_string()),
            ],
            Part::Lb1 | Part::Lb2 => vec![
                ("PLATFORMER_LB_HTTP", listen),
                ("PLATFORMER_LB_HTTPS", self.https[&part].to_string()),
                ("PLATFORMER_LB_ADMIN", admin),
                ("PLATFORMER_LB_DATA", data),
                ("PLATFORMER_LB_MEMBER", part.word().to_owned()),
                ("PLATFORMER_TOKEN_FILE", key("lb.token")),
                ("PLATFORMER_CONTROLLER", self.api()),
            ],
            Part::Dns => vec![
                ("PLATFORMER_DNS_LISTEN", listen),
                ("PLATFORMER_DNS_ADMIN", admin),
                ("PLATFORMER_DNS_DATA", data),
                ("PLATFORMER_TOKEN_FILE", key("dns.token")),
                ("PLATFORMER_CONTROLLER", self.api()),
                ("PLATFORMER_DNS_UPSTREAMS", "127.0.0.1:9".to_owned()),
            ],
        }
    }

    pub fn wait_ready(&self, part: Part) {
        let address = if part == Part::Controller { self.listen[&part] } else { self.admin[&part] };
        eventually(&format!("{} is ready", part.word()), || {
            http_get(address, "/readyz").filter(|(status, _)| *status == 200).map(|_| ())
        });
    }

    /// SIGKILL, as an accident would.
    pub fn kill(&mut self, part: Part) {
        if let Some(docker) = &self.docker {
            return docker.kill(part);
        }
        let mut child = self.children.remove(&part).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// It stands still: its connections stay, and nothing is answered.
    pub fn pause(&self, part: Part) {
        match &self.docker {
            Some(docker) => docker.pause(part),
            None => self.signal(part, rustix::process::Signal::STOP),
        }
    }

    pub fn resume(&self, part: Part) {
        match &self.docker {
            Some(docker) => docker.resume(part),
            None => self.signal(part, rustix::process::Signal::CONT),
        }
    }

    fn signal(&self, part: Part, signal: rustix::process::Signal) {
        let pid = self.children[&part].id().cast_signed();
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid is not 0");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    pub fn restart(&mut self, part: Part) {
        self.kill(part);
        self.start_part(part);
        self.wait_ready(part);
    }

    /// Runs platformctl as the owner would, off a terminal.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_command(arguments).output().expect("platformctl runs")
    }

    /// platformctl as the owner would run it.
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ctl_of_a_stranger(arguments);
        match &self.owner_token {
            Some(file) => command.env("PLATFORM_TOKEN_FILE", file),
            None => command.env("PLATFORM_KEYS", self.keys()),
        };
        command
    }

    /// platformctl as somebody whom only an earlier login says.
    pub fn ctl_of_a_stranger(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("platformctl"));
        command.env_clear().env("PLATFORM_URL", self.api()).env("HOME", self.directory.path()).args(arguments);
        command
    }

    /// The same, and it must end with 0.
    pub fn ctl_ok(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        let (out, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "platformctl {arguments:?} ended with {}\n{out}{talk}{}",
            output.status,
            self.logs()
        );
        format!("{out}{talk}")
    }

    /// Pushes hello-world under a version: the same program with another version file, and `extra` in its app file.
    pub fn push(&self, app: &str, version: &str, extra: &str) -> String {
        let directory = self.write_version(app, version, extra);
        self.ctl_ok(&["artifact", "push", app, version, &directory.display().to_string()])
    }

    /// The directory that such a push takes.
    pub fn write_version(&self, app: &str, version: &str, extra: &str) -> PathBuf {
        let directory = self.path(&format!("{app}-{version}"));
        fs::create_dir_all(&directory).expect("a directory");
        fs::copy(program("hello-world"), directory.join("hello-world")).expect("the program is copied");
        fs::write(directory.join("version"), version).expect("a version file");
        let command = if extra.contains("command = ") { "" } else { "command = \"./hello-world\"\n" };
        let file = format!("{command}port = 8080\nhosts = [\"{app}.test\"]\ninstances = 2\n{extra}");
        fs::write(directory.join("platform.toml"), file).expect("an app file");
        directory
    }

    /// What lb answers for an app.
    pub fn get(&self, app: &str, path: &str) -> Option<(u16, String)> {
        http_request(self.lb(), &format!("{app}.test"), path)
    }

    /// The deployment under way ends, and this version is live.
    /// What a part counts, in Prometheus' text form.
    pub fn metrics(&self, part: Part) -> String {
        http_request(self.admin[&part], "admin", "/metrics").map(|(_, text)| text).unwrap_or_default()
    }

    pub fn until_done(&self, version: &str) {
        eventually(&format!("the deployment of {version} ends done"), || {
            let app = self.app("hello");
            (app["live"]["version"] == version && app["deployment"].is_null()).then_some(())
        });
    }

    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.ctl(&["status", "--json"]).stdout).unwrap_or(Value::Null)
    }

    /// The last lines of every part, for a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for part in Part::ALL {
            let log = match &self.docker {
                Some(docker) => docker.log(part),
                None => fs::read_to_string(self.path(&format!("{}.log", part.word()))).unwrap_or_default(),
            };
            let lines: Vec<&str> = log.lines().rev().take(25).collect();
            text.push_str(&format!("\n--- {}\n", part.word()));
            lines.iter().rev().for_each(|line| text.push_str(&format!("{line}\n")));
        }
        text
    }

    /// Ends the load, which lost nothing; else what the parts say about it is shown.
    pub fn assert_nothing_failed(&self, load: Load) {
        let tally = load.stop();
        let events = || String::from_utf8_lossy(&self.ctl(&["events"]).stdout).into_owned();
        assert_eq!(tally.failed, 0, "requests failed: {tally:?}{}{}", self.logs(), events());
        tally.assert_nothing_failed();
    }

    /// Waits for a state; a failure shows what all parts said last.
    pub fn eventually<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        within(LIMIT, look)
            .unwrap_or_else(|| panic!("not within {LIMIT:?}: {what}\n{}\n{}", self.status(), self.logs()))
    }

    /// Process ids of all instances' boots and apps (on Docker: of their first processes).
    pub fn instance_processes(&self) -> Vec<i32> {
        if let Some(docker) = &self.docker {
            return docker.instance_processes();
        }
        let states = fs::read_dir(self.path("controller/node/instances")).into_iter().flatten().flatten();
        let read = |entry: fs::DirEntry| {
            serde_json::from_slice::<Value>(&fs::read(entry.path().join("state.json")).ok()?).ok()
        };
        let pids = |state: Value| [state["app_pid"].as_i64(), state["boot_pid"].as_i64()];
        states.filter_map(read).flat_map(pids).flatten().filter_map(|pid| i32::try_from(pid).ok()).collect()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.docker.is_some() {
            return;
        }
        // A boot that was started just now may still bring an app.
        within(LIMIT, || self.end_instances().then_some(()));
    }
}

/// A port that nobody has just now: for UDP and TCP when both are needed. Below those that the system gives to outgoing
/// connections, so that nothing takes it before its part does, and above those of the process engine's instances.
fn free_address(also_udp: bool) -> SocketAddr {
    const FIRST: u32 = 30_000;
    const COUNT: u32 = 2_700;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let number = std::process::id().wrapping_mul(20).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).expect("below 32768");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && (!also_udp || UdpSocket::bind(address).is_ok()) {
            return address;
        }
    }
    panic!("no port is free");
}

/// Waits for a state, at most [`LIMIT`].
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(LIMIT, look).unwrap_or_else(|| panic!("not within {LIMIT:?}: {what}"))
}

/// Looks again and again.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let clock = kit::Clock::start();
    while clock.elapsed() < limit {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(LOOK);
    }
    None
}

fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    http_request(address, "localhost", path)
}

/// One request on a connection of its own.
pub fn http_request(address: SocketAddr, host: &str, path: &str) -> Option<(u16, String)> {
    http_request_with(address, host, path, "")
}

/// The same with further lines of a head, each with its line end.
pub fn http_request_with(address: SocketAddr, host: &str, path: &str, lines: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Some((status, body))
}
