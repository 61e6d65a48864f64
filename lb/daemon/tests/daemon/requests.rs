//! Requests as bytes: what reaches an app of them, and what never does.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::raw;
use crate::recorder::Recorder;
use crate::stage::{Stage, eventually};

/// Sends the bytes and reads until lb ends the connection, which it must.
async fn ask(stage: &Stage, bytes: &[u8]) -> String {
    let limit = Duration::from_secs(5);
    tokio::time::timeout(limit, raw(stage.lb.http, bytes)).await.unwrap_or_else(|_| {
        panic!("no end after {:?}", String::from_utf8_lossy(bytes));
    })
}

/// What the app got, without the lines that lb adds to every request.
pub(crate) fn got(recorder: &Recorder) -> String {
    let text = recorder.take();
    let ours = ["X-Forwarded-For: ", "X-Forwarded-Proto: ", "X-Forwarded-Host: ", "X-Request-Id: "];
    text.split_inclusive("\r\n").filter(|line| !ours.iter().any(|name| line.starts_with(name))).collect()
}

#[tokio::test]
async fn requests_are_written_anew() {
    let (stage, recorder) = Recorder::stage().await;
    for (sent, expect) in [
        (
            "GET /x?y HTTP/1.1\r\nhOst: a\r\nX-A:  b \r\nConnection: close\r\n\r\n",
            "GET /x?y HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n",
        ),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "GET http://a:80/x HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a:80\r\n\r\n",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 003\r\n\r\nEND",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nEND",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nEND\r\n0\r\nX: y\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nEND\r\n0\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\ncontent_length: 2\r\nmy_own: 3\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nmy_own: 3\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ] {
        let answer = ask(&stage, sent.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{sent:?} got {answer:?}");
        // The last chunk may come after the answer went.
        let mut all = got(&recorder);
        eventually("the rest of the body", async || {
            all += &got(&recorder);
            all.len() >= expect.len()
        })
        .await;
        assert_eq!(all, expect);
    }
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_reaches_no_app() {
    let (stage, recorder) = Recorder::stage().await;
    let many: String = (0..101).map(|number| format!("x-{number}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(40_000));
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\nEND");
    let first = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let refused = [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad-framing"),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400, "bad-framing"),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".to_owned(), 400, "bad-framing"),
        (first("GET /a b HTTP/1.1"), 400, "bad-framing"),
        (first("GET  / HTTP/1.1"), 400, "bad-framing"),
        (first("GET / HTTP/1.2"), 400, "bad-framing"),
        (first("GET / HTTP/2.0"), 400, "bad-framing"),
        (first("GET /"), 400, "bad-framing"),
        (first("GET / http/1.1"), 400, "bad-framing"),
        (first("G(T / HTTP/1.1"), 400, "bad-framing"),
        (first("GET a HTTP/1.1"), 400, "bad-framing"),
        (first("GET * HTTP/1.1"), 400, "bad-framing"),
        (first("GET http://b/ HTTP/1.1"), 400, "bad-framing"),
        (first("GET /a#/../b HTTP/1.1"), 400, "bad-framing"),
        (first("GET /a/../b HTTP/1.1"), 400, "bad-path"),
        (first("GET /a/%2e%2e/b HTTP/1.1"), 400, "bad-path"),
        (first("GET /a%2fb HTTP/1.1"), 400, "bad-path"),
        (first("GET /a%00 HTTP/1.1"), 400, "bad-path"),
        (first("CONNECT a:1 HTTP/1.1"), 405, "bad-method"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), 400, "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".to_owned(), 400, "bad-host"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), 400, "bad-host"),
        (get("Host: a\r\n"), 400, "bad-framing"),
        (get("Host: b\r\n"), 400, "bad-framing"),
        (get(" folded: x\r\n"), 400, "bad-framing"),
        (get("X: y\r\n folded\r\n"), 400, "bad-framing"),
        (get("X : y\r\n"), 400, "bad-framing"),
        (get("X\r\n"), 400, "bad-framing"),
        (get("X: a\0b\r\n"), 400, "bad-framing"),
        (get("X: a\rb\r\n"), 400, "bad-framing"),
        (get("Connection: close, host\r\n"), 400, "bad-framing"),
        (get("Connection: content-length\r\n"), 400, "bad-framing"),
        (post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400, "bad-framing"),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400, "bad-framing"),
        (post("Content-Length: 3\r\nContent-Length: 3\r\n"), 400, "bad-framing"),
        (post("Content-Length: 3, 3\r\n"), 400, "bad-framing"),
        (post("Content-Length: +3\r\n"), 400, "bad-framing"),
        (post("Content-Length: -3\r\n"), 400, "bad-framing"),
        (post("Content-Length: 0x3\r\n"), 400, "bad-framing"),
        (post("Content-Length: 3.0\r\n"), 400, "bad-framing"),
        (post("Content-Length: 99999999999999999999\r\n"), 400, "bad-framing"),
        (post("Transfer-Encoding: gzip, chunked\r\n"), 501, "bad-framing"),
        (post("Transfer-Encoding: identity\r\n"), 501, "bad-framing"),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501, "bad-framing"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400, "bad-framing"),
        (get(&many), 431, "head-too-large"),
        (get(&large), 431, "head-too-large"),
    ];
    for (bytes, status, code) in refused {
        let answer = ask(&stage, bytes.as_bytes()).await;
        let start: String = bytes.chars().take(80).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?} got {answer:?}");
        assert!(answer.contains(&format!("\r\nX-Platform-Error: {code}\r\n")), "{start:?} got {answer:?}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{start:?} got {answer:?}");
    }
    assert_eq!(recorder.take(), "");
}

#[tokio::test]
async fn odd_bytes_around_a_coding_never_hide_it() {
    let (stage, recorder) = Recorder::stage().await;
    for odd in [0u8, 1, 4, 8, 9, 10, 11, 12, 13, 31, 32, 0x7f, 0xa0, 0xff, b'"', b'\'', b',', b';', b'_'] {
        for place in 0..10 {
            let mut line = Vec::new();
            for (at, part) in ["", "Transfer", "-", "Encoding", ":", " ", "chu", "nked", "", "\r\n"].iter().enumerate()
            {
                line.extend(part.as_bytes());
                if at == place {
                    line.push(odd);
                }
            }
            // Whoever sees the coding reads an empty body and a second request; whoever does not reads one body.
            let body = "0\r\n\r\nGET /END HTTP/1.1\r\nHost: a\r\n\r\n";
            let mut bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n", body.len()).into_bytes();
            bytes.extend(&line);
            bytes.extend(b"Connection: close\r\n\r\n");
            bytes.extend(body.as_bytes());
            let answer = ask(&stage, &bytes).await;
            let forwarded = recorder.take();
            let line = String::from_utf8_lossy(&line).into_owned();
            if answer.starts_with("HTTP/1.1 200 ") {
                // Then it is another field, which the app gets by another name, with the one length that counts.
                let lower = forwarded.to_lowercase();
                assert!(!lower.contains("\r\ntransfer-encoding:"), "{line:?} reached the app: {forwarded:?}");
                assert_eq!(lower.matches("content-length:").count(), 1, "{line:?}: {forwarded:?}");
            } else {
                assert!(
                    answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 "),
                    "{line:?}: {answer:?}"
                );
                assert_eq!(forwarded, "", "{line:?}");
            }
        }
    }
}

#[tokio::test]
async fn chunks_that_are_none_end_the_connection() {
    let (stage, recorder) = Recorder::stage().await;
    for body in
        ["3\nEND\r\n0\r\n\r\n", "3;x\ny\r\nEND\r\n", "0x3\r\nEND\r\n", "3 \r\nEND\r\n", "-3\r\nEND\r\n", "x\r\n"]
    {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let answer = ask(&stage, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("bad-framing"), "{body:?} got {answer:?}");
        assert!(!recorder.take().contains("END"), "{body:?}");
    }
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_their_order() {
    let (stage, recorder) = Recorder::stage().await;
    let post = "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nEND";
    let refused = "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n";
    let all = format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n{post}GET /3 HTTP/1.1\r\nHost: a\r\n\r\n{refused}");
    // At once, and byte by byte.
    for piece in [all.len(), 1] {
        let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in all.as_bytes().chunks(piece) {
            stream.write_all(piece).await.unwrap();
        }
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 3, "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 400 ").count(), 1, "{answers}");
        let reached = recorder.take();
        let order: Vec<_> = reached.lines().filter(|line| line.ends_with(" HTTP/1.1")).collect();
        assert_eq!(order.len(), 3, "{reached}");
        assert!(!reached.contains("never"), "{reached}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_from_the_app() {
    let (stage, recorder) = Recorder::stage().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The app gets the head before there is a body, and that it is expected.
    let mut got = String::new();
    eventually("the head at the app", async || {
        got += &recorder.take();
        got.ends_with("\r\n\r\n")
    })
    .await;
    assert!(got.contains("\r\nExpect: 100-continue\r\n"), "{got}");
    recorder.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    stream.write_all(b"END").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");

    // Who gets an answer instead may send its body or not, so nothing can follow.
    recorder.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let keyed = head.replace("Connection: close\r\n", "").replace("Content-Length: 3", "Content-Length: 3\r\nX: END");
    let answer = ask(&stage, keyed.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
    recorder.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

    // Who did not ask for it does not get it.
    let plain = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nEND";
    let answer = ask(&stage, plain.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
