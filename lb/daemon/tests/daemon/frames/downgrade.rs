//! From HTTP/2 to an app that speaks HTTP/1.1: what its bytes are, for fields that would mean something else there.

use tokio::net::TcpStream;

use super::Talk;
use super::writer::{ALL, END_HEADERS, END_STREAM, GET, HEADERS, NONE, POST, block, data, frame, opening};
use crate::recorder::{END, Recorder};
use crate::requests::got;
use crate::stage::{Stage, eventually};

type Fields<'a> = Vec<(&'a str, &'a str)>;

fn get_with<'a>(more: &[(&'a str, &'a str)]) -> Fields<'a> {
    [&GET, more].concat()
}

/// `GET` with one of its own fields said otherwise.
fn get_as<'a>(name: &'a str, value: &'a str) -> Fields<'a> {
    GET.iter().map(|field| if field.0 == name { (name, value) } else { *field }).collect()
}

/// Sends it on a connection of its own. None: the stream or the connection was ended.
async fn ask(stage: &Stage, frames: Vec<u8>) -> Option<u16> {
    let mut talk = Talk::new(TcpStream::connect(stage.lb.http).await.unwrap());
    talk.send(&[opening(), frames].concat()).await;
    talk.until(|seen| seen.ended.contains(&1) || !seen.resets.is_empty() || seen.goaway.is_some()).await;
    assert!(!talk.seen.statuses.is_empty() || !talk.seen.resets.is_empty() || talk.seen.goaway.is_some());
    talk.seen.statuses.get(&1).copied().filter(|_| talk.seen.resets.is_empty() && talk.seen.goaway.is_none())
}

#[tokio::test]
async fn what_would_be_two_requests_in_http_1_reaches_no_app() {
    let (stage, recorder) = Recorder::stage().await;
    let second = "1\r\n\r\nGET /END HTTP/1.1\r\nHost: a\r\n\r\n";
    let line = "/ HTTP/1.1\r\nHost: a\r\nX: y";
    for fields in [
        get_with(&[("transfer-encoding", "chunked")]),
        get_with(&[("connection", "close")]),
        get_with(&[("upgrade", "h2c")]),
        get_with(&[("x-a", second)]),
        get_with(&[("x-a", "1\n\nGET /END HTTP/1.1")]),
        get_with(&[("x-a", "1\r")]),
        get_with(&[("x-a", "\0")]),
        get_with(&[("x-a: 1\r\ntransfer-encoding", "chunked")]),
        get_with(&[("x-a:", "1")]),
        get_with(&[("x-a ", "1")]),
        get_with(&[("", "1")]),
        get_with(&[("transfer-encoding ", "chunked")]),
        get_with(&[("\ttransfer-encoding", "chunked")]),
        get_with(&[("content-length", "5, 5")]),
        get_with(&[("content-length", "0"), ("content-length", "0")]),
        get_with(&[("content-length", "+0")]),
        get_with(&[("host", "b")]),
        get_with(&[("host", "one.example"), ("host", "b")]),
        get_as(":path", line),
        get_as(":path", "/a b"),
        get_as(":path", "/a\tb"),
        get_as(":path", ""),
        get_as(":path", "http://b/"),
        get_as(":path", "/a%2fb"),
        get_as(":path", "/a/../b"),
        get_as(":method", "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"),
        get_as(":method", "G T"),
        get_as(":method", ""),
        get_as(":authority", "a\r\nX: y"),
        get_as(":authority", "a b"),
        get_as(":authority", "a/b"),
        get_as(":authority", "me@a"),
        get_as(":authority", "a:80:80"),
        get_as(":scheme", "http://b/?"),
        get_as(":scheme", "ht\r\ntp"),
        vec![(":method", "CONNECT"), (":authority", "one.example:443")],
    ] {
        let status = ask(&stage, frame(HEADERS, ALL, 1, &block(&fields))).await;
        assert!(status.is_none_or(|status| [400, 405].contains(&status)), "{fields:?}: {status:?}");
        assert_eq!(recorder.take(), "", "{fields:?}");
    }
}

#[tokio::test]
async fn an_app_gets_one_request_with_one_length() {
    let (stage, recorder) = Recorder::stage().await;
    let line = "GET / HTTP/1.1\r\nHost: one.example\r\n";
    for (more, expect) in [
        (vec![("te", "trailers")], ""),
        (vec![("cookie", "a=1"), ("x-b", "2"), ("cookie", "c=3")], "x-b: 2\r\ncookie: a=1; c=3\r\n"),
        (vec![("host", "one.example")], ""),
        (vec![("content_length", "9"), ("transfer_encoding", "chunked")], ""),
        (vec![("http2-settings", "A"), ("trailer", "x-a")], ""),
        (vec![("x-v", " a ")], "x-v: a\r\n"),
        (vec![("x-v", "")], "x-v: \r\n"),
        (vec![("x-forwarded-for", "9.9.9.9"), ("forwarded", "for=9.9.9.9")], ""),
    ] {
        assert_eq!(ask(&stage, frame(HEADERS, ALL, 1, &block(&get_with(&more)))).await, Some(200), "{more:?}");
        assert_eq!(got(&recorder), format!("{line}{expect}\r\n"), "{more:?}");
    }
}

#[tokio::test]
async fn a_body_is_what_its_frames_say_and_no_more() {
    let (stage, recorder) = Recorder::stage().await;
    let head = |more: &[(&str, &str)]| frame(HEADERS, END_HEADERS, 1, &block(&[&POST, more].concat()));
    let body = |flags, text: &str| frame(super::writer::DATA, flags, 1, text.as_bytes());
    let trailers = |fields: &[(&str, &str)]| frame(HEADERS, ALL, 1, &block(fields));
    let (line, chunked) = ("POST /echo HTTP/1.1\r\nHost: one.example\r\n", "Transfer-Encoding: chunked\r\n\r\n");
    let hidden = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\nEND";
    for (name, frames, expect) in [
        (
            "a length",
            vec![head(&[("content-length", "3")]), body(END_STREAM, END)],
            "content-length: 3\r\n\r\nEND".to_owned(),
        ),
        ("no length", vec![head(&[]), body(END_STREAM, END)], format!("{chunked}3\r\nEND\r\n0\r\n\r\n")),
        (
            "what looks like its end",
            vec![head(&[]), body(END_STREAM, hidden)],
            format!("{chunked}{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
        ),
        (
            "trailers that frame",
            vec![head(&[]), body(NONE, END), trailers(&[("content-length", "3"), ("x-t", "1"), ("host", "b")])],
            format!("{chunked}3\r\nEND\r\n0\r\n\r\n"),
        ),
    ] {
        let _ = ask(&stage, frames.concat()).await;
        let (mut all, expect) = (got(&recorder), format!("{line}{expect}"));
        eventually(name, async || {
            all += &got(&recorder);
            all.len() >= expect.len()
        })
        .await;
        assert_eq!(all.to_lowercase(), expect.to_lowercase(), "{name}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_said_is_no_whole_request_at_the_app() {
    let (stage, recorder) = Recorder::stage().await;
    let head = |length| frame(HEADERS, END_HEADERS, 1, &block(&[&POST[..], &[("content-length", length)]].concat()));
    for (name, frames) in [
        ("shorter", [head("40"), data(1, END_STREAM, 10)].concat()),
        ("longer", [head("4"), data(1, END_STREAM, 10)].concat()),
        ("longer in pieces", [head("14"), data(1, NONE, 10), data(1, END_STREAM, 10)].concat()),
    ] {
        assert_eq!(ask(&stage, frames).await, None, "{name}");
        stage.controller.until_instance("recorder", "left", |report| report.in_flight == 0).await;
        let reached = got(&recorder);
        let (head, body) = reached.split_once("\r\n\r\n").unwrap_or_default();
        let says: Option<usize> =
            head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        assert!(says.is_none_or(|says| body.len() < says), "{name}: {reached:?}");
    }
}
