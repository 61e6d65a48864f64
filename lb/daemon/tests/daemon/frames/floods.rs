//! Floods of frames: each is bounded, or ends the connection with ENHANCE_YOUR_CALM.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::writer::{
    ALL, CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, NONE, PING, PRIORITY, RST_STREAM, SETTINGS, Seen,
    WINDOW_UPDATE, block, data, frame, get, get_with, number, opening, post, settings,
};
use super::{CALM, LIMIT};
use crate::stage::Stage;

/// Sends all of it and reads meanwhile, until lb ends the connection or a request after the flood is answered (true).
async fn survives(stage: &Stage, flood: Vec<u8>, witness: u32) -> (bool, Seen) {
    let (mut reading, mut writing) = TcpStream::connect(stage.lb.http).await.unwrap().into_split();
    let sending = async {
        for piece in [opening(), flood, get(witness)] {
            if writing.write_all(&piece).await.is_err() {
                return;
            }
        }
        // Kept until the answer is there.
        std::future::pending::<()>().await;
    };
    let (mut seen, mut unread) = (Seen::default(), Vec::new());
    let looking = async {
        while !seen.ended.contains(&witness) {
            if !reading.read_buf(&mut unread).await.is_ok_and(|read| read > 0) {
                return false;
            }
            seen.take(&mut unread);
        }
        true
    };
    let survived = tokio::select! {
        survived = tokio::time::timeout(6 * LIMIT, looking) => survived.expect("an answer or an end"),
        () = sending => false,
    };
    (survived, seen)
}

/// Requests that are as wrong as one can be without ending the connection.
fn broken(stream: u32) -> Vec<u8> {
    frame(HEADERS, ALL, stream, &get_with(&[("te", "gzip")]))
}

#[tokio::test]
async fn floods_that_cost_memory_or_work_end_the_connection() {
    let (stage, _app) = Stage::with_app("one").await;
    let odd = |count: u32, frames: fn(u32) -> Vec<u8>| (0..count).flat_map(|at| frames(2 * at + 1)).collect::<Vec<_>>();
    for (name, flood) in [
        // CVE-2023-44487.
        ("rapid reset", odd(2_000, |stream| [get(stream), number(RST_STREAM, stream, 8)].concat())),
        // CVE-2024-27316.
        (
            "CONTINUATION",
            [frame(HEADERS, 1, 1, &block(&GET)), frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(2_000)]
                .concat(),
        ),
        (
            "empty CONTINUATION",
            [frame(HEADERS, 1, 1, &block(&GET)), frame(CONTINUATION, 0, 1, &[]).repeat(2_000)].concat(),
        ),
        // CVE-2019-9518.
        ("empty DATA", [post(1, &[]), data(1, NONE, 0).repeat(20_000)].concat()),
        // CVE-2025-8671: the server is made to reset, and counts what it resets.
        ("malformed requests", odd(2_000, broken)),
        (
            "requests past the limit",
            odd(2_000, |stream| {
                let ask = [(":method", "POST"), GET[1], (":path", "/slow?ms=60000"), GET[3]];
                frame(HEADERS, END_HEADERS, stream, &block(&ask))
            }),
        ),
    ] {
        let (survived, seen) = survives(&stage, flood, 0x3fff_ffff).await;
        // What it has not read when it closes may take its last word with it.
        assert!(!survived && seen.goaway.is_none_or(|code| code == CALM), "{name}: {survived} {:?}", seen.goaway);
    }
    let (survived, _) = survives(&stage, Vec::new(), 1).await;
    assert!(survived, "others go on");
}

#[tokio::test]
async fn floods_that_cost_nothing_are_borne() {
    let (stage, _app) = Stage::with_app("one").await;
    const MANY: usize = 50_000;
    let ping = frame(PING, NONE, 0, b"12345678");
    for (name, flood, answers) in [
        // CVE-2019-9512 and CVE-2019-9515: answered one by one, as fast as the client reads.
        ("PING", ping.repeat(MANY), MANY),
        ("SETTINGS", settings(&[(4, 65_535)]).repeat(MANY), MANY),
        ("empty SETTINGS", frame(SETTINGS, NONE, 0, &[]).repeat(MANY), MANY),
        ("PRIORITY", frame(PRIORITY, NONE, 7, &[0, 0, 0, 0, 15]).repeat(MANY), 0),
        ("WINDOW_UPDATE", number(WINDOW_UPDATE, 0, 1).repeat(MANY), 0),
        ("unknown", frame(0x77, NONE, 0, b"x").repeat(MANY), 0),
        // One byte each: they go on as they come, and nothing of what was around them is kept.
        ("small DATA", [post(1, &[]), data(1, NONE, 1).repeat(MANY)].concat(), 0),
        ("PINGs that answer nothing", frame(PING, 1, 0, b"12345678").repeat(MANY), 0),
    ] {
        let (survived, seen) = survives(&stage, flood, 9).await;
        let answered = seen.pongs + seen.acks.saturating_sub(1);
        assert!(survived && answered >= answers, "{name}: {survived}, {answered} answers");
    }
}

#[tokio::test]
async fn who_reads_no_answers_cannot_make_them_pile_up() {
    let (stage, _app) = Stage::with_app("one").await;
    // More than the system keeps of both directions.
    const MORE_THAN_BUFFERS: usize = 64 << 20;
    for (name, one) in [("PING", frame(PING, NONE, 0, b"12345678")), ("SETTINGS", settings(&[(4, 65_535)]))] {
        let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
        stream.write_all(&opening()).await.unwrap();
        let (piece, mut sent) = (one.repeat(4_000), 0);
        while sent < MORE_THAN_BUFFERS {
            // A slow machine ends this early, which proves less and breaks nothing.
            match tokio::time::timeout(Duration::from_millis(500), stream.write_all(&piece)).await {
                Ok(Ok(())) => sent += piece.len(),
                _ => break,
            }
        }
        assert!(sent < MORE_THAN_BUFFERS, "{name}: lb took {sent} bytes of a client that reads nothing");
    }
}

#[tokio::test]
async fn a_block_that_unpacks_to_megabytes_is_refused() {
    let (stage, app) = Stage::with_app("one").await;
    // One field of 3.9 KiB is put into the table, and then named by one byte 4,000 times: 16 MiB.
    let value = "y".repeat(3_900);
    let mut put = block(&[&GET, &[("x-large", &*value)][..]].concat());
    let at = put.len() - block(&[("x-large", &*value)]).len();
    put[at] = 0x40;
    let bomb = [&put[..], &[0xbe; 4_000]].concat();
    let (survived, seen) = survives(&stage, frame(HEADERS, ALL, 1, &bomb), 9).await;
    let is_told = seen.statuses.get(&1) == Some(&431);
    assert!(seen.goaway == Some(CALM) || (survived && is_told), "{seen:?}");
    assert!(app.hits() <= 1, "{}", app.hits());
}

#[tokio::test]
async fn windows_held_shut_hold_little_and_not_for_ever() {
    use lb::{Config, Limits};

    let limits = Limits { silence: Duration::from_millis(500), ..Limits::default() };
    let stage = Stage::start_as(Config { limits, ..crate::stage::config() }).await;
    let app = stage.app("one").await;
    stage.controller.publish(&[crate::stage::section(&[(&app, crate::stage::Active)])]).await;
    stage.up("one").await;
    let (mut reading, mut writing) = TcpStream::connect(stage.lb.http).await.unwrap().into_split();
    writing.write_all(&[opening(), settings(&[(4, 0)])].concat()).await.unwrap();
    // Each is answered with what it sends, which the client has no window for.
    let ask = |stream| [post(stream, &[]), data(stream, NONE, 500), data(stream, END_STREAM, 500)].concat();
    for at in 0..50 {
        writing.write_all(&ask(2 * at + 1)).await.unwrap();
    }
    let (mut seen, mut unread) = (Seen::default(), Vec::new());
    let ended = async {
        while seen.resets.len() < 50 {
            assert!(reading.read_buf(&mut unread).await.is_ok_and(|read| read > 0), "{seen:?}");
            seen.take(&mut unread);
        }
    };
    tokio::time::timeout(3 * LIMIT, ended).await.expect("each is ended");
    assert_eq!(seen.data.values().sum::<usize>(), 0);
    stage.controller.until_instance("one", "nobody inside", |report| report.in_flight == 0).await;
}
