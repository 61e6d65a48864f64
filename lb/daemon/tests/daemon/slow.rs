//! What costs a client nothing and a server much, by slowhttptest, and ten thousand clients who do nothing: each ends in
//! time or costs little. `make soak` runs both and prints the figures; docs/reference/threat-model.md has them.

use std::fs;
use std::path::Path;
use std::process::Command;

use kit::{Shutdown, Tasks};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::App;
use crate::frames;
use crate::program::{Lb, Program, free};
use crate::stage::{Active, section};
use crate::tls::{Authority, shake};

/// How each attack is made, and when the last of its connections is to be gone: the limit it runs into, and as long again
/// as they take to be opened.
const ATTACKS: [(&str, &str, &[&str], u64); 4] = [
    ("slow heads", "/", &["-H", "-i", "3"], 25),
    ("slow bodies", "/echo", &["-B", "-i", "5", "-s", "100000"], 100),
    ("slow reading", "/", &["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "5"], 120),
    ("ranges", "/", &["-R", "-a", "5", "-b", "3000"], 25),
];
const ATTACKERS: &str = "1000";
/// Connections of others: slowhttptest asks now and then whether it is answered.
const BESIDE: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, and it wants slowhttptest"]
async fn who_is_slow_on_purpose_is_let_go_and_fills_nothing() {
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let place = tempfile::tempdir().unwrap();
    let app = App::start("app", &tasks, &shutdown).await;
    let lb = Lb::start(place.path(), section(&[(&app, Active)])).await;
    for (name, path, how, seconds) in ATTACKS {
        let (before, url, prefix) =
            (lb.program.rss_kib(), format!("http://{}{path}", lb.http), place.path().join("seen"));
        let (length, prefix) = ((seconds + 20).to_string(), prefix.display().to_string());
        let words = ["-c", ATTACKERS, "-r", "200", "-l", &length, "-u", &url, "-g", "-o", &prefix];
        let mut attack = Command::new("slowhttptest");
        attack.args(how).args(words).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let Ok(mut attack) = attack.spawn() else {
            println!("slow: slowhttptest is not installed, and nothing was tried");
            return;
        };
        let began = tokio::time::Instant::now();
        // Of lb's own count: a client that reads slowly sees the end of what was answered long after lb has ended.
        let (mut peak, mut most, mut over) = (0, 0, 0);
        while attack.try_wait().unwrap().is_none() {
            let open = lb.connections().await;
            (peak, most) = (peak.max(lb.program.rss_kib()), most.max(open));
            if open > BESIDE {
                over = began.elapsed().as_secs();
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        // Seconds, closed, pending, connected, whether others were served meanwhile.
        let seen = fs::read_to_string(format!("{prefix}.csv")).unwrap();
        let rows: Vec<_> = seen.lines().skip(1).collect();
        let served = rows.iter().filter(|row| !row.ends_with(",0")).count();
        println!(
            "slow: {name}: {most} open at once, gone after {over} s, others served at {served} of {} looks, memory \
             {before} KiB before and {peak} at most",
            rows.len()
        );
        assert!(over <= seconds, "{name}: after {over} s some are still there");
        assert!(peak < before + (64 << 10), "{name}: {before} KiB before, {peak} at most");
    }
    shutdown.ask();
}

/// Those with TLS would take longer to come than lb lets the first of them be idle.
const IDLE: usize = 10_000;
const IDLE_WITH_TLS: usize = 2_000;

/// How a client of a kind comes to be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http1,
    Http2,
    Tls1,
    Tls2,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::Tls1, Self::Tls2];

    fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Tls2)
    }
}

/// A connection that was answered once.
async fn answered<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, is_http2: bool) -> S {
    let http1 = b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n".to_vec();
    let ask = if is_http2 { frames::first_request() } else { http1 };
    stream.write_all(&ask).await.unwrap();
    stream.flush().await.unwrap();
    let mut got = Vec::new();
    while !(if is_http2 { frames::is_answered(&got) } else { got.ends_with(b"app") || got.ends_with(b"ok") }) {
        assert!(stream.read_buf(&mut got).await.unwrap() > 0, "{}", got.escape_ascii());
    }
    stream
}

/// KiB for each of them, of a server that was just started.
async fn per_connection(program: &Program, kind: Kind, address: std::net::SocketAddr, authority: &Authority) -> f64 {
    let protocols: &[&str] = if kind.is_http2() { &["h2"] } else { &["http/1.1"] };
    let config = authority.client(protocols, None);
    let idle = if matches!(kind, Kind::Tls1 | Kind::Tls2) { IDLE_WITH_TLS } else { IDLE };
    let (mut plain, mut secure) = (Vec::new(), Vec::new());
    // Those before the first figure have everything made that is made once.
    let mut before = 0;
    for number in 0..idle + 100 {
        if number == 100 {
            before = program.rss_kib();
        }
        if matches!(kind, Kind::Tls1 | Kind::Tls2) {
            secure.push(answered(shake(config.clone(), address, "one.example").await.unwrap(), kind.is_http2()).await);
        } else {
            plain.push(answered(TcpStream::connect(address).await.unwrap(), kind.is_http2()).await);
        }
    }
    (program.rss_kib() as f64 - before as f64) / idle as f64
}

fn nginx(place: &Path, kind: Kind, behind: std::net::SocketAddr) -> Option<(Program, std::net::SocketAddr)> {
    let (at, conf, own) = (free(), place.join("nginx.conf"), place.display());
    let tls = if matches!(kind, Kind::Tls1 | Kind::Tls2) { " ssl" } else { "" };
    let http2 = if kind.is_http2() { " http2" } else { "" };
    let text = format!(
        "user root; worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {own}/nginx.pid; error_log {own}/nginx.log; \
         events {{ worker_connections 19000; }} http {{ access_log off; keepalive_timeout 600s; ssl_certificate {own}/chain.pem; \
         ssl_certificate_key {own}/key.pem; client_body_temp_path {own}/b; proxy_temp_path {own}/p; \
         fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s; upstream apps {{ server {behind}; keepalive 16; }} \
         server {{ listen {at}{tls}{http2} backlog=4096; location / {{ proxy_pass http://apps; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }} }}"
    );
    fs::write(&conf, text).unwrap();
    let words = ["-c", &conf.display().to_string(), "-e", &format!("{own}/nginx.log")];
    Program::start("nginx", &words, place).map(|program| (program, at))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute, and it wants nginx"]
async fn ten_thousand_who_do_nothing_cost_little() {
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let place = tempfile::tempdir().unwrap();
    let app = App::start("app", &tasks, &shutdown).await;
    let authority = Authority::new();
    let certificate = authority.certificate(&["one.example"]);
    fs::write(place.path().join("chain.pem"), &certificate.chain).unwrap();
    fs::write(place.path().join("key.pem"), &certificate.key.0).unwrap();
    let mut section = section(&[(&app, Active)]);
    section.tls.certificates = vec![certificate];
    section.routes[0].host = Some("one.example".to_owned());
    for kind in Kind::ALL {
        let lb = Lb::start(place.path(), section.clone()).await;
        let address = if matches!(kind, Kind::Tls1 | Kind::Tls2) { lb.https } else { lb.http };
        let ours = per_connection(&lb.program, kind, address, &authority).await;
        drop(lb);
        let theirs = match nginx(place.path(), kind, app.address) {
            Some((program, at)) => {
                crate::stage::eventually("nginx listens", async || TcpStream::connect(at).await.is_ok()).await;
                format!("{:.1}", per_connection(&program, kind, at, &authority).await)
            }
            None => "not installed".to_owned(),
        };
        println!("idle: {kind:?}: lb {ours:.1} KiB each, nginx {theirs}");
        assert!(ours < 64.0, "{kind:?}: {ours} KiB");
    }
    shutdown.ask();
}
