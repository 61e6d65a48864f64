//! Answers as bytes: what a client gets of what an app says.

use std::time::Duration;

use lb::{Config, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::raw;
use crate::recorder::Recorder;
use crate::stage::{config, eventually};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: i\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn answers_are_framed_for_who_asked() {
    let (stage, recorder) = Recorder::stage().await;
    let old = b"GET / HTTP/1.0\r\nHost: a\r\nX-Request-Id: i\r\n\r\n";
    let head = b"HEAD / HTTP/1.1\r\nHost: a\r\nX-Request-Id: i\r\nConnection: close\r\n\r\n";
    let ours = "X-Request-Id: i\r\nConnection: close\r\n";
    for (asked, said, body) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "Content-Length: 2\r\n\r\nok"),
        (
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX: y\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (GET, "HTTP/1.1 200 OK\r\n\r\nok<close>", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        (GET, "HTTP/1.0 200 OK\r\n\r\nok<close>", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        (&old[..], "HTTP/1.1 200 OK\r\n\r\nok<close>", "\r\nok"),
        (&old[..], "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "\r\nok"),
        (&head[..], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "\r\n"),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n", "\r\n"),
    ] {
        recorder.say(said);
        let answer = raw(stage.lb.http, asked).await;
        assert!(answer.ends_with(&format!("{ours}{body}")), "{said:?} came as {answer:?}");
        if asked == &head[..] {
            assert!(answer.contains("\r\nContent-Length: 2\r\n"), "{answer:?}");
        }
    }
    recorder.say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let answer = raw(stage.lb.http, GET).await;
    assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(raw(stage.lb.http, old).await.starts_with("HTTP/1.1 200 OK\r\n"), "HTTP/1.0 knows no 1xx");
}

#[tokio::test]
async fn what_is_no_answer_is_a_502_that_says_so() {
    let (stage, recorder) = Recorder::stage().await;
    for said in [
        "hello\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        &"HTTP/1.1 102 Processing\r\n\r\n".repeat(50),
        &format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(40_000)),
    ] {
        recorder.say(said);
        let answer = raw(stage.lb.http, GET).await;
        let answer = &answer[answer.find("HTTP/1.1 5").unwrap_or_default()..];
        assert!(
            answer.starts_with("HTTP/1.1 502 ") && answer.contains("instance-invalid"),
            "{said:?} came as {answer:?}"
        );
    }
    recorder.say("HTTP/1.1 200<close>");
    let answer = raw(stage.lb.http, GET).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("instance-broke-off"), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let (stage, recorder) = Recorder::stage().await;
    let large = "x".repeat(100_000);
    for (head, body) in [
        ("Content-Length: 200000", "%<close>"),
        ("Transfer-Encoding: chunked", "186a0\r\n%\r\n<close>"),
        ("Transfer-Encoding: chunked", "186a0\r\n%\r\nx\r\n"),
    ] {
        recorder.say(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{}", body.replace('%', &large)));
        let answer = raw(stage.lb.http, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.ends_with("0\r\n\r\n"), "{head:?}");
    }
    // As long as nothing of it is out, there is a better answer.
    recorder.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nx\r\n");
    let answer = raw(stage.lb.http, GET).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("instance-invalid"), "{answer:?}");
    // What follows an answer is not the answer to somebody else's request.
    recorder.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies");
    for _ in 0..5 {
        let answer = raw(stage.lb.http, GET).await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_has() {
    let limits = Limits { silence: Duration::from_millis(500), ..Limits::default() };
    let (stage, recorder) = Recorder::stage_as(Config { limits, ..config() }).await;
    recorder.say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
    // The app answers when it sees END, which is in the first piece.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\nEND";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    // A client that goes on sending gets to read all of it, and then the end.
    for _ in 0..50 {
        if stream.write_all(&[b'x'; 10_000]).await.is_err() {
            break;
        }
    }
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(String::from_utf8_lossy(&rest).contains("\r\n\r\nno"), "{}", String::from_utf8_lossy(&rest));

    recorder.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    recorder.take();
    assert!(raw(stage.lb.http, GET).await.ends_with("ok"));
}

#[tokio::test]
async fn the_app_learns_that_the_client_has_gone() {
    let (stage, recorder) = Recorder::stage().await;
    // It says nothing until it is asked to.
    recorder.say("");
    let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stage.controller.until_instance("recorder", "in flight", |report| report.in_flight == 1).await;
    drop(stream);
    stage.controller.until_instance("recorder", "left", |report| report.in_flight == 0).await;
    let key = appbase_core::SectionKey::try_from("production/hello".to_owned()).unwrap();
    let counted = |status: &appbase_core::v1::MemberStatus| {
        let counters = status.counters.get(&key).and_then(|releases| releases.get(&1));
        counters.is_some_and(|counters| (counters.requests, counters.failed) == (1, 0))
    };
    stage.controller.until("one request, and no failure of the app", counted).await;
}

#[tokio::test]
async fn an_upload_goes_on_after_an_early_answer() {
    let (stage, recorder) = Recorder::stage().await;
    recorder.say("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok");
    let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
    let size = 300_000;
    stream
        .write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\nEND", size + 3).as_bytes())
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 202");
    for _ in 0..size / 1000 {
        stream.write_all(&[b'x'; 1000]).await.unwrap();
    }
    let mut got = 0;
    eventually("all of it at the app", async || {
        got += recorder.take().matches('x').count();
        got >= size
    })
    .await;
    // And the connection after it: the recorder answers what it sees as the next request.
    recorder.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnext<close>");
    stream.write_all(GET).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("next"), "{rest}");
}
