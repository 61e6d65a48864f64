//! How long a deploy, a warm rollback and a change of the route table take, from the command to the traffic.

use std::net::SocketAddr;
use std::time::Duration;

use appbase_core::claims::Scope;
use kit::Clock;
use kit::keys::KeyDirectory;
use tests::docker::docker;
use tests::platform::{Engine, Platform, http_request};

use crate::flips::load_image;
use crate::report::{Samples, rounds, table};

/// An answer that does not come in this time never comes.
const ANSWER_MAX: Duration = Duration::from_secs(40);
const CHANGES: usize = 50;
/// A client that asks more often takes from Docker and the platform what it measures.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// What the harness sets: so long an instance must have been up before it gets traffic.
const SETTLE_MS: f64 = 200.0;

pub(crate) fn run() -> String {
    if !Engine::Docker.answers() {
        return "Not measured: no Docker answers.".to_owned();
    }
    let platform = Platform::on(Engine::Docker);
    let place = tempfile::tempdir().expect("a directory");
    let image = platform.docker().image("by-hand");
    load_image(&platform, &image, place.path());
    let (mut run, mut deploy, mut rollback, mut ratios) = <(Samples, Samples, Samples, Samples)>::default();
    push(&platform, 0);
    platform.ctl_ok(&["deploy", "hello", "0"]);
    for round in 1..=rounds() * 2 {
        let by_hand = docker_run(&platform, &image);
        push(&platform, round);
        let (version, before) = (round.to_string(), (round - 1).to_string());
        let deployed = until_served(&platform, &["deploy", "hello", &version], &version);
        let rolled_back = until_served(&platform, &["rollback", "hello"], &before);
        platform.ctl_ok(&["deploy", "hello", &version]);
        run.add(by_hand);
        deploy.add(deployed);
        rollback.add(rolled_back);
        ratios.add((deployed - SETTLE_MS) / by_hand);
    }
    let (written, in_force) = changes(&platform);
    let rows = [
        ("`docker run` until the first 200 (one container)", run, 0),
        ("`platformctl deploy` until the first answer of the new version (one instance)", deploy, 0),
        ("the same less the settle time of 200 ms, as a multiple of `docker run`", ratios, 2),
        ("`platformctl rollback` until the first answer of the old, still warm version", rollback, 0),
        ("a change set until it is accepted: written, synced, published", written, 1),
        ("the same until lb answers by it", in_force, 1),
    ];
    let rows: Vec<_> =
        rows.into_iter().map(|(name, samples, digits)| vec![name.to_owned(), samples.cell(digits)]).collect();
    format!(
        "hello-world as an artifact on Docker, everything present (images loaded, version pushed); times from the start of the \
         command, seen by a client that asks through the load balancer every 5 ms, for the changes without a pause. From the second round on a warm \
         release makes room meanwhile. {} rounds, {CHANGES} changes.\n\n{}",
        rounds() * 2,
        table(&["what", "ms"], &rows)
    )
}

fn push(platform: &Platform, number: usize) {
    let version = number.to_string();
    let directory = platform.write_version("hello", &version, "");
    let file = directory.join("platform.toml");
    let text = std::fs::read_to_string(&file).expect("written above").replace("instances = 2", "instances = 1");
    std::fs::write(&file, text).expect("written");
    platform.ctl_ok(&["artifact", "push", "hello", &version, &directory.display().to_string()]);
}

fn docker_run(platform: &Platform, image: &str) -> f64 {
    let ip = platform.docker().spare_address();
    let address = SocketAddr::new(ip.into(), 8080);
    let name = platform.docker().named("run");
    let (label, network, ip) = (platform.docker().label(), platform.docker().named("control"), ip.to_string());
    let words =
        ["run", "-d", "--name", &name, "--label", &label, "--network", &network, "--ip", &ip, "-e", "PORT=8080", image];
    let clock = Clock::start();
    docker(&words);
    while http_request(address, "hello", "/greeting").is_none_or(|(status, _)| status != 200) {
        assert!(clock.elapsed() < ANSWER_MAX, "{name} answers");
        std::thread::sleep(ASK_EVERY);
    }
    let took = clock.elapsed().as_secs_f64() * 1000.0;
    docker(&["rm", "-f", &name]);
    took
}

/// Milliseconds from the start of a command until a client gets `version`; the command must end well, too.
fn until_served(platform: &Platform, words: &[&str], version: &str) -> f64 {
    let wanted = format!("hello from hello-world {version}\n");
    let clock = Clock::start();
    let mut command =
        platform.ctl_command(words).stdout(std::process::Stdio::null()).spawn().expect("platformctl runs");
    let mut looked = None;
    while looked.is_none() && clock.elapsed() < ANSWER_MAX {
        looked = platform.get("hello", "/greeting").filter(|(_, text)| *text == wanted);
        if looked.is_none() {
            std::thread::sleep(ASK_EVERY);
        }
    }
    let took = clock.elapsed().as_secs_f64() * 1000.0;
    assert!(looked.is_some(), "{words:?}: version {version} never answered");
    assert!(command.wait().expect("it runs").success(), "{words:?}");
    took
}

/// Milliseconds from sending a change to its answer, and to the first request that is treated by it.
fn changes(platform: &Platform) -> (Samples, Samples) {
    let signer = KeyDirectory::new(platform.keys()).signer().expect("keys");
    let token = signer.sign("bench", Scope::Admin, None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client without TLS");
    let url = format!("{}/v1/change-sets", platform.api());
    let (mut written, mut in_force) = <(Samples, Samples)>::default();
    for number in 0..CHANGES {
        let closed = number % 2 == 0;
        let mut params = serde_json::json!({"app": "hello"});
        if closed {
            params["message"] = "closed".into();
        }
        let body = serde_json::json!({"operations": [{"group": "app", "command": "maintenance", "params": params}]});
        let clock = Clock::start();
        let send = client.post(&url).bearer_auth(&token).json(&body).send();
        let answered = runtime.block_on(send).expect("an answer");
        written.add(clock.elapsed().as_secs_f64() * 1000.0);
        assert!(answered.status().is_success(), "{}", answered.status());
        let wanted = if closed { 503 } else { 200 };
        while platform.get("hello", "/greeting").is_none_or(|(status, _)| status != wanted) {
            assert!(clock.elapsed() < ANSWER_MAX, "the change is never in force");
        }
        in_force.add(clock.elapsed().as_secs_f64() * 1000.0);
    }
    (written, in_force)
}
