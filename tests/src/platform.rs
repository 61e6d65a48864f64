//! Platform: every part a process of its own, so that each can be killed alone.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// No state of a test takes longer than this to come about.
pub const LIMIT: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(20);

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

    fn program(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Controller => "controller",
            Self::Lb1 | Self::Lb2 => "lb",
            Self::Dns => "dns",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Lb1 => "lb-1",
            Self::Lb2 => "lb-2",
            other => other.program(),
        }
    }
}

/// A running platform on the process engine.
pub struct Platform {
    directory: tempfile::TempDir,
    listen: BTreeMap<Part, SocketAddr>,
    admin: BTreeMap<Part, SocketAddr>,
    children: BTreeMap<Part, Child>,
    settings: Vec<(String, String)>,
}

/// Where the programs of this build are: beside the test's own directory.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let directory = own.parent().and_then(Path::parent).expect("tests stand in <profile>/deps");
    let path = directory.join(name);
    assert!(path.exists(), "{} is not built: cargo build --profile ci --workspace --bins", path.display());
    path
}

impl Platform {
    /// All parts, with a settle time and name TTL of 200 ms.
    pub fn start() -> Self {
        let mut platform = Self {
            directory: tempfile::tempdir().expect("a directory"),
            listen: Part::ALL.iter().map(|part| (*part, free_address(*part == Part::Dns))).collect(),
            admin: Part::ALL.iter().map(|part| (*part, free_address(false))).collect(),
            children: BTreeMap::new(),
            settings: [("NAME_TTL_MS", "200"), ("SETTLE_MS", "200"), ("PROBE_INTERVAL_MS", "100")]
                .map(|(name, value)| (format!("PLATFORMER_{name}"), value.to_owned()))
                .into(),
        };
        for part in Part::ALL {
            platform.start_part(part);
        }
        for part in Part::ALL {
            platform.wait_ready(part);
        }
        platform
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

    pub fn api(&self) -> String {
        format!("http://{}", self.listen[&Part::Controller])
    }

    pub fn start_part(&mut self, part: Part) {
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("{}.log", part.word())));
        let mut command = Command::new(program(part.program()));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log file"));
        command.env("RUST_LOG", "info,hyper=warn,pingora=error");
        for (name, value) in &self.settings {
            command.env(name, value);
        }
        for (name, value) in self.environment(part) {
            command.env(name, value);
        }
        self.children.insert(part, command.spawn().expect("the program starts"));
    }

    fn environment(&self, part: Part) -> Vec<(&'static str, String)> {
        let listen = self.listen[&part].to_string();
        let (admin, data) = (self.admin[&part].to_string(), self.path(part.word()).display().to_string());
        let repository = format!("http://{}", self.listen[&Part::Repository]);
        match part {
            Part::Repository => vec![
                ("PLATFORMER_REPOSITORY_LISTEN", listen),
                ("PLATFORMER_REPOSITORY_ADMIN", admin),
                ("PLATFORMER_REPOSITORY_DATA", data),
            ],
            Part::Controller => vec![
                ("PLATFORMER_CONTROLLER_LISTEN", listen),
                ("PLATFORMER_CONTROLLER_DATA", data),
                ("PLATFORMER_CONTROLLER_REPOSITORY", repository),
                ("PLATFORMER_CONTROLLER_LB_ADMIN", format!("http://{}", self.admin[&Part::Lb1])),
                ("PLATFORMER_CONTROLLER_PUBLIC_DNS", self.listen[&Part::Dns].to_string()),
                ("PLATFORMER_BOOT", program("boot").display().to_string()),
            ],
            Part::Lb1 | Part::Lb2 => vec![
                ("PLATFORMER_LB_HTTP", listen),
                ("PLATFORMER_LB_ADMIN", admin),
                ("PLATFORMER_LB_DATA", data),
                ("PLATFORMER_LB_MEMBER", part.word().to_owned()),
                ("PLATFORMER_CONTROLLER", self.api()),
            ],
            Part::Dns => vec![
                ("PLATFORMER_DNS_LISTEN", listen),
                ("PLATFORMER_DNS_ADMIN", admin),
                ("PLATFORMER_DNS_DATA", data),
                ("PLATFORMER_CONTROLLER", self.api()),
                ("PLATFORMER_DNS_UPSTREAMS", "127.0.0.1:9".to_owned()),
            ],
        }
    }

    pub fn wait_ready(&mut self, part: Part) {
        let address = if part == Part::Controller { self.listen[&part] } else { self.admin[&part] };
        eventually(&format!("{} is ready", part.word()), || {
            http_get(address, "/readyz").filter(|(status, _)| *status == 200).map(|_| ())
        });
    }

    /// SIGKILL, as an accident would.
    pub fn kill(&mut self, part: Part) {
        let mut child = self.children.remove(&part).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    pub fn restart(&mut self, part: Part) {
        self.kill(part);
        self.start_part(part);
        self.wait_ready(part);
    }

    /// Runs platformctl as a person would, off a terminal.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        let output = Command::new(program("platformctl"))
            .env_clear()
            .env("PLATFORM_URL", self.api())
            .env("HOME", self.directory.path())
            .args(arguments)
            .output();
        output.expect("platformctl runs")
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
        let directory = self.path(&format!("{app}-{version}"));
        fs::create_dir_all(&directory).expect("a directory");
        fs::copy(program("hello-world"), directory.join("hello-world")).expect("the program is copied");
        fs::write(directory.join("version"), version).expect("a version file");
        let file =
            format!("command = \"./hello-world\"\nport = 8080\nhosts = [\"{app}.test\"]\ninstances = 2\n{extra}");
        fs::write(directory.join("platform.toml"), file).expect("an app file");
        self.ctl_ok(&["artifact", "push", app, version, &directory.display().to_string()])
    }

    /// What lb answers for an app.
    pub fn get(&self, app: &str, path: &str) -> Option<(u16, String)> {
        http_request(self.lb(), &format!("{app}.test"), path)
    }

    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.ctl(&["status", "--json"]).stdout).unwrap_or(Value::Null)
    }

    /// The last lines of every part, for a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for part in Part::ALL {
            let log = fs::read_to_string(self.path(&format!("{}.log", part.word()))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(25).collect();
            text.push_str(&format!("\n--- {}\n", part.word()));
            lines.iter().rev().for_each(|line| text.push_str(&format!("{line}\n")));
        }
        text
    }

    /// Process ids of all instances' boots and apps.
    pub fn instance_processes(&self) -> Vec<i32> {
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
        for pid in self.instance_processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A port that nobody has just now: for UDP and TCP when both are needed.
fn free_address(also_udp: bool) -> SocketAddr {
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        // Below the range that the system gives to outgoing connections nothing else takes it meanwhile.
        if !also_udp || UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free for both UDP and TCP");
}

/// Waits for a state, at most [`LIMIT`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = kit::Clock::start();
    while clock.elapsed() < LIMIT {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK);
    }
    panic!("not within {LIMIT:?}: {what}");
}

fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    http_request(address, "localhost", path)
}

/// One request on a connection of its own.
pub fn http_request(address: SocketAddr, host: &str, path: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Some((status, body))
}
