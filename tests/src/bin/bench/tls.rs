//! TLS at the load balancer beside nginx: CPU time per request in HTTP/2, and per whole handshake, one worker each.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tests::platform::program;

use crate::lb::{start_nginx_with, start_upstream, wait_up};
use crate::program::{Program, SERVER_CORE, free_port, generate, installed};
use crate::report::{Samples, rounds, seconds, table};

const NAME: &str = "bench.example";
/// Connections that are made for handshakes, one request each.
const HANDSHAKES: usize = 2_000;

struct Proxy {
    name: &'static str,
    start: fn(&Path, SocketAddr, SocketAddr) -> Program,
}

const PROXIES: [Proxy; 2] =
    [Proxy { name: "nginx", start: start_nginx }, Proxy { name: "platformer lb", start: start_ours }];

#[derive(Default, Clone)]
struct Row {
    http2: Vec<f64>,
    rate: Samples,
    handshake: Vec<f64>,
}

pub(crate) fn run() -> String {
    let (Some(nginx), Some(h2load)) = (installed("nginx"), installed("h2load")) else {
        return "Not measured: nginx (nginx-light) and h2load (nghttp2-client) are not installed.".to_owned();
    };
    let place = tempfile::tempdir().expect("a directory");
    let own = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
    fs::write(place.path().join("chain.pem"), own.cert.pem()).expect("written");
    fs::write(place.path().join("key.pem"), own.signing_key.serialize_pem()).expect("written");
    let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let _upstream = start_upstream(&nginx, place.path(), behind, 4);
    let mut rows = vec![Row::default(); PROXIES.len()];
    for _ in 0..rounds() {
        for (proxy, row) in PROXIES.iter().zip(&mut rows) {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let mut running = (proxy.start)(place.path(), at, behind);
            running.wait_tcp(at);
            let (url, to) = (format!("https://{NAME}/"), format!("--connect-to={at}"));
            let per = |words: &[&str]| {
                let before = running.cpu_ns();
                let said = generate(&h2load, &[words, &["-t1", &to, &url]].concat());
                let done = succeeded(&said).unwrap_or_else(|| panic!("{}: {said}", proxy.name));
                ((running.cpu_ns() - before) as f64 / 1000.0 / done, done)
            };
            let length = format!("-D{}", seconds());
            per(&["-c16", "-m8", "-n20000"]);
            let (cpu, done) = per(&["-c16", "-m8", &length]);
            row.http2.push(cpu);
            row.rate.add(done / seconds() as f64 / 1000.0);
            let count = HANDSHAKES.to_string();
            let (cpu, _) = per(&["--h1", &format!("-n{count}"), &format!("-c{count}")]);
            row.handshake.push(cpu);
        }
    }
    let base = rows[0].clone();
    let cells = |proxy: &Proxy, row: &Row| {
        let mut cells = vec![proxy.name.to_owned()];
        for (own, base) in [(&row.http2, &base.http2), (&row.handshake, &base.handshake)] {
            let mut cpu = Samples::default();
            own.iter().for_each(|value| cpu.add(*value));
            let ratio = Samples::ratio(own.iter().copied().zip(base.iter().copied()));
            cells.extend([cpu.cell(1), ratio.cell(2)]);
        }
        cells.push(row.rate.cell(1));
        cells
    };
    let rows: Vec<_> = PROXIES.iter().zip(&rows).map(|(proxy, row)| cells(proxy, row)).collect();
    let head = [
        "proxy",
        "CPU µs per request, HTTP/2",
        "ratio",
        "CPU µs per connection with a whole handshake and one request",
        "ratio",
        "1,000 requests/s, HTTP/2",
    ];
    let seconds = seconds();
    format!(
        "h2load, one thread; answers of 4 B; a P-256 certificate. HTTP/2: 16 connections with 8 requests at once, {seconds} s a \
         round. Handshakes: {HANDSHAKES} connections, nothing resumed. Proxy with one worker on one core, h2load and an nginx \
         that answers on the other.\n\n{}",
        table(&head, &rows)
    )
}

/// `requests: 100 total, 100 started, 100 done, 100 succeeded, 0 failed, …`; none when one failed.
fn succeeded(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |word: &str| line.split(", ").find_map(|part| part.strip_suffix(word)?.trim().parse::<f64>().ok());
    (count(" failed")? == 0.0 && count(" errored")? == 0.0).then_some(count(" succeeded")?)
}

fn start_nginx(place: &Path, at: SocketAddr, behind: SocketAddr) -> Program {
    let (chain, key) = (place.join("chain.pem"), place.join("key.pem"));
    let server = format!(
        "upstream apps {{ server {behind}; keepalive 256; keepalive_requests 100000000; }} \
         server {{ listen {at} ssl http2; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3; \
         keepalive_requests 100000000; location / {{ proxy_pass http://apps; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; \
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id; }} }}",
        chain.display(),
        key.display()
    );
    let nginx = installed("nginx").expect("it was there a moment ago");
    start_nginx_with(&nginx, SERVER_CORE, place, &format!("tls-{}", at.port()), &server)
}

fn start_ours(place: &Path, at: SocketAddr, behind: SocketAddr) -> Program {
    let read = |name: &str| fs::read_to_string(place.join(name)).expect("it was written");
    let file = place.join("tls-table.json");
    let table = serde_json::json!({"sections": [{
        "environment": "production", "app": "bench", "live": 1,
        "routes": [{"path": "/", "process": "web"}],
        "pools": {"1": {
            "weight": 1,
            "probes": {"web": {"check": "/", "interval_ms": 1000, "timeout_ms": 2000, "rise": 1, "fall": 3}},
            "instances": {"bench-v1-r1-web-1": {"process": "web", "address": behind.to_string(), "state": "active"}}
        }},
        "tls": {"certificates": [{"names": [NAME], "chain": read("chain.pem"), "key": read("key.pem")}]},
        "drain": {"requests_ms": 30000, "streams_ms": 30000}
    }]});
    fs::write(&file, table.to_string()).expect("written");
    let (file, at) = (file.display().to_string(), at.to_string());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())).to_string();
    let admin_at = admin.to_string();
    let words = ["--table", &file, "--http", &plain, "--https", &at, "--admin", &admin_at, "--threads", "1"];
    let program = Program::start(SERVER_CORE, &program("lb"), &words, &place.join("lb.log"));
    wait_up(admin);
    program
}
