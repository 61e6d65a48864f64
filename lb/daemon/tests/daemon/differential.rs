//! The same bytes through nginx, HAProxy, Caddy and lb, each before an app that keeps what it gets: lb never forwards what
//! two of the others read differently. `make soak` runs it where they are installed (Debian: nginx-light haproxy caddy).

mod cases;
mod origin;
mod peer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{Active, Stage, section_of};
use origin::{Got, Origin};

/// For the first byte of an answer; whoever says nothing for so long waits for more of the request.
const SILENT: Duration = Duration::from_millis(800);
/// In one case.
const REQUESTS_MAX: usize = 4;
/// And then for the next.
const QUIET: Duration = Duration::from_millis(60);

/// Sends the bytes, and answers when nothing more comes.
async fn send(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let (mut piece, mut wait) = ([0; 4096], SILENT);
    while let Ok(Ok(1..)) = tokio::time::timeout(wait, stream.read(&mut piece)).await {
        wait = QUIET;
    }
}

/// What each case became at the app behind one of them.
async fn readings(proxy: SocketAddr, origin: &Origin, cases: &[Vec<u8>]) -> Vec<Vec<Got>> {
    let mut all = Vec::new();
    for case in cases {
        origin.take();
        send(proxy, case).await;
        all.push(origin.take());
    }
    all
}

/// Whether two of them read one of the first `count` requests differently. Who refuses one reads nothing there.
fn differ(readings: &[&Vec<Got>], count: usize) -> bool {
    (0..count).any(|at| {
        let mut read = readings.iter().filter_map(|reading| reading.get(at));
        let first = read.next();
        read.any(|reading| Some(reading) != first)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, and it wants nginx, haproxy and caddy"]
async fn nothing_is_forwarded_that_others_read_in_two_ways() {
    let place = tempfile::tempdir().unwrap();
    let cases = Arc::new(cases::all());
    let stage = Stage::start().await;
    let own = Origin::start(&stage.tasks).await;
    stage.controller.publish(&[section_of(&[("origin", own.address, Active)])]).await;
    stage.up("origin").await;
    let mut tasks = Vec::new();
    let mut running = Vec::new();
    for (name, start) in peer::ALL {
        let origin = Origin::start(&stage.tasks).await;
        let Some(peer) = start(place.path(), origin.address) else {
            println!("differential: {name} is not installed, and nothing was compared");
            return;
        };
        peer.wait().await;
        let (address, cases) = (peer.address, Arc::clone(&cases));
        running.push(peer);
        tasks.push(stage.tasks.spawn(name, async move { readings(address, &origin, &cases).await }));
    }
    let ours = readings(stage.lb.http, &own, &cases).await;
    let mut others = Vec::new();
    for task in tasks {
        others.push(task.await.unwrap().expect("no panic"));
    }
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut breaches = Vec::new();
    for (number, (case, own)) in cases.iter().zip(&ours).enumerate() {
        let peers: Vec<_> = others.iter().map(|all| &all[number]).collect();
        for ((name, _), reading) in peer::ALL.iter().zip(&peers).filter(|(_, reading)| !reading.is_empty()) {
            let same = if own.is_empty() {
                "lb refuses"
            } else if differ(&[own, reading], own.len()) {
                "other than lb"
            } else {
                "as lb"
            };
            *counts.entry(format!("{name} forwards, {same}")).or_default() += 1;
        }
        *counts.entry(if own.is_empty() { "lb refuses" } else { "lb forwards" }.to_owned()).or_default() += 1;
        if differ(&peers, REQUESTS_MAX) {
            *counts.entry("two of the others differ".to_owned()).or_default() += 1;
        }
        if differ(&peers, own.len()) {
            let case = case.escape_ascii();
            breaches.push(format!("b\"{case}\"\n  lb {own:?}\n  nginx, HAProxy, Caddy {peers:?}"));
        }
    }
    println!("differential: {} cases", cases.len());
    counts.iter().for_each(|(what, count)| println!("differential: {count:>5} {what}"));
    assert!(breaches.is_empty(), "{} forwarded:\n{}", breaches.len(), breaches.join("\n"));
}
