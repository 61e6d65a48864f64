//! RFC 9113, sections 3.4, 4 and 5.5: how a connection begins, and what all frames have in common.

use super::writer::{
    CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, NONE, PING, PREFACE, PRIORITY, SETTINGS, block, data, frame,
    get, opening, post, settings,
};
use super::{Answer, Body, Case, Closed, FRAME_SIZE, Gone, Ignored, PROTOCOL, bare, row};

/// The largest frame while nobody agreed to larger ones.
const FRAME_MAX: usize = 16 << 10;

pub(super) fn rows() -> Vec<Case> {
    [preface(), frames(), sizes(), compression()].into_iter().flatten().collect()
}

fn preface() -> Vec<Case> {
    let begins = |rest: Vec<u8>| [PREFACE.to_vec(), rest, get(1)];
    vec![
        bare("3.4", "the preface, SETTINGS, a request", [opening(), get(1)], Answer(1, 200)),
        bare("3.4", "SETTINGS with values", begins(settings(&[(3, 100), (4, 65_535)])), Answer(1, 200)),
        // The clause has an endpoint send SETTINGS first, as a connection error. lb leaves this one without a word of why:
        // what comes is no HTTP/2.
        bare(
            "3.4",
            "a preface that breaks off into something else",
            [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()],
            Closed,
        ),
        // This looks like HTTP/1, and is refused as that (tests of requests).
        bare("3.4", "HTTP/2.1", [b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n".to_vec()], Closed),
        bare("3.4", "PRI with a field", [b"PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n".to_vec()], Closed),
        // The clause has a client begin with SETTINGS. h2 takes whatever frame comes and goes by the defaults until they
        // come, which is what an empty SETTINGS would mean.
        bare("3.4", "HEADERS instead of SETTINGS", [PREFACE.to_vec(), get(1)], Answer(1, 200)),
        bare("3.4", "PING instead of SETTINGS", [PREFACE.to_vec(), frame(PING, NONE, 0, b"12345678")], Ignored),
        bare(
            "3.4",
            "an unknown frame before SETTINGS",
            [PREFACE.to_vec(), frame(0x20, NONE, 0, b"x"), settings(&[]), get(1)],
            Answer(1, 200),
        ),
    ]
}

fn frames() -> Vec<Case> {
    let head = |flags| frame(HEADERS, flags, 1, &block(&GET));
    let half = || frame(HEADERS, END_STREAM, 1, &block(&GET[..2]));
    let rest = || frame(CONTINUATION, END_HEADERS, 1, &block(&GET[2..]));
    vec![
        row("4.1", "a frame of an unknown type", [frame(0x16, NONE, 0, b"12345678"), get(1)], Answer(1, 200)),
        row("5.5", "an unknown frame on a stream that is idle", [frame(0xff, 0xff, 9, b"x"), get(11)], Answer(11, 200)),
        row(
            "5.5",
            "an unknown frame within a stream",
            [post(1, &[]), frame(0x20, 5, 1, b"x"), data(1, END_STREAM, 3)],
            Body(1, 3),
        ),
        row(
            "5.5",
            "unknown frames, a thousand of them",
            [frame(0x20, NONE, 0, b"x").repeat(1000), get(1)],
            Answer(1, 200),
        ),
        row("5.5", "an unknown frame within a block", [half(), frame(0x20, NONE, 1, b"x"), rest()], Gone(PROTOCOL)),
        row("4.1", "a PING with flags that mean nothing", [frame(PING, 0xfe, 0, b"12345678")], Ignored),
        row("4.1", "HEADERS with flags that mean nothing", [head(END_STREAM | END_HEADERS | 0x52)], Answer(1, 200)),
        row(
            "4.1",
            "the reserved bit of a stream's number",
            [frame(HEADERS, 5, 1 | 1 << 31, &block(&GET))],
            Answer(1, 200),
        ),
        row("4.1", "the reserved bit of the connection", [frame(PING, NONE, 1 << 31, b"12345678")], Ignored),
    ]
}

fn sizes() -> Vec<Case> {
    let long = [(":path", "/"), ("x-long", &*"y".repeat(FRAME_MAX))];
    vec![
        row("4.2", "DATA of 16 KiB", [post(1, &[]), data(1, END_STREAM, FRAME_MAX)], Body(1, FRAME_MAX)),
        row(
            "4.2",
            "DATA larger than a frame may be",
            [post(1, &[]), data(1, END_STREAM, FRAME_MAX + 1)],
            Gone(FRAME_SIZE),
        ),
        row("4.2", "HEADERS larger than a frame may be", [frame(HEADERS, 5, 1, &block(&long))], Gone(FRAME_SIZE)),
        row("4.2", "SETTINGS larger than a frame may be", [settings(&[(0xf0, 1); 2800])], Gone(FRAME_SIZE)),
        row(
            "4.2",
            "an unknown frame larger than a frame may be",
            [frame(0x20, NONE, 0, &vec![0; FRAME_MAX + 1])],
            Gone(FRAME_SIZE),
        ),
        row("4.2", "a frame that says it has 16 MiB", [vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]], Gone(FRAME_SIZE)),
        row("4.2", "SETTINGS of 16 KiB", [settings(&[(0xf0, 1); 2730]), get(1)], Answer(1, 200)),
    ]
}

fn compression() -> Vec<Case> {
    let open = || frame(HEADERS, END_STREAM, 1, &block(&GET[..2]));
    vec![
        // RFC 9113 asks for COMPRESSION_ERROR. The connection ends all the same, and the code is for people to read.
        row("4.3", "a block that cannot be read", [frame(HEADERS, 5, 1, &[0x40])], Gone(PROTOCOL)),
        row("4.3", "PRIORITY within a block", [open(), frame(PRIORITY, NONE, 1, &[0; 5])], Gone(PROTOCOL)),
        row("4.3", "SETTINGS within a block", [open(), frame(SETTINGS, NONE, 0, &[])], Gone(PROTOCOL)),
        row("4.3", "PING within a block", [open(), frame(PING, NONE, 0, b"12345678")], Gone(PROTOCOL)),
        row("4.3", "DATA within a block", [open(), data(1, END_STREAM, 1)], Gone(PROTOCOL)),
        row("4.3", "HEADERS of another stream within a block", [open(), get(3)], Gone(PROTOCOL)),
        row(
            "4.3",
            "CONTINUATION of another stream within a block",
            [open(), frame(CONTINUATION, END_HEADERS, 3, &block(&GET[2..]))],
            Gone(PROTOCOL),
        ),
    ]
}
