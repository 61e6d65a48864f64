//! What is sent: requests whose lines, lengths or chunks somebody has been found to read in another way.

use crate::framing::{CODING, length, mutations};

pub(super) fn all() -> Vec<Vec<u8>> {
    [lines(), lengths(), codings(), chunks(), heads()].into_iter().flatten().collect()
}

fn post(framing: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /first HTTP/1.1\r\nHost: a\r\n", framing, b"\r\n", body].concat()
}

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// The first line, with an odd byte in each place.
fn lines() -> Vec<Vec<u8>> {
    let line = ["", "GET", " ", "/a", "?", "b", " ", "HTTP/", "1.1", "\r\n"];
    let with = |line: Vec<u8>| [&line[..], b"Host: a\r\nConnection: close\r\n\r\n"].concat();
    let host = ["", "Ho", "st", ":", " ", "a", ".b", "", ":80", "\r\n"];
    let hosted = |line: Vec<u8>| [b"GET /a HTTP/1.1\r\n", &line[..], b"Connection: close\r\n\r\n"].concat();
    mutations(&line).into_iter().map(with).chain(mutations(&host).into_iter().map(hosted)).collect()
}

fn lengths() -> Vec<Vec<u8>> {
    let body = SECOND.as_bytes();
    let odd = length(body.len()).into_iter().map(|line| post(&line, body));
    let said = [
        "+54",
        "-54",
        "0x36",
        "54.0",
        "5 4",
        "54,54",
        "54, 54",
        "054",
        "00000000000000000000054",
        "",
        "54\r\nContent-Length: 54",
        "54\r\nContent-Length: 0",
        "0\r\nContent-Length: 54",
        "18446744073709551670",
        "5_4",
    ];
    odd.chain(said.map(|said| post(format!("Content-Length: {said}\r\n").as_bytes(), body))).collect()
}

fn codings() -> Vec<Vec<u8>> {
    let body = [b"0\r\n\r\n", SECOND.as_bytes()].concat();
    let long = format!("Content-Length: {}\r\n", body.len()).into_bytes();
    let beside =
        mutations(&CODING).into_iter().flat_map(|line| [[&long[..], &line].concat(), [&line[..], &long].concat()]);
    let said = [
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "xchunked",
        "chunkedx",
        "chunked;a=b",
        "\"chunked\"",
        "CHUNKED",
        "chunked,",
        ",chunked",
        "identity",
        "",
        "chunked\r\nTransfer-Encoding: chunked",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: x",
        "\r\n chunked",
        "chunked\x0b",
    ];
    let said = said.iter().flat_map(|said| {
        let line = format!("Transfer-Encoding: {said}\r\n").into_bytes();
        [[&long[..], &line].concat(), line]
    });
    let alone = mutations(&CODING).into_iter();
    beside.chain(said).chain(alone).map(|lines| post(&lines, &body)).collect()
}

fn chunks() -> Vec<Vec<u8>> {
    let odd = mutations(&["", "3", ";", "a", "=", "b", "\r\n"])
        .into_iter()
        .map(|line| [&line[..], b"abc\r\n0\r\n\r\n"].concat());
    let ends = mutations(&["3\r\nabc", "\r\n", "0", "\r\n", "\r\n"]);
    let said = [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "00000000000000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
        "3\r\nabc\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
        "3\r\nabc\r\n0\r\nX\r\n\r\n",
        "3\r\nabc\r\n00\r\n\r\n",
        "3;a=\"\r\nabc\r\n0\r\n\r\n",
        "3;\nabc\r\n0\r\n\r\n",
        "3;\r\nabc\r\n0;\r\n\r\n",
    ];
    let all = odd.chain(ends).chain(said.iter().map(|said| said.as_bytes().to_vec()));
    all.map(|body| post(b"Transfer-Encoding: chunked\r\n", &[&body, SECOND.as_bytes()].concat())).collect()
}

fn heads() -> Vec<Vec<u8>> {
    let get = |rest: &str| format!("GET /first HTTP/1.1\r\n{rest}\r\n{SECOND}").into_bytes();
    let said = [
        "Host: a\r\n",
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a@b\r\n",
        "Host: a,b\r\n",
        "Host:\r\n",
        "Host: a\r\n folded\r\n",
        " X: y\r\nHost: a\r\n",
        "Host: a\r\nX: y\r\n folded\r\n",
        "Host: a\r\nX : y\r\n",
        "Host: a\r\nX\r\n",
        "Host: a\nX: y\r\n",
        "Host: a\r\n\nX: y\r\n",
        "Host: a\r\nX: a\0b\r\n",
        "Host: a\r\nX: a\rb\r\n",
        "Host: a\r\nContent-Length: 0\r\n",
        "Host: a\r\nContent-Length: 54\r\n",
        "Host: a\r\nConnection: host\r\n",
        "Host: a\r\nConnection: content-length\r\nContent-Length: 54\r\n",
        "Host: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n",
        "Host: a\r\nExpect: 100-continue\r\nContent-Length: 54\r\n",
        "Host: a\r\n\x7f: x\r\n",
        "Host: a\r\nContent-Length: 54\r\nTransfer-Encoding: identity\r\n",
    ];
    let lines = [
        "GET  /first HTTP/1.1",
        "GET /first  HTTP/1.1",
        "GET /first HTTP/1.1 ",
        "GET /first",
        "GET /a b HTTP/1.1",
        "GET /first HTTP/1.2",
        "GET /first HTTP/2.0",
        "GET /first HTTP/01.1",
        "GET /first http/1.1",
        "get /first HTTP/1.1",
        "GET first HTTP/1.1",
        "GET * HTTP/1.1",
        "GET http://a/first HTTP/1.1",
        "GET http://b/first HTTP/1.1",
        "GET https://a/first HTTP/1.1",
        "GET //a/first HTTP/1.1",
        "GET /a/../b HTTP/1.1",
        "GET /a/%2e%2e/b HTTP/1.1",
        "GET /a%2fb HTTP/1.1",
        "GET /a\\b HTTP/1.1",
        "GET /a%00b HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /a?b#c HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "TRACE / HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /first HTTP/0.9",
        "GET /first HTTP/1.10",
    ];
    let old = ["", "Content-Length: 54\r\n", "Transfer-Encoding: chunked\r\n", "Connection: keep-alive\r\n"];
    let lines = lines.iter().map(|line| format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes());
    let old = old.iter().map(|more| format!("POST /first HTTP/1.0\r\nHost: a\r\n{more}\r\n{SECOND}").into_bytes());
    let blank = ["\r\n", "\n", "\r\n\r\n", "\r", " "].map(|blank| format!("{blank}{SECOND}").into_bytes());
    said.iter().map(|rest| get(rest)).chain(lines).chain(old).chain(blank).collect()
}
