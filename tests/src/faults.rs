//! Faults: a platform whose controller dies or waits where a test says, and whose clock can be wrong.
//!
//! The controller and the repository are those with fail points; what `kit::faults` reads is a file here, so that they
//! are armed while they run.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use appbase_core::claims::Scope;
use kit::keys::KeyDirectory;
use serde_json::Value;

use crate::platform::{LIMIT, Part, Platform, eventually, within};

/// The moments of a deploy, in their order.
pub const POINTS: [&str; 9] = [
    "controller.intent",
    "controller.standby.published",
    "controller.created",
    "controller.started",
    "controller.flip.written",
    "controller.flip.published",
    "controller.drained",
    "controller.stopped",
    "controller.removed",
];

/// In an app file: the old instances go as soon as they are drained, so that a deploy passes every point.
pub const NOT_WARM: &str = "[traffic]\nrollback_window = 0\n";

/// A process of an instance's app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppProcess {
    pub instance: String,
    pub version: String,
    pub pid: i32,
}

impl Platform {
    /// All parts; nothing is armed.
    pub fn start_faulty() -> Self {
        let mut platform = Self::prepare();
        platform.faulty = true;
        platform.owner_token = Some(platform.write_endless_token());
        fs::create_dir_all(platform.faults_path("points")).expect("a directory");
        platform.arm("");
        platform.set_clock_offset_ms(0);
        let file = |name: &str| format!("@{}", platform.faults_path(name).display());
        let settings = [
            ("PLATFORMER_FAULTS", file("armed")),
            ("PLATFORMER_FAULTS_DIR", platform.faults_path("points").display().to_string()),
            ("PLATFORMER_CLOCK_OFFSET_MS", file("offset")),
        ];
        platform.settings.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        platform.start_parts();
        platform
    }

    /// A token made from the keys ends after some minutes, which a clock that jumps may have passed.
    fn write_endless_token(&self) -> PathBuf {
        let signer = KeyDirectory::new(self.keys()).signer().expect("the keys were made");
        let path = self.path("owner.token");
        let file = fs::File::options().create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(signer.sign("owner", Scope::Admin, None).as_bytes())).expect("written");
        path
    }

    fn faults_path(&self, name: &str) -> PathBuf {
        self.path("faults").join(name)
    }

    /// Says what happens at which point from now on: `point=action[@hit]`. Hits are counted from here, also when the same
    /// was said before: a new number in front makes it a new text.
    pub fn arm(&self, text: &str) {
        static ARMED: AtomicU32 = AtomicU32::new(0);
        self.write_whole("armed", &format!("{},{text}", ARMED.fetch_add(1, Ordering::Relaxed)));
    }

    /// The parts' wall clock is wrong by so much from now on.
    pub fn set_clock_offset_ms(&self, offset: i64) {
        self.write_whole("offset", &offset.to_string());
    }

    fn write_whole(&self, name: &str, text: &str) {
        let new = self.faults_path(&format!("{name}.new"));
        fs::write(&new, text).and_then(|()| fs::rename(&new, self.faults_path(name))).expect("written");
    }

    /// Waits until a point that was armed with `pause` is reached.
    pub fn wait_paused(&self, point: &str) {
        let marker = self.faults_path("points").join(point);
        self.eventually(&format!("{point} is reached"), || marker.exists().then_some(()));
    }

    pub fn go_on(&self, point: &str) {
        fs::remove_file(self.faults_path("points").join(point)).expect("it is paused");
    }

    /// Waits until a part has ended by itself.
    pub fn wait_died(&mut self, part: Part) {
        let mut child = self.children.remove(&part).expect("it runs");
        eventually("the part dies", || child.try_wait().expect("it is our child"));
    }

    /// SIGKILL to all parts, all boots and all apps.
    pub fn kill_everything(&mut self) {
        for part in Part::ALL {
            self.kill(part);
        }
        let _ = fs::remove_dir_all(self.faults_path("points"));
        fs::create_dir_all(self.faults_path("points")).expect("a directory");
        // A boot that was started just now may still bring an app.
        eventually("all have ended", || self.end_instances().then_some(()));
    }

    /// SIGKILL to every process of an instance; true when there was none.
    pub(crate) fn end_instances(&self) -> bool {
        let left = self.boots_and_apps();
        left.iter().for_each(|pid| kill_process(*pid));
        left.is_empty()
    }

    /// Every process of an instance, told by the mark that boot hands down.
    fn boots_and_apps(&self) -> Vec<i32> {
        let mark = format!("PLATFORM_INSTANCE_DIRECTORY={}/", self.path("controller/node/instances").display());
        let ours = |pid: i32| {
            let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            variables.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
        };
        kit::process::all().iter().filter(|stat| !stat.zombie && ours(stat.pid)).map(|stat| stat.pid).collect()
    }

    /// Starts a part that must end by itself with a failure; answers what it said.
    pub fn refuses_to_start(&mut self, part: Part) -> String {
        self.second(part, &[])
    }

    /// Runs a part's program with its own settings and these (`subcommand` is one); it must end by itself. Answers what
    /// it said.
    pub fn second(&self, part: Part, changes: &[(&str, &str)]) -> String {
        let mut command = self.command(part);
        for (name, value) in changes {
            match *name {
                "subcommand" => command.arg(value),
                name => command.env(name, value),
            };
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        if within(LIMIT, || child.try_wait().expect("it is our child")).is_none() {
            let _ = child.kill();
            panic!("{part:?} started although it should not: {changes:?}");
        }
        let output = child.wait_with_output().expect("it has ended");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn pid(&self, part: Part) -> u32 {
        self.children[&part].id()
    }

    /// Every app process of this platform that runs now.
    pub fn app_processes(&self) -> Vec<AppProcess> {
        let ours = self.path("controller/node/instances");
        let look = |pid: i32| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            let variables = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let variables: Vec<_> = variables.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let value = |name: &str| variables.iter().find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
            let (instance, version) = (value("PLATFORM_INSTANCE")?.to_owned(), value("PLATFORM_VERSION")?.to_owned());
            program.starts_with(&ours).then_some(AppProcess { instance, version, pid })
        };
        let running = kit::process::all().into_iter().filter(|stat| !stat.zombie);
        let mut found: Vec<_> = running.filter_map(|stat| look(stat.pid)).collect();
        found.sort();
        found
    }

    /// The status of one app.
    pub fn app(&self, app: &str) -> Value {
        let status = self.status();
        let apps = status["apps"].as_array().cloned().unwrap_or_default();
        apps.into_iter().find(|known| known["app"] == app).unwrap_or(Value::Null)
    }

    /// Waits until `version` alone is there: live, nothing being deployed, `count` instances active and up, each one
    /// process, and nothing else of the app.
    pub fn wait_settled(&self, app: &str, version: &str, count: usize) {
        let mut last = String::new();
        let settled = || {
            let (status, processes) = (self.app(app), self.app_processes());
            last = format!("{status} {processes:?}");
            let instances = status["instances"].as_array().cloned().unwrap_or_default();
            let names: std::collections::BTreeSet<_> = processes.iter().map(|process| &process.instance).collect();
            let is_over = status["live"]["version"] == version && status["deployment"].is_null();
            let serves = |i: &Value| i["version"] == version && i["state"] == "active" && i["health"] == "up";
            let alone = processes.iter().all(|process| process.version == version);
            (is_over
                && instances.len() == count
                && instances.iter().all(serves)
                && alone
                && (processes.len(), names.len()) == (count, count))
                .then_some(())
        };
        if within(LIMIT, settled).is_none() {
            panic!("{app} {version} is not there alone: {last}\n{}", self.logs());
        }
    }

    /// Versions and end states of an app's deployments, newest first.
    pub fn history(&self, app: &str) -> Vec<(String, String)> {
        let listed = self.ctl_ok(&["history", app, "--json"]);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        listed.iter().map(|one| (text(&one["version"]), text(&one["end"]["state"]))).collect()
    }
}

/// SIGKILL.
pub fn kill_process(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    // It may have ended meanwhile.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// SIGKILL to boot, which then cannot start its app again, and to the app.
pub fn kill_with_boot(process: &AppProcess) {
    let stat = kit::process::stat(process.pid);
    for pid in stat.map(|stat| stat.session).into_iter().chain([process.pid]) {
        kill_process(pid);
    }
}

/// Whether a DNS server has an address for a name.
pub fn dns_knows(server: SocketAddr, name: &str) -> bool {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("a label"));
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    let mut reply = [0; 1500];
    let asked = socket.send_to(&question, server).and_then(|_| socket.recv(&mut reply));
    // No error, and at least one answer.
    asked.is_ok() && reply[3] & 0xf == 0 && reply[7] > 0
}
