//! RFC 9113, section 8: what a request is. What is none reaches no app.

use super::writer::{ALL, END_HEADERS, END_STREAM, GET, HEADERS, NONE, POST, block, data, frame, get, get_with, post};
use super::{Answer, Body, Case, Expect, Gone, PROTOCOL, Reset, row};

pub(super) fn rows() -> Vec<Case> {
    [exchanges(), fields(), connection(), pseudo(), missing(), lengths()].into_iter().flatten().collect()
}

/// A request of this block.
fn asks(clause: &'static str, name: &'static str, block: Vec<u8>, expect: Expect) -> Case {
    row(clause, name, [frame(HEADERS, ALL, 1, &block)], expect)
}

/// `GET` with one line more.
fn with(clause: &'static str, name: &'static str, field: (&str, &str), expect: Expect) -> Case {
    asks(clause, name, get_with(&[field]), expect)
}

fn exchanges() -> Vec<Case> {
    let head = [(":method", "HEAD"), GET[1], GET[2], GET[3]];
    let options = [(":method", "OPTIONS"), GET[1], (":path", "*"), GET[3]];
    let trailer = |flags| frame(HEADERS, flags, 1, &block(&[("x-trailer", "1")]));
    vec![
        row("8.1", "GET", [get(1)], Body(1, 3)),
        asks("8.1", "HEAD", block(&head), Body(1, 0)),
        asks("8.1", "OPTIONS *", block(&options), Answer(1, 200)),
        row("8.1", "POST", [post(1, &[]), data(1, END_STREAM, 9)], Body(1, 9)),
        row("8.1", "POST with trailers", [post(1, &[]), data(1, NONE, 9), trailer(ALL)], Body(1, 9)),
        row(
            "8.1",
            "a second head that ends no stream",
            [post(1, &[]), data(1, NONE, 9), trailer(END_HEADERS)],
            Reset(1, PROTOCOL),
        ),
        // A stream error by section 5.1; h2 ends the connection, as with all that comes on a half-closed stream.
        row(
            "8.1",
            "DATA after trailers",
            [post(1, &[("x-slow", "1")]), trailer(ALL), data(1, END_STREAM, 9)],
            Gone(PROTOCOL),
        ),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        with("8.2.1", "a name in upper case", ("X-Upper", "1"), Gone(PROTOCOL)),
        with("8.2.1", "a name with one letter in upper case", ("x-uppEr", "1"), Gone(PROTOCOL)),
        with("8.2.1", "an empty name", ("", "1"), Gone(PROTOCOL)),
        with("8.2.1", "a name with a blank", ("x y", "1"), Gone(PROTOCOL)),
        with("8.2.1", "a name with a colon", ("x:y", "1"), Gone(PROTOCOL)),
        with("8.2.1", "a name with a line end", ("x\r\ny", "1"), Gone(PROTOCOL)),
        with("8.2.1", "a name beyond ASCII", ("x\u{e9}", "1"), Gone(PROTOCOL)),
        with("8.2.1", "a value with CR", ("x-v", "a\rb"), Gone(PROTOCOL)),
        with("8.2.1", "a value with LF", ("x-v", "a\nb"), Gone(PROTOCOL)),
        with("8.2.1", "a value with NUL", ("x-v", "a\0b"), Gone(PROTOCOL)),
        // The clause has a value without blanks at its ends. They end here: the app gets none of them.
        with("8.2.1", "a value with blanks around it", ("x-v", " a\t"), Answer(1, 200)),
        with("8.2.1", "an empty value", ("x-v", ""), Answer(1, 200)),
        with("8.2.1", "a value beyond ASCII", ("x-v", "\u{e9}"), Answer(1, 200)),
        with("8.2.3", "cookies in pieces", ("cookie", "a=1"), Answer(1, 200)),
    ]
}

fn connection() -> Vec<Case> {
    vec![
        with("8.2.2", "Connection", ("connection", "keep-alive"), Reset(1, PROTOCOL)),
        with("8.2.2", "Keep-Alive", ("keep-alive", "timeout=5"), Reset(1, PROTOCOL)),
        with("8.2.2", "Proxy-Connection", ("proxy-connection", "keep-alive"), Reset(1, PROTOCOL)),
        with("8.2.2", "Transfer-Encoding", ("transfer-encoding", "chunked"), Reset(1, PROTOCOL)),
        with("8.2.2", "Upgrade", ("upgrade", "websocket"), Reset(1, PROTOCOL)),
        with("8.2.2", "TE of gzip", ("te", "trailers, gzip"), Reset(1, PROTOCOL)),
        with("8.2.2", "TE of trailers", ("te", "trailers"), Answer(1, 200)),
    ]
}

fn pseudo() -> Vec<Case> {
    let put = |at: usize, field| {
        let mut fields = GET.to_vec();
        fields.insert(at, field);
        block(&fields)
    };
    let trailer = |field| frame(HEADERS, ALL, 1, &block(&[field]));
    let broken = Reset(1, PROTOCOL);
    vec![
        // h2 reads a name it does not know as one that is none, and ends the connection: a sender that is so wrong is not
        // read any further, which the clause (5.4.2) leaves to it.
        asks("8.3", "an unknown one", put(4, (":x", "1")), Gone(PROTOCOL)),
        asks("8.3", "one of an answer", put(4, (":status", "200")), broken),
        asks("8.3", "one after a field", block(&[GET[0], GET[1], GET[2], ("x-v", "1"), GET[3]]), broken),
        asks("8.3", "a method after a field", block(&[GET[1], GET[2], GET[3], ("x-v", "1"), GET[0]]), broken),
        // The clause calls it malformed. h2 drops what is not a field, so that nobody gets it: neither lb nor an app.
        row("8.3", "a path among trailers", [post(1, &[]), trailer((":path", "/"))], Answer(1, 200)),
        row("8.3", "a method among trailers", [post(1, &[]), trailer((":method", "GET"))], Answer(1, 200)),
        asks("8.3.1", "two methods", put(0, (":method", "GET")), broken),
        asks("8.3.1", "two schemes", put(0, (":scheme", "http")), broken),
        asks("8.3.1", "two paths", put(0, (":path", "/")), broken),
        asks("8.3.1", "two authorities", put(0, (":authority", "one.example")), broken),
        asks("8.5", "a protocol without CONNECT", put(4, (":protocol", "websocket")), broken),
    ]
}

fn missing() -> Vec<Case> {
    let of = |path, authority| block(&[GET[0], GET[1], (":path", path), (":authority", authority)]);
    let host = |host| block(&[GET[0], GET[1], GET[2], ("host", host)]);
    let broken = Reset(1, PROTOCOL);
    vec![
        asks("8.3.1", "no method", block(&GET[1..]), broken),
        asks("8.3.1", "no scheme", block(&[GET[0], GET[2], GET[3]]), broken),
        asks("8.3.1", "no path", block(&[GET[0], GET[1], GET[3]]), broken),
        asks("8.3.1", "an empty path", of("", "one.example"), broken),
        asks("8.3.1", "a path with a blank", of("/a b", "one.example"), broken),
        asks("8.3.1", "a path with a line end", of("/a\r\nb", "one.example"), broken),
        asks("8.3.1", "a path that is none", of("a", "one.example"), broken),
        asks("8.3.1", "* of GET", of("*", "one.example"), Answer(1, 400)),
        // The clause knows no fragment in a path. It is dropped while the path is read: lb and the app go by what is
        // before it.
        asks("8.3.1", "a fragment", of("/a#b", "one.example"), Answer(1, 200)),
        asks("8.3.1", "an authority with user information", of("/", "me@one.example"), Answer(1, 400)),
        asks("8.3.1", "an authority with a blank", of("/", "one. example"), broken),
        asks("8.3.1", "an empty authority", of("/", ""), broken),
        asks("8.3.1", "an authority with a path", of("/", "one.example/x"), broken),
        asks("8.3.1", "no authority and no host", block(&GET[..3]), Answer(1, 400)),
        asks("8.3.1", "a host instead of an authority", host("one.example"), Answer(1, 200)),
        asks("8.3.1", "an authority and another host", get_with(&[("host", "two.example")]), Answer(1, 400)),
        asks("8.3.1", "an authority and the same host", get_with(&[("host", "one.example")]), Answer(1, 200)),
        asks(
            "8.3.1",
            "a method that is no token",
            block(&[(":method", "G(T"), GET[1], GET[2], GET[3]]),
            Gone(PROTOCOL),
        ),
        asks("8.3.1", "a scheme that is none", block(&[GET[0], (":scheme", "h t"), GET[2], GET[3]]), broken),
        asks("8.5", "CONNECT", block(&[(":method", "CONNECT"), (":authority", "one.example:443")]), Answer(1, 405)),
        asks("8.5", "CONNECT with a path", block(&[(":method", "CONNECT"), GET[1], GET[2], GET[3]]), broken),
        asks(
            "8.5",
            "CONNECT of a protocol that was not offered",
            block(&[(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]]),
            broken,
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let says = |length| post(1, &[("content-length", length)]);
    let twice = |one, other| post(1, &[("content-length", one), ("content-length", other)]);
    let broken = Reset(1, PROTOCOL);
    let end = || data(1, END_STREAM, 4);
    vec![
        row("8.1.1", "a length that is right", [says("4"), end()], Body(1, 4)),
        row("8.1.1", "a length that is larger", [says("5"), end()], broken),
        row("8.1.1", "a length that is smaller", [says("3"), end()], broken),
        row("8.1.1", "a length that is larger than several DATA", [says("9"), data(1, NONE, 4), end()], broken),
        row("8.1.1", "a length that is smaller than several DATA", [says("7"), data(1, NONE, 4), end()], broken),
        row(
            "8.1.1",
            "a length and no body",
            [frame(HEADERS, ALL, 1, &block(&[&POST[..], &[("content-length", "4")]].concat()))],
            broken,
        ),
        row(
            "8.1.1",
            "a length and trailers too early",
            [says("4"), frame(HEADERS, ALL, 1, &block(&[("x-t", "1")]))],
            broken,
        ),
        row("8.1.1", "a length that is none", [says("4x"), end()], broken),
        row("8.1.1", "a length with a sign", [says("+4"), end()], broken),
        row("8.1.1", "an empty length", [says(""), end()], broken),
        row("8.1.1", "two lengths", [twice("4", "5"), end()], broken),
        // h2 takes the first of them; lb refuses both, as in HTTP/1.1.
        row("8.1.1", "one length twice", [twice("4", "4"), end()], Answer(1, 400)),
        row("8.1.1", "a length of 19 digits", [says("9999999999999999999"), end()], broken),
    ]
}
