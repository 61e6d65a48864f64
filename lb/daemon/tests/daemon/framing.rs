//! The lines that frame a message, each with an odd byte in each of its places, from clients and from apps.

use std::time::Duration;

use crate::client::raw;
use crate::recorder::{END, Recorder};
use crate::stage::Stage;

/// What programs have been found to skip, to end a line at, or to take for a blank.
const ODD: [u8; 19] = [0, 1, 4, 8, 9, 10, 11, 12, 13, 31, 32, 0x7f, 0xa0, 0xff, b'"', b'\'', b',', b';', b'_'];

/// The line with an odd byte behind each of its parts.
pub(crate) fn mutations(parts: &[&str]) -> Vec<Vec<u8>> {
    let with = |odd: u8, place: usize| {
        let upto = |count: usize| parts[..count].concat().into_bytes();
        [upto(place + 1), vec![odd], parts[place + 1..].concat().into_bytes()].concat()
    };
    ODD.iter().flat_map(|odd| (0..parts.len()).map(|place| with(*odd, place))).collect()
}

pub(crate) const CODING: [&str; 10] = ["", "Transfer", "-", "Encoding", ":", " ", "chu", "nked", "", "\r\n"];

pub(crate) fn length(bytes: usize) -> Vec<Vec<u8>> {
    let (first, rest) = (bytes / 10, bytes % 10);
    mutations(&["", "Content", "-", "Length", ":", " ", &first.to_string(), &rest.to_string(), "", "\r\n"])
}

/// Sends the bytes and reads until lb ends the connection, which it must.
async fn ask(stage: &Stage, bytes: &[u8]) -> String {
    let asked = tokio::time::timeout(Duration::from_secs(20), raw(stage.lb.http, bytes)).await;
    asked.unwrap_or_else(|_| panic!("no end after {:?}", String::from_utf8_lossy(bytes)))
}

/// How often a line of this name stands in a head, whatever is around its name.
fn lines(head: &str, name: &str) -> usize {
    let is_named = |line: &&str| {
        let (own, _) = line.split_once(':').unwrap_or_default();
        own.trim().replace('_', "-").eq_ignore_ascii_case(name)
    };
    head.split("\r\n").filter(is_named).count()
}

/// Each as the only line that frames a request. Who sees it reads one request with a body, who does not reads two.
async fn requests(framing: Vec<Vec<u8>>, body: &str) {
    let (stage, recorder) = Recorder::stage().await;
    for line in framing {
        let head =
            [b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", &line[..], b"\r\n", body.as_bytes()].concat();
        let answer = ask(&stage, &head).await;
        let reached = recorder.take();
        let line = String::from_utf8_lossy(&line).into_owned();
        if answer.starts_with("HTTP/1.1 200 ") {
            let (head, rest) = reached.split_once("\r\n\r\n").unwrap_or_default();
            let (lengths, codings) = (lines(head, "content-length"), lines(head, "transfer-encoding"));
            assert!(lengths + codings <= 1, "{line:?}: {reached:?}");
            assert!(lengths + codings == 1 || rest.is_empty(), "{line:?}: a body without a length: {reached:?}");
            assert_eq!(reached.matches(" HTTP/1.1\r\nHost").count(), 1, "{line:?}: {reached:?}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 "), "{line:?}: {answer:?}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{line:?}: {answer:?}");
            assert!(!reached.contains(END), "{line:?}: {reached:?}");
        }
    }
}

#[tokio::test]
async fn odd_bytes_in_a_coding_alone_never_make_two_requests() {
    requests(mutations(&CODING), "3\r\nEND\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn odd_bytes_in_a_length_alone_never_make_two_requests() {
    // It ends like a head, so that one whose own end was bent away ends here.
    requests(length(17), "0123456789END\r\n\r\n").await;
}

/// Each beside the other line, in an answer. Who reads one of them sees an answer of nothing and then another answer, who
/// reads the other one sees one answer.
async fn answers(framing: Vec<Vec<u8>>, other: &str, body: &str) {
    let (stage, recorder) = Recorder::stage().await;
    for line in framing {
        let said = [b"HTTP/1.1 200 OK\r\n", &line[..], other.as_bytes(), b"\r\n", body.as_bytes()].concat();
        recorder.say_bytes(&said);
        let answer = ask(&stage, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let line = String::from_utf8_lossy(&line).into_owned();
        let (head, came) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert_eq!(lines(head, "content-length") + lines(head, "transfer-encoding"), 1, "{line:?}: {answer:?}");
        if head.starts_with("HTTP/1.1 502 ") {
            assert!(head.contains("X-Platform-Error: instance-invalid"), "{line:?}: {answer:?}");
        } else {
            assert!(head.starts_with("HTTP/1.1 200 "), "{line:?}: {answer:?}");
            let is_whole = if lines(head, "content-length") == 1 { came == body } else { came == "0\r\n\r\n" };
            assert!(is_whole, "{line:?}: {answer:?}");
        }
        // Nobody else gets what the app said after it.
        recorder.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
        let next = ask(&stage, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(next.ends_with("\r\n\r\nnext"), "{line:?}: {next:?}");
    }
}

#[tokio::test]
async fn odd_bytes_in_an_apps_coding_never_make_two_answers() {
    let body = "0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies";
    answers(mutations(&CODING), &format!("Content-Length: {}\r\n", body.len()), body).await;
}

#[tokio::test]
async fn odd_bytes_in_an_apps_length_never_make_two_answers() {
    let body = "0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies";
    answers(length(body.len()), "Transfer-Encoding: chunked\r\n", body).await;
}

#[tokio::test]
async fn trailers_never_say_how_long_a_body_is() {
    let (stage, recorder) = Recorder::stage().await;
    for (trailer, is_taken) in [
        ("X-Sum: 1", true),
        ("Transfer_Encoding: chunked", true),
        ("Transfer-Encoding: chunked", false),
        ("transfer-encoding: identity", false),
        ("Transfer-Encoding : chunked", false),
        (" Transfer-Encoding: chunked", false),
        ("Transfer-Encoding\t: chunked", false),
        ("X: y\r\n folded", false),
        ("Content-Length: 5", false),
        ("Host: b", false),
        ("GET /END HTTP/1.1", false),
        ("X: a\0b", false),
        ("X: a\rb", false),
        ("X: a\nb", false),
        (": x", false),
    ] {
        let bytes = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nEND\r\n0\r\n{trailer}\r\n\r\n"
        );
        let answer = ask(&stage, bytes.as_bytes()).await;
        let reached = recorder.take();
        // The head itself says what some of these do.
        let body = reached.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        // The app answers before the trailers; what it got of the request is all there is, or not whole.
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), answer.ends_with("ok"), "{trailer:?}: {answer:?}");
        if !is_taken {
            assert!(!reached.ends_with("0\r\n\r\n"), "{trailer:?}: {reached:?}");
        }
        let name = trailer.split(':').next().unwrap_or_default();
        assert!(
            !body.contains(&format!("\r\n{trailer}")) && !body.contains(&format!("0\r\n{name}")),
            "{trailer:?}: {reached:?}"
        );
    }
}
