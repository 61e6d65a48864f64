//! The DNS server beside NSD and dnsmasq: CPU time per query over UDP, one worker each.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tests::faults::dns_knows;
use tests::platform::{eventually, program};

use crate::program::{Program, SERVER_CORE, free_port, generate, installed};
use crate::report::{Samples, rounds, seconds, table};

const NAMES: usize = 1000;
const QUESTIONS: usize = 10_000;

struct Server {
    name: &'static str,
    start: fn(&Path, u16) -> Option<Program>,
}

const SERVERS: [Server; 3] = [
    Server { name: "NSD", start: start_nsd },
    Server { name: "dnsmasq", start: start_dnsmasq },
    Server { name: "platformer dns", start: start_ours },
];

pub(crate) fn run() -> String {
    let Some(dnsperf) = installed("dnsperf") else { return "Not measured: dnsperf is not installed.".to_owned() };
    let place = tempfile::tempdir().expect("a directory");
    // NSD leaves its user's rights, and reads its zone before that.
    let questions = place.path().join("questions");
    fs::write(&questions, list_of_questions()).expect("written");
    let mut cpu: Vec<Vec<f64>> = vec![Vec::new(); SERVERS.len()];
    let mut rates = vec![Samples::default(); SERVERS.len()];
    for _ in 0..rounds() {
        for (index, server) in SERVERS.iter().enumerate() {
            let port = free_port();
            let Some(running) = (server.start)(place.path(), port) else { continue };
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            eventually(server.name, || dns_knows(at, "app-1.platform").then_some(()));
            let load = |seconds: usize| {
                let (port, seconds) = (port.to_string(), seconds.to_string());
                let file = questions.display().to_string();
                generate(
                    &dnsperf,
                    &["-s", "127.0.0.1", "-p", &port, "-d", &file, "-l", &seconds, "-c", "8", "-q", "512", "-T", "1"],
                )
            };
            load(1);
            let before = running.cpu_ns();
            let said = load(seconds());
            let spent = running.cpu_ns() - before;
            let completed = completed(&said);
            cpu[index].push(spent as f64 / 1000.0 / completed);
            rates[index].add(completed / seconds() as f64 / 1000.0);
        }
    }
    let base = cpu[0].clone();
    let rows: Vec<_> = SERVERS
        .iter()
        .enumerate()
        .map(|(index, server)| {
            let mut spent = Samples::default();
            cpu[index].iter().for_each(|value| spent.add(*value));
            let ratio = Samples::ratio(cpu[index].iter().copied().zip(base.iter().copied()));
            vec![server.name.to_owned(), spent.cell(2), ratio.cell(2), rates[index].cell(0)]
        })
        .collect();
    format!(
        "dnsperf, 8 sockets, 512 questions in flight, {} s a round; {NAMES} names; 55 % A, 20 % AAAA of a name without, 25 % \
         names that are not there. dnsperf has the second core to itself and is what bounds the rate: CPU per query is the \
         figure.\n\n{}",
        seconds(),
        table(&["server", "CPU µs per query", "ratio to NSD", "1,000 queries/s"], &rows)
    )
}

fn list_of_questions() -> String {
    let mut text = String::new();
    for number in 0..QUESTIONS {
        let name = number * 7 % NAMES;
        let _ = match number % 20 {
            0..11 => writeln!(text, "app-{name}.platform A"),
            11..15 => writeln!(text, "app-{name}.platform AAAA"),
            _ => writeln!(text, "none-{name}.platform A"),
        };
    }
    text
}

fn completed(said: &str) -> f64 {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Queries completed:"));
    let count = line.and_then(|line| line.split_whitespace().next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("dnsperf counts: {said}"))
}

fn start_ours(place: &Path, port: u16) -> Option<Program> {
    let apps: Vec<_> = (0..NAMES)
        .map(|number| {
            serde_json::json!({
                "environment": "production", "app": format!("app-{number}"), "default_environment": true, "routed": true,
                "instances": {}
            })
        })
        .collect();
    let table = serde_json::json!({
        "platform": {
            "domain": "platform", "ttl_ms": 5000,
            "views": [{"name": "all", "sources": ["::/0"], "forward": false, "parts": {"lb": ["10.0.0.1"]}}]
        },
        "apps": apps
    });
    let file = place.join("names.json");
    fs::write(&file, table.to_string()).expect("written");
    let (file, listen) = (file.display().to_string(), format!("127.0.0.1:{port}"));
    let admin = format!("127.0.0.1:{}", free_port());
    let words = ["--table", &file, "--listen", &listen, "--admin", &admin, "--upstreams", "127.0.0.1:9"];
    Some(Program::start(SERVER_CORE, &program("dns"), &words, &place.join("dns.log")))
}

fn start_nsd(place: &Path, port: u16) -> Option<Program> {
    let nsd = installed("nsd")?;
    let mut zone = "$ORIGIN platform.\n$TTL 5\n@ IN SOA ns.platform. admin.platform. 1 3600 600 86400 5\n@ IN NS ns\nns IN A 10.0.0.1\n".to_owned();
    (0..NAMES).for_each(|number| zone.push_str(&format!("app-{number} IN A 10.0.0.1\n")));
    let (at, user) = (place.display(), if rustix::process::getuid().is_root() { "root" } else { "" });
    let conf = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"{user}\"\n  database: \"\"\n  \
         pidfile: \"{at}/nsd.pid\"\n  zonelistfile: \"{at}/nsd.list\"\n  xfrdfile: \"{at}/nsd.xfrd\"\n  xfrdir: \"{at}\"\n  \
         zonesdir: \"{at}\"\n  cookie-secret-file: \"{at}/none\"\n  rrl-ratelimit: 0\nremote-control:\n  \
         control-enable: no\nzone:\n  name: platform\n  zonefile: \"{at}/platform.zone\"\n"
    );
    fs::write(place.join("platform.zone"), zone).expect("written");
    fs::write(place.join("nsd.conf"), conf).expect("written");
    let conf = place.join("nsd.conf").display().to_string();
    Some(Program::start(SERVER_CORE, &nsd, &["-d", "-c", &conf], &place.join("nsd.log")))
}

fn start_dnsmasq(place: &Path, port: u16) -> Option<Program> {
    let dnsmasq = installed("dnsmasq")?;
    let mut conf = format!(
        "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/platform/\nlocal-ttl=5\nno-daemon\n"
    );
    if rustix::process::getuid().is_root() {
        conf.push_str("user=root\n");
    }
    (0..NAMES).for_each(|number| conf.push_str(&format!("host-record=app-{number}.platform,10.0.0.1\n")));
    fs::write(place.join("dnsmasq.conf"), conf).expect("written");
    let words = format!("--conf-file={}", place.join("dnsmasq.conf").display());
    Some(Program::start(SERVER_CORE, &dnsmasq, &[&words, "--pid-file="], &place.join("dnsmasq.log")))
}
