//! The others, each as Debian has it and as one would use it: a proxy of HTTP/1.1 to one app, checks as strict as they come.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::program::{Program, free};

/// Caddy takes its time on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

pub(super) struct Peer {
    pub(super) address: SocketAddr,
    _program: Program,
}

impl Peer {
    fn start(program: &str, words: &[&str], place: &Path, address: SocketAddr) -> Option<Self> {
        Program::start(program, words, place).map(|program| Self { address, _program: program })
    }

    pub(super) async fn wait(&self) {
        let listening = async {
            while tokio::net::TcpStream::connect(self.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(START_MAX, listening).await.expect("the peer listens");
    }
}

pub(super) type Start = fn(&Path, SocketAddr) -> Option<Peer>;

pub(super) const ALL: [(&str, Start); 3] = [("nginx", nginx), ("HAProxy", haproxy), ("Caddy", caddy)];

fn nginx(place: &Path, behind: SocketAddr) -> Option<Peer> {
    let (at, conf, own) = (free(), place.join("nginx.conf"), place.display());
    // Root's worker would be another user, who cannot read the directory.
    let user = if is_root() { "user root; " } else { "" };
    let text = format!(
        "{user}worker_processes 1; daemon off; pid {own}/nginx.pid; error_log {own}/nginx.log; events {{}} http {{ access_log off; \
         client_body_temp_path {own}/b; proxy_temp_path {own}/p; fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; \
         scgi_temp_path {own}/s; server {{ listen {at}; location / {{ proxy_pass http://{behind}; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_set_header Host $http_host; proxy_request_buffering off; }} }} }}"
    );
    fs::write(&conf, text).unwrap();
    Peer::start("nginx", &["-c", &conf.display().to_string(), "-e", &format!("{own}/nginx.log")], place, at)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn haproxy(place: &Path, behind: SocketAddr) -> Option<Peer> {
    let (at, conf) = (free(), place.join("haproxy.cfg"));
    let text = format!(
        "defaults\n  mode http\n  timeout connect 1s\n  timeout client 20s\n  timeout server 20s\nfrontend all\n  bind {at}\n  \
         default_backend apps\nbackend apps\n  server one {behind}\n"
    );
    fs::write(&conf, text).unwrap();
    Peer::start("haproxy", &["-db", "-f", &conf.display().to_string()], place, at)
}

fn caddy(place: &Path, behind: SocketAddr) -> Option<Peer> {
    let (at, conf) = (free(), place.join("Caddyfile"));
    let port = at.port();
    let text =
        format!("{{\n  admin off\n  auto_https off\n}}\n:{port} {{\n  bind 127.0.0.1\n  reverse_proxy {behind}\n}}\n");
    fs::write(&conf, text).unwrap();
    let conf = conf.display().to_string();
    Peer::start("caddy", &["run", "--adapter", "caddyfile", "--config", &conf], place, at)
}
