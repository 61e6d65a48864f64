//! Who may keep lb waiting, and for how long.

use std::time::Duration;

use lb::{Config, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::recorder::Recorder;
use crate::stage::{Stage, config};

const SHORT: Duration = Duration::from_millis(300);

async fn stage(limits: Limits) -> (Stage, std::sync::Arc<Recorder>) {
    Recorder::stage_as(Config { limits, ..config() }).await
}

/// Sends `first`, then `drip` again and again, until the connection ends; answers what came.
async fn drip(stage: &Stage, first: &str, drip: &'static str) -> String {
    let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let asked = stage.shutdown.asked();
    stage.tasks.spawn("dripping", async move {
        let dripping = async {
            while writing.write_all(drip.as_bytes()).await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        tokio::select! { () = asked => {}, () = dripping => {} }
    });
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), reading.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it is never ended: {first:?}");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_has_a_limit_as_a_whole() {
    let (stage, recorder) = stage(Limits { head: SHORT, ..Limits::default() }).await;
    let answer = drip(&stage, "GET / HTTP/1.1\r\n", "X: y\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("client-timeout"), "{answer}");
    assert_eq!(recorder.take(), "");
    assert!(stage.admin("/metrics").await.1.contains("platform_lb_late_heads_total 1\n"));
}

#[tokio::test]
async fn a_body_may_not_drip() {
    let (stage, _recorder) = stage(Limits { pace_window: SHORT, ..Limits::default() }).await;
    for head in ["Content-Length: 100000", "Content-Length: 100000\r\nAccept: text/event-stream"] {
        let answer = drip(&stage, &format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"), "x").await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("client-timeout"), "{answer}");
    }
}

#[tokio::test]
async fn who_is_silent_is_named() {
    let (stage, recorder) = stage(Limits { silence: SHORT, ..Limits::default() }).await;
    // The client owes its body, whatever answer it wants.
    for more in ["", "Accept: text/event-stream\r\n"] {
        let answer = drip(&stage, &format!("POST / HTTP/1.1\r\nHost: a\r\n{more}Content-Length: 5\r\n\r\n"), "").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    // The app owes its answer: to a whole request, and to one whose client waits for 100.
    recorder.say("");
    for lines in ["", "Expect: 100-continue\r\nContent-Length: 5\r\n"] {
        let answer = drip(&stage, &format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n"), "").await;
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("instance-timeout"), "{answer}");
    }
}

#[tokio::test]
async fn an_app_that_takes_nothing_is_the_one_that_is_silent() {
    let stage = Stage::start_as(Config { limits: Limits { silence: SHORT, ..Limits::default() }, ..config() }).await;
    // It answers probes, and never reads what else comes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    stage.tasks.spawn("deaf-app", async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut start = [0; 11];
            while stream.peek(&mut start).await.is_ok_and(|read| read > 0 && read < 11) {
                tokio::task::yield_now().await;
            }
            if &start == b"GET /health" {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            } else {
                held.push(stream);
            }
        }
    });
    stage.controller.publish(&[crate::stage::section_of(&[("deaf", address, crate::stage::Active)])]).await;
    stage.up("deaf").await;
    let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    stage.tasks.spawn("writing", async move { while writing.write_all(&[b'x'; 64 << 10]).await.is_ok() {} });
    let mut answer = vec![0; 13];
    reading.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 504 ");
}

#[tokio::test]
async fn who_was_connected_at_the_stop_is_answered() {
    for _ in 0..10 {
        let (stage, _recorder) = stage(Limits::default()).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            let mut stream = std::net::TcpStream::connect(stage.lb.http).unwrap();
            std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            streams.push(stream);
        }
        stage.shutdown.ask();
        for stream in streams {
            stream.set_nonblocking(true).unwrap();
            let mut answer = String::new();
            TcpStream::from_std(stream).unwrap().read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer:?}");
        }
    }
}
