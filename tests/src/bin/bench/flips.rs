//! Flips under load, beside the way it is done by hand with nginx.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tests::docker::archive::Image;
use tests::docker::docker;
use tests::load::{Load, Tally};
use tests::platform::{Engine, Platform, eventually, http_request, program};
use tests::streams::{StreamTally, Streams};

use crate::lb::{nginx_conf, start_nginx_with};
use crate::program::{SERVER_CORE, free_port, installed};
use crate::report::{setting, table};

/// Rollbacks follow every fifth deploy.
const DEPLOYS_PER_ROLLBACK: usize = 5;
/// By hand it shows sooner.
const BY_HAND_MAX: usize = 30;
/// Streams may stay so long after a flip; short, so that a run ends.
const VERSION: &str = "[traffic]\nstream_drain = 1\n";

struct Outcome {
    flips: String,
    requests: Tally,
    streams: StreamTally,
}

pub(crate) fn run() -> String {
    if !Engine::Docker.answers() {
        return "Not measured: no Docker answers.".to_owned();
    }
    let deploys = setting("PLATFORMER_BENCH_DEPLOYS", 100);
    let platform = Platform::on(Engine::Docker);
    let ours = on_platform(&platform, deploys);
    let by_hand = by_hand(&platform, deploys.min(BY_HAND_MAX));
    let row = |name: &str, outcome: &Outcome| {
        let (requests, streams) = (&outcome.requests, &outcome.streams);
        vec![
            name.to_owned(),
            outcome.flips.clone(),
            (requests.good + requests.failed).to_string(),
            format!("**{}**", requests.failed),
            requests.cut.to_string(),
            requests.posts.to_string(),
            streams.opened.to_string(),
            streams.refused.to_string(),
            streams.asked.to_string(),
            streams.cut.to_string(),
            streams.answers_ended.to_string(),
        ]
    };
    let head = [
        "how",
        "flips",
        "requests",
        "failed",
        "of these without an answer",
        "POSTs",
        "streams opened",
        "not opened",
        "WebSockets asked to go (1001)",
        "WebSockets cut",
        "long answers ended",
    ];
    let mut rows = vec![row("platformctl deploy and rollback", &ours)];
    if let Some(by_hand) = &by_hand {
        rows.push(row("nginx by hand", by_hand));
    }
    format!(
        "hello-world with two instances on Docker, under constant load of eight clients (keep-alive, a new connection each, \
         answers that take 150 ms, POSTs of 4 KiB whose key must be counted exactly once) and with a WebSocket and a long \
         answer open at each flip. By hand: start two new containers, wait until they answer, edit the upstream, \
         `nginx -s reload`, `docker stop` the old ones. A POST that is carried out twice is a failure.{}\n\n{}",
        by_hand.iter().chain([&ours]).map(first_failure).collect::<String>(),
        table(&head, &rows)
    )
}

/// A sentence about it; empty when there was none.
fn first_failure(outcome: &Outcome) -> String {
    let reason = outcome.requests.reasons.first().and_then(|reason| reason.split('<').next());
    reason.map_or_else(String::new, |reason| format!(" A first failure of {}: `{}`.", outcome.flips, reason.trim()))
}

fn on_platform(platform: &Platform, deploys: usize) -> Outcome {
    let versions: Vec<String> = (1..=deploys + 1).map(|number| number.to_string()).collect();
    platform.push("hello", &versions[0], VERSION);
    platform.ctl_ok(&["deploy", "hello", &versions[0]]);
    let (load, streams) = (Load::start(platform.lb(), "hello"), Streams::start(platform.lb(), "hello"));
    let mut rollbacks = 0;
    for (number, version) in versions.iter().enumerate().skip(1) {
        platform.push("hello", version, VERSION);
        platform.ctl_ok(&["deploy", "hello", version]);
        if number % DEPLOYS_PER_ROLLBACK == 0 {
            platform.ctl_ok(&["rollback", "hello"]);
            rollbacks += 1;
        }
    }
    let flips = format!("{deploys} + {rollbacks} rollbacks");
    Outcome { flips, requests: load.stop(), streams: streams.stop() }
}

/// Containers with names and addresses of their own, in the platform's control network: they go with it.
fn by_hand(platform: &Platform, flips: usize) -> Option<Outcome> {
    let nginx = installed("nginx")?;
    let place = tempfile::tempdir().expect("a directory");
    let image = platform.docker().image("by-hand");
    load_image(platform, &image, place.path());
    let at: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("an address");
    let mut old = start_pair(platform, &image, 0);
    let server = |pair: &[Container]| {
        let servers: String = pair.iter().map(|one| format!("server {}; ", one.address)).collect();
        format!(
            "upstream apps {{ {servers} keepalive 32; }} server {{ listen {at}; location / {{ proxy_pass http://apps; \
             proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; \
             proxy_set_header Connection $connection_of_client; proxy_buffering off; }} }} \
             map $http_upgrade $connection_of_client {{ default upgrade; '' ''; }}"
        )
    };
    let mut running = start_nginx_with(&nginx, SERVER_CORE, place.path(), "by-hand", &server(&old));
    running.wait_tcp(at);
    let (load, streams) = (Load::start(at, "hello"), Streams::start(at, "hello"));
    for flip in 1..=flips {
        let new = start_pair(platform, &image, flip);
        fs::write(place.path().join("by-hand.conf"), nginx_conf(place.path(), "by-hand", &server(&new)))
            .expect("written");
        let conf = place.path().join("by-hand.conf").display().to_string();
        let reload = Command::new(&nginx).args(["-c", &conf, "-s", "reload"]).output().expect("nginx runs");
        assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
        for container in &old {
            docker(&["stop", "-t", "10", &container.name]);
            docker(&["rm", "-f", &container.name]);
        }
        old = new;
    }
    let outcome = Outcome { flips: flips.to_string(), requests: load.stop(), streams: streams.stop() };
    old.iter().for_each(|container| drop(docker(&["rm", "-f", &container.name])));
    Some(outcome)
}

struct Container {
    name: String,
    address: SocketAddr,
}

/// Two containers of the image, started and waited for.
fn start_pair(platform: &Platform, image: &str, flip: usize) -> Vec<Container> {
    let start = |number: usize| {
        let name = format!("{}-{flip}-{number}", image.replace(['/', ':'], "-"));
        let version = format!("HELLO_VERSION={flip}");
        let label = platform.docker().label();
        let network = platform.docker().named("control");
        docker(&[
            "run",
            "-d",
            "--name",
            &name,
            "--label",
            &label,
            "--network",
            &network,
            "-e",
            "PORT=8080",
            "-e",
            &version,
            image,
        ]);
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = format!("{}:8080", docker(&["inspect", "-f", format, &name]).trim()).parse().expect("an address");
        eventually("a container answers", || {
            http_request(address, "hello", "/health").filter(|(status, _)| *status == 200)
        });
        Container { name, address }
    };
    vec![start(1), start(2)]
}

pub(crate) fn load_image(platform: &Platform, tag: &str, place: &Path) {
    let mut image = Image::of_platform(tag.to_owned(), "65532:65532", "/hello-world");
    image.program("hello-world", "hello-world");
    let file = place.join("image.tar");
    fs::write(&file, platform.docker().archive(image)).expect("written");
    docker(&["load", "-q", "-i", &file.display().to_string()]);
    assert!(program("hello-world").exists());
}
