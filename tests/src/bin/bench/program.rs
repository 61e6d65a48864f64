//! Program: a server under measurement, pinned to a core, with the CPU time and memory of its whole process tree.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::platform::within;

/// What is measured has this core.
pub(crate) const SERVER_CORE: usize = 0;
/// Whoever asks, and what answers behind a proxy.
pub(crate) const CLIENT_CORE: usize = 1;
const START_MAX: Duration = Duration::from_secs(20);
const END_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Program {
    child: Child,
}

impl Program {
    pub(crate) fn start(core: usize, program: &Path, words: &[&str], log: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(log).expect("a log");
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core.to_string()).arg(program).args(words);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log).process_group(0);
        Self { child: command.spawn().expect("taskset of util-linux is installed") }
    }

    pub(crate) fn wait_tcp(&mut self, address: SocketAddr) {
        let ready = within(START_MAX, || {
            assert!(self.child.try_wait().expect("our child").is_none(), "it ended instead of listening: {address}");
            TcpStream::connect(address).is_ok().then_some(())
        });
        assert!(ready.is_some(), "nothing listens on {address}");
    }

    /// Nanoseconds on a core so far, over all threads of all its processes.
    pub(crate) fn cpu_ns(&self) -> u64 {
        let of_thread = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        let of_process = |pid: i32| {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            tasks.filter_map(of_thread).sum::<u64>()
        };
        self.pids().into_iter().map(of_process).sum()
    }

    /// Most memory that it held so far, MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.pids().into_iter().filter_map(|pid| status_mib(pid, "VmHWM:")).sum()
    }

    fn pids(&self) -> Vec<i32> {
        let own = self.child.id().cast_signed();
        let all = kit::process::all();
        all.iter().filter(|stat| stat.group == own || stat.pid == own).map(|stat| stat.pid).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        let signal = |signal| {
            let _ = rustix::process::kill_process_group(group, signal);
        };
        signal(rustix::process::Signal::TERM);
        let ended = within(END_MAX, || self.child.try_wait().ok().flatten());
        signal(rustix::process::Signal::KILL);
        if ended.is_none() {
            let _ = self.child.wait();
        }
    }
}

/// A line of `/proc/<pid>/status` that counts kB.
pub(crate) fn status_mib(pid: i32, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"))?;
    kib.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// Where a program of Debian's is.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/bin"]
        .iter()
        .map(|place| Path::new(place).join(name))
        .find(|path| path.exists())
}

/// What a load generator printed; it has the second core.
pub(crate) fn generate(program: &Path, words: &[&str]) -> String {
    let output = Command::new("taskset").arg("-c").arg(CLIENT_CORE.to_string()).arg(program).args(words).output();
    let output = output.expect("the generator runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
