//! The repository beside Debian's docker-registry: pushing and pulling blobs through the protocol that both speak.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use appbase_core::Digest;
use kit::Clock;
use reqwest::{Client, StatusCode};
use tests::platform::program;

use crate::program::{Program, SERVER_CORE, free_port, installed};
use crate::report::{Samples, rounds, setting, table};

const SMALL_BYTES: usize = 4096;
const SMALL_COUNT: usize = 500;
const CLIENTS: usize = 16;
const REQUEST_MAX: Duration = Duration::from_secs(300);

struct Server {
    name: &'static str,
    start: fn(&Path, u16) -> Option<Program>,
}

const SERVERS: [Server; 2] = [
    Server { name: "docker-registry", start: start_registry },
    Server { name: "platformer repository", start: start_ours },
];

/// One figure: its name, and whether more is better.
const FIGURES: [&str; 8] = [
    "big push, MB/s",
    "big pull, MB/s",
    "small push, blobs/s, 1 client",
    "small pull, blobs/s, 1 client",
    "small push, blobs/s, 16 clients",
    "small pull, blobs/s, 16 clients",
    "CPU seconds in all",
    "peak memory, MiB",
];

pub(crate) fn run() -> String {
    let megabytes = setting("PLATFORMER_BENCH_BLOB_MB", 256);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut figures = vec![[const { Vec::new() }; FIGURES.len()], [const { Vec::new() }; FIGURES.len()]];
    for _ in 0..rounds() {
        for (server, figures) in SERVERS.iter().zip(&mut figures) {
            // A directory of its own each time: nothing is there already.
            let place = tempfile::tempdir().expect("a directory");
            let port = free_port();
            let Some(mut running) = (server.start)(place.path(), port) else { continue };
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            running.wait_tcp(at);
            let one: [f64; 6] = runtime.block_on(measure(at, megabytes << 20));
            let rest = [running.cpu_ns() as f64 / 1e9, running.peak_mib()];
            one.into_iter().chain(rest).zip(figures.iter_mut()).for_each(|(value, figure)| figure.push(value));
        }
    }
    let rows: Vec<_> = FIGURES
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let cell = |server: usize| {
                let mut samples = Samples::default();
                figures[server][index].iter().for_each(|value| samples.add(*value));
                samples.cell(if index >= 6 { 1 } else { 0 })
            };
            let ratio = Samples::ratio(figures[1][index].iter().copied().zip(figures[0][index].iter().copied()));
            vec![(*name).to_owned(), cell(0), cell(1), ratio.cell(2)]
        })
        .collect();
    format!(
        "One blob of {megabytes} MiB and {SMALL_COUNT} of {SMALL_BYTES} bytes for one client and as many for {CLIENTS} at once, each \
         pushed (POST, then PUT with the digest) and pulled over keep-alive connections, on the same disk. Ours answers a \
         push only when it is synced to the disk; docker-registry 2.8 does not sync.\n\n{}",
        table(&["figure", SERVERS[0].name, SERVERS[1].name, "ratio"], &rows)
    )
}

async fn measure(at: SocketAddr, big: usize) -> [f64; 6] {
    let client = Client::builder().timeout(REQUEST_MAX).no_proxy().build().expect("a client without TLS");
    let base = format!("http://{at}/v2/bench");
    let bytes = bytes::Bytes::from(contents(0, big));
    let digest = Digest::of(&bytes);
    let clock = Clock::start();
    push(&client, &base, bytes, digest).await;
    let pushed = clock.elapsed().as_secs_f64();
    let clock = Clock::start();
    pull(&client, &base, digest, big).await;
    let pulled = clock.elapsed().as_secs_f64();
    let rate = |seconds: f64| big as f64 / 1e6 / seconds;
    let (push_one, pull_one) = small(&client, &base, 1).await;
    let (push_many, pull_many) = small(&client, &base, CLIENTS).await;
    [rate(pushed), rate(pulled), push_one, pull_one, push_many, pull_many]
}

/// Pushes, then pulls small blobs with so many clients at once; blobs per second.
async fn small(client: &Client, base: &str, clients: usize) -> (f64, f64) {
    let blobs: Vec<_> =
        (0..SMALL_COUNT).map(|number| contents(clients * 1_000_000 + number + 1, SMALL_BYTES)).collect();
    let blobs: Vec<_> = blobs.into_iter().map(|blob| (Digest::of(&blob), bytes::Bytes::from(blob))).collect();
    let rate = |clock: Clock| SMALL_COUNT as f64 / clock.elapsed().as_secs_f64();
    let clock = Clock::start();
    let lane = |lane: usize| blobs.iter().skip(lane).step_by(clients);
    futures_util::future::join_all((0..clients).map(|number| async move {
        for (digest, blob) in lane(number) {
            push(client, base, blob.clone(), *digest).await;
        }
    }))
    .await;
    let pushed = rate(clock);
    let clock = Clock::start();
    futures_util::future::join_all((0..clients).map(|number| async move {
        for (digest, blob) in lane(number) {
            pull(client, base, *digest, blob.len()).await;
        }
    }))
    .await;
    (pushed, rate(clock))
}

/// Bytes that nothing shrinks, the same for the same number.
fn contents(number: usize, length: usize) -> Vec<u8> {
    let mut state = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| word()).take(length).collect()
}

async fn push(client: &Client, base: &str, bytes: bytes::Bytes, digest: Digest) {
    let begun =
        client.post(format!("{base}/blobs/uploads/")).header("content-length", 0).send().await.expect("an answer");
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let location = begun.headers()["location"].to_str().expect("a text").to_owned();
    let location = if location.starts_with('/') {
        format!("{}{location}", base.split("/v2/").next().expect("the server"))
    } else {
        location
    };
    let sign = if location.contains('?') { '&' } else { '?' };
    let put = client.put(format!("{location}{sign}digest={digest}")).header("content-type", "application/octet-stream");
    let stored = put.body(bytes).send().await.expect("an answer");
    assert_eq!(stored.status(), StatusCode::CREATED);
}

async fn pull(client: &Client, base: &str, digest: Digest, length: usize) {
    let mut answer = client.get(format!("{base}/blobs/{digest}")).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let mut read = 0;
    while let Some(chunk) = answer.chunk().await.expect("a chunk") {
        read += chunk.len();
    }
    assert_eq!(read, length);
}

fn start_ours(place: &Path, port: u16) -> Option<Program> {
    let (data, listen) = (place.join("data").display().to_string(), format!("127.0.0.1:{port}"));
    let admin = format!("127.0.0.1:{}", free_port());
    let words = ["--data", &data, "--listen", &listen, "--admin", &admin];
    Some(Program::start(SERVER_CORE, &program("repository"), &words, &place.join("log")))
}

fn start_registry(place: &Path, port: u16) -> Option<Program> {
    let registry = installed("docker-registry")?;
    let conf = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
         http:\n  addr: 127.0.0.1:{port}\n",
        place.join("data").display()
    );
    fs::write(place.join("conf.yml"), conf).expect("written");
    let conf = place.join("conf.yml").display().to_string();
    Some(Program::start(SERVER_CORE, &registry, &["serve", &conf], &place.join("log")))
}
