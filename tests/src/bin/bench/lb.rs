//! The load balancer beside nginx and HAProxy: CPU time per proxied request, one worker each.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitStatus};

use tests::platform::program;

use crate::program::{CLIENT_CORE, Program, SERVER_CORE, free_port, generate, installed};
use crate::report::{Samples, rounds, seconds, table};

const CONNECTIONS: usize = 64;

struct Proxy {
    name: &'static str,
    start: fn(&Path, SocketAddr, SocketAddr) -> Option<Program>,
}

const PROXIES: [Proxy; 5] = [
    Proxy { name: "nginx", start: start_nginx },
    Proxy { name: "HAProxy", start: start_haproxy },
    Proxy { name: "an empty Pingora proxy", start: start_pingora },
    Proxy { name: "platformer lb", start: |place, at, behind| start_ours(place, at, behind, 1) },
    Proxy { name: "platformer lb, 10,000 routes", start: |place, at, behind| start_ours(place, at, behind, 10_000) },
];
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// The crate of the empty Pingora proxy, apart from the workspace.
const PINGORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/pingora/Cargo.toml");

#[derive(Default, Clone)]
struct Row {
    cpu_us: Vec<f64>,
    rate: Samples,
    p99: Samples,
    p99_half: Samples,
}

pub(crate) fn run() -> String {
    let (Some(nginx), Some(wrk)) = (installed("nginx"), installed("wrk")) else {
        return "Not measured: nginx (nginx-light) and wrk are not installed.".to_owned();
    };
    let place = tempfile::tempdir().expect("a directory");
    let mut text = String::new();
    for (size, name) in [(4, "4 B"), (16 << 10, "16 KiB")] {
        let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let _upstream = start_upstream(&nginx, place.path(), behind, size);
        text.push_str(&format!("### Answers of {name}\n\n{}\n", measure(&wrk, place.path(), behind)));
    }
    let seconds = seconds();
    format!(
        "wrk, one thread, {CONNECTIONS} keep-alive connections, {seconds} s a round; proxy with one worker on one core, wrk and \
         an nginx that answers on the other; keep-alive to both sides, health checks where there are such, no access log. \
         The proxied rate is bounded by the second core at times: CPU per request is the figure. Half load is half of \
         nginx's rate, by h2load at a fixed rate.\n\n{text}"
    )
}

fn measure(wrk: &Path, place: &Path, behind: SocketAddr) -> String {
    let mut rows = vec![Row::default(); PROXIES.len()];
    for _ in 0..rounds() {
        for (proxy, row) in PROXIES.iter().zip(&mut rows) {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let Some(mut running) = (proxy.start)(place, at, behind) else { continue };
            running.wait_tcp(at);
            let url = format!("http://{at}/");
            let load = |seconds: usize| {
                let (connections, seconds) = (format!("-c{CONNECTIONS}"), format!("-d{seconds}s"));
                generate(wrk, &["-t1", &connections, &seconds, "--latency", &url])
            };
            load(2);
            let before = running.cpu_ns();
            let said = load(seconds());
            let spent = running.cpu_ns() - before;
            let requests = requests(&said);
            assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{}: {said}", proxy.name);
            row.cpu_us.push(spent as f64 / 1000.0 / requests);
            row.rate.add(requests / seconds() as f64 / 1000.0);
            row.p99.add(p99_ms(&said));
        }
    }
    let half = rows[0].rate.median() * 1000.0 / 2.0;
    for (proxy, row) in PROXIES.iter().zip(&mut rows) {
        measure_latency(place, behind, proxy, row, half);
    }
    let base = rows[0].cpu_us.clone();
    let rows: Vec<_> = PROXIES.iter().zip(&rows).map(|(proxy, row)| row.cells(proxy.name, &base)).collect();
    table(
        &["proxy", "CPU µs per request", "ratio to nginx", "1,000 requests/s", "p99 ms", "p99 ms at half load"],
        &rows,
    )
}

/// At half of what nginx can take, asked at a fixed rate, whether answers come or not.
fn measure_latency(place: &Path, behind: SocketAddr, proxy: &Proxy, row: &mut Row, rate: f64) {
    let Some(h2load) = installed("h2load") else { return };
    for _ in 0..rounds() {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let Some(mut running) = (proxy.start)(place, at, behind) else { return };
        running.wait_tcp(at);
        let log = place.join("latencies");
        let _ = fs::remove_file(&log);
        let (per_client, connections) = (format!("--rps={:.0}", rate / CONNECTIONS as f64), format!("-c{CONNECTIONS}"));
        let (file, seconds) = (format!("--log-file={}", log.display()), format!("-D{}", seconds()));
        generate(&h2load, &["--h1", &connections, &seconds, &per_client, &file, &format!("http://{at}/")]);
        let text = fs::read_to_string(&log).unwrap_or_default();
        // Start, status, microseconds.
        let mut took: Vec<u64> = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
        took.sort_unstable();
        if let Some(p99) = took.get(took.len() * 99 / 100) {
            row.p99_half.add(*p99 as f64 / 1000.0);
        }
    }
}

impl Row {
    fn cells(&self, name: &str, base: &[f64]) -> Vec<String> {
        let mut cpu = Samples::default();
        self.cpu_us.iter().for_each(|value| cpu.add(*value));
        let ratio = Samples::ratio(self.cpu_us.iter().copied().zip(base.iter().copied()));
        vec![name.to_owned(), cpu.cell(1), ratio.cell(2), self.rate.cell(1), self.p99.cell(1), self.p99_half.cell(2)]
    }
}

/// `123456 requests in 8.00s, …`.
fn requests(said: &str) -> f64 {
    let line = said.lines().find_map(|line| line.split_once(" requests in ")).expect("wrk counts");
    line.0.trim().parse().expect("a number")
}

fn p99_ms(said: &str) -> f64 {
    let text = said.lines().find_map(|line| line.trim().strip_prefix("99%")).expect("wrk shows latencies").trim();
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).expect("a unit"));
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        _ => 1000.0,
    };
    digits.parse::<f64>().expect("a number") * factor
}

pub(crate) fn start_upstream(nginx: &Path, place: &Path, at: SocketAddr, size: usize) -> Program {
    fs::write(place.join("answer"), vec![b'x'; size]).expect("written");
    let server = format!(
        "server {{ listen {at} reuseport; keepalive_requests 100000000; root {}; location / {{ try_files /answer =404; }} }} \
         open_file_cache max=10; ",
        place.display()
    );
    let mut program = start_nginx_with(nginx, CLIENT_CORE, place, &format!("upstream-{}", at.port()), &server);
    program.wait_tcp(at);
    program
}

fn start_nginx(place: &Path, at: SocketAddr, behind: SocketAddr) -> Option<Program> {
    let server = format!(
        "upstream apps {{ server {behind}; keepalive 256; keepalive_requests 100000000; }} \
         server {{ listen {at}; keepalive_requests 100000000; location / {{ proxy_pass http://apps; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; \
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id; }} }}"
    );
    Some(start_nginx_with(&installed("nginx")?, SERVER_CORE, place, &format!("proxy-{}", at.port()), &server))
}

/// An nginx of one worker in the foreground, as whoever runs this.
pub(crate) fn start_nginx_with(nginx: &Path, core: usize, place: &Path, name: &str, server: &str) -> Program {
    let (conf, log) = (place.join(format!("{name}.conf")), place.join(format!("{name}.log")));
    fs::write(&conf, nginx_conf(place, name, server)).expect("written");
    Program::start(core, nginx, &["-c", &conf.display().to_string(), "-e", &log.display().to_string()], &log)
}

pub(crate) fn nginx_conf(place: &Path, name: &str, server: &str) -> String {
    let place = place.display();
    // Root's workers would be another user, who cannot read the directory.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    format!(
        "{user} worker_processes 1; daemon off; pid {place}/{name}.pid; events {{ worker_connections 4096; }} http {{ \
         access_log off; client_body_temp_path {place}/{name}-body; proxy_temp_path {place}/{name}-proxy; \
         fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; {server} }}"
    )
}

fn start_haproxy(place: &Path, at: SocketAddr, behind: SocketAddr) -> Option<Program> {
    let conf = place.join("haproxy.conf");
    let text = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n  \
         option forwardfor\n  http-reuse always\nfrontend all\n  bind {at}\n  unique-id-format %{{+X}}o%ci%cp%rt\n  \
         unique-id-header X-Request-Id\n  default_backend apps\nbackend apps\n  option httpchk GET /\n  \
         server one {behind} check inter 1s\n"
    );
    fs::write(&conf, text).expect("written");
    let path = conf.display().to_string();
    Some(Program::start(SERVER_CORE, &installed("haproxy")?, &["-db", "-f", &path], &place.join("haproxy.log")))
}

/// Built on the way, with what its build needs; not measured where that is missing.
fn start_pingora(place: &Path, at: SocketAddr, behind: SocketAddr) -> Option<Program> {
    installed("cmake")?;
    let target = place.parent()?.join("platformer-bench-peers");
    let mut build = Command::new("cargo");
    build
        .args(["build", "--release", "--quiet", "--target", TRIPLE, "--manifest-path", PINGORA])
        .env("CARGO_TARGET_DIR", &target);
    build.status().ok().filter(ExitStatus::success)?;
    let (at, behind) = (at.to_string(), behind.to_string());
    Some(Program::start(
        SERVER_CORE,
        &target.join(TRIPLE).join("release/empty-pingora"),
        &[&at, &behind],
        &place.join("pingora.log"),
    ))
}

fn start_ours(place: &Path, at: SocketAddr, behind: SocketAddr, routes: usize) -> Option<Program> {
    let file = place.join("route-table.json");
    let others = (1..routes)
        .map(|number| serde_json::json!({"host": format!("app-{number}.example"), "path": "/", "process": "web"}));
    let all: Vec<_> = std::iter::once(serde_json::json!({"path": "/", "process": "web"})).chain(others).collect();
    let table = serde_json::json!({"sections": [{
        "environment": "production", "app": "bench", "live": 1,
        "routes": all,
        "pools": {"1": {
            "weight": 1,
            "probes": {"web": {"check": "/", "interval_ms": 1000, "timeout_ms": 2000, "rise": 1, "fall": 3}},
            "instances": {"bench-v1-r1-web-1": {"process": "web", "address": behind.to_string(), "state": "active"}}
        }},
        "drain": {"requests_ms": 30000, "streams_ms": 30000}
    }]});
    fs::write(&file, table.to_string()).expect("written");
    let (file, at) = (file.display().to_string(), at.to_string());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let words = ["--table", &file, "--http", &at, "--admin", &admin.to_string(), "--threads", "1"];
    let program = Program::start(SERVER_CORE, &program("lb"), &words, &place.join("lb.log"));
    wait_up(admin);
    Some(program)
}

pub(crate) fn wait_up(admin: SocketAddr) {
    tests::platform::eventually("lb is ready", || {
        tests::platform::http_request(admin, "localhost", "/readyz").filter(|(status, _)| *status == 200)
    });
}
