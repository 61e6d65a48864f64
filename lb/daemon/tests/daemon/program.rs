//! The program itself, and others beside it, in processes of their own: for what is counted by process.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lb_core::v1::{RouteSection, TableFile};

use crate::client::raw;
use crate::stage::eventually;

pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// None: it is not installed.
    pub(crate) fn start(program: &str, words: &[&str], place: &Path) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(words).env("HOME", place).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok().map(|child| Self { child })
    }

    /// Of it and of those it started, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let own = self.child.id();
        let all = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_of = |pid: &u32| *pid == own || status(*pid, "PPid:") == Some(own.into());
        all.filter(is_of).filter_map(|pid| status(pid, "VmRSS:")).sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // TERM first, so that it ends those it started. It may have ended by itself.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn status(pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// lb with one thread and a table in a file.
pub(crate) struct Lb {
    pub(crate) program: Program,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    admin: SocketAddr,
}

impl Lb {
    pub(crate) async fn start(place: &Path, section: RouteSection) -> Self {
        let (http, https, admin, file) = (free(), free(), free(), place.join("table.json"));
        fs::write(&file, serde_json::to_string(&TableFile { sections: vec![section] }).unwrap()).unwrap();
        let file = file.display().to_string();
        let (plain, tls, own) = (http.to_string(), https.to_string(), admin.to_string());
        let words = ["--table", &file, "--http", &plain, "--https", &tls, "--admin", &own, "--threads", "1"];
        let program = Program::start(env!("CARGO_BIN_EXE_lb"), &words, place).unwrap();
        eventually("lb listens", async || tokio::net::TcpStream::connect(admin).await.is_ok()).await;
        let lb = Self { program, http, https, admin };
        eventually("lb is ready", async || lb.ask("/readyz").await.starts_with("HTTP/1.1 200")).await;
        lb
    }

    async fn ask(&self, path: &str) -> String {
        raw(self.admin, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    pub(crate) async fn connections(&self) -> u64 {
        let metrics = self.ask("/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("platform_lb_connections_open "));
        line.and_then(|count| count.trim().parse().ok()).unwrap()
    }
}
