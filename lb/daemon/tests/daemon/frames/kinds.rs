//! RFC 9113, section 6: the frames one by one.

use super::writer::{
    ACK, ALL, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, NONE, PADDED, PING, PRIORITISED,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, data, frame, get, number, post, settings,
};
use super::{Answer, Body, Case, FLOW_CONTROL, Gone, Held, Ignored, Last, PROTOCOL, Reset, row};

pub(super) fn rows() -> Vec<Case> {
    [datas(), headers(), small(), settings_(), windows(), continuations()].into_iter().flatten().collect()
}

/// A payload with its padding.
fn padded(padding: u8, payload: &[u8], there: usize) -> Vec<u8> {
    [&[padding][..], payload, &vec![0; there]].concat()
}

fn datas() -> Vec<Case> {
    let pad = |padding, there| frame(DATA, END_STREAM | PADDED, 1, &padded(padding, b"xyz", there));
    vec![
        row(
            "6.1",
            "DATA in pieces",
            [post(1, &[]), data(1, NONE, 5), data(1, NONE, 0), data(1, END_STREAM, 6)],
            Body(1, 11),
        ),
        row("6.1", "DATA with padding", [post(1, &[]), pad(7, 7)], Body(1, 3)),
        row("6.1", "DATA with a padding of nothing", [post(1, &[]), pad(0, 0)], Body(1, 3)),
        row(
            "6.1",
            "DATA of padding alone",
            [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &padded(9, b"", 9))],
            Body(1, 0),
        ),
        row("6.1", "DATA with more padding than there is", [post(1, &[]), pad(8, 4)], Gone(PROTOCOL)),
        row(
            "6.1",
            "DATA with as much padding as there is",
            [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &[4, 0, 0, 0])],
            Gone(PROTOCOL),
        ),
        row(
            "6.1",
            "DATA that says it is padded and is empty",
            [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &[])],
            Gone(PROTOCOL),
        ),
        row("6.1", "DATA on stream 0", [data(0, END_STREAM, 4)], Gone(PROTOCOL)),
    ]
}

fn headers() -> Vec<Case> {
    let whole = block(&GET);
    let pad = |padding: u8, there| frame(HEADERS, ALL | PADDED, 1, &padded(padding, &whole, there));
    let both = [&[3][..], &[0, 0, 0, 0, 15], &whole, &[0; 3]].concat();
    vec![
        row("6.2", "HEADERS with padding", [pad(200, 200)], Answer(1, 200)),
        row(
            "6.2",
            "HEADERS with padding and priority",
            [frame(HEADERS, ALL | PADDED | PRIORITISED, 1, &both)],
            Answer(1, 200),
        ),
        row(
            "6.2",
            "HEADERS with more padding than there is",
            [frame(HEADERS, ALL | PADDED, 1, &[&[255][..], &whole].concat())],
            Gone(PROTOCOL),
        ),
        row("6.2", "HEADERS that are padded and empty", [frame(HEADERS, ALL | PADDED, 1, &[])], Gone(PROTOCOL)),
        row(
            "6.2",
            "HEADERS with a priority that is cut",
            [frame(HEADERS, ALL | PRIORITISED, 1, &[0, 0, 0])],
            Gone(PROTOCOL),
        ),
        row("6.2", "HEADERS within a block", [frame(HEADERS, END_STREAM, 1, &whole), get(1)], Gone(PROTOCOL)),
    ]
}

fn small() -> Vec<Case> {
    let opened = || post(1, &[]);
    let promise = [&2u32.to_be_bytes()[..], &block(&GET)].concat();
    let goaway = |code: u32| frame(GOAWAY, NONE, 0, &[&0u32.to_be_bytes()[..], &code.to_be_bytes()].concat());
    vec![
        row("6.3", "PRIORITY on stream 0", [frame(PRIORITY, NONE, 0, &[0, 0, 0, 0, 15])], Gone(PROTOCOL)),
        // Sizes that are wrong: section 4.2 asks for FRAME_SIZE_ERROR, of PRIORITY on its stream alone. h2 says
        // PROTOCOL_ERROR of the connection. It ends at once either way, and the code is for people to read.
        row("6.3", "PRIORITY of 4 bytes", [opened(), frame(PRIORITY, NONE, 1, &[0; 4])], Gone(PROTOCOL)),
        row("6.3", "PRIORITY of 6 bytes", [opened(), frame(PRIORITY, NONE, 1, &[0; 6])], Gone(PROTOCOL)),
        row("6.4", "RST_STREAM on stream 0", [number(RST_STREAM, 0, 8)], Gone(PROTOCOL)),
        row("6.4", "RST_STREAM of 3 bytes", [opened(), frame(RST_STREAM, NONE, 1, &[0; 3])], Gone(PROTOCOL)),
        row("6.4", "RST_STREAM of 5 bytes", [opened(), frame(RST_STREAM, NONE, 1, &[0; 5])], Gone(PROTOCOL)),
        row("7", "RST_STREAM with an unknown code", [opened(), number(RST_STREAM, 1, 0xff)], Ignored),
        row(
            "6.6",
            "PUSH_PROMISE of a client",
            [opened(), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)],
            Gone(PROTOCOL),
        ),
        row("6.6", "PUSH_PROMISE on an idle stream", [frame(PUSH_PROMISE, END_HEADERS, 1, &promise)], Gone(PROTOCOL)),
        row("6.7", "PING", [frame(PING, NONE, 0, b"12345678")], Ignored),
        row("6.7", "PING that answers nothing", [frame(PING, ACK, 0, b"12345678")], Ignored),
        row("6.7", "PING on a stream", [opened(), frame(PING, NONE, 1, b"12345678")], Gone(PROTOCOL)),
        row("6.7", "PING of 6 bytes", [frame(PING, NONE, 0, b"123456")], Gone(PROTOCOL)),
        row("6.7", "PING of 9 bytes", [frame(PING, NONE, 0, b"123456789")], Gone(PROTOCOL)),
        row("6.8", "GOAWAY on a stream", [opened(), frame(GOAWAY, NONE, 1, &[0; 8])], Gone(PROTOCOL)),
        row("6.8", "GOAWAY of 7 bytes", [frame(GOAWAY, NONE, 0, &[0; 7])], Gone(PROTOCOL)),
        row("6.8", "a client that goes with a stream under way", [get(1), goaway(0)], Last(1, 200)),
        row("7", "a client that goes with an unknown code", [get(1), goaway(0xff)], Last(1, 200)),
    ]
}

fn settings_() -> Vec<Case> {
    let unpaired = |bytes: usize| frame(SETTINGS, NONE, 0, &vec![0; bytes]);
    vec![
        row("6.5", "SETTINGS ACK with a payload", [frame(SETTINGS, ACK, 0, &[0; 6])], Gone(PROTOCOL)),
        row("6.5", "SETTINGS on a stream", [frame(SETTINGS, NONE, 1, &[])], Gone(PROTOCOL)),
        row("6.5", "SETTINGS of 3 bytes", [unpaired(3)], Gone(PROTOCOL)),
        row("6.5", "SETTINGS of 7 bytes", [unpaired(7)], Gone(PROTOCOL)),
        row("6.5.2", "ENABLE_PUSH of 0", [settings(&[(2, 0)]), get(1)], Answer(1, 200)),
        row("6.5.2", "ENABLE_PUSH of 2", [settings(&[(2, 2)])], Gone(PROTOCOL)),
        // The clause names FLOW_CONTROL_ERROR for it; as with sizes, the connection ends at once.
        row("6.5.2", "INITIAL_WINDOW_SIZE beyond its largest", [settings(&[(4, 1 << 31)])], Gone(PROTOCOL)),
        row("6.5.2", "INITIAL_WINDOW_SIZE at its largest", [settings(&[(4, (1 << 31) - 1)]), get(1)], Answer(1, 200)),
        row("6.5.2", "MAX_FRAME_SIZE below its smallest", [settings(&[(5, 16_383)])], Gone(PROTOCOL)),
        row("6.5.2", "MAX_FRAME_SIZE beyond its largest", [settings(&[(5, 1 << 24)])], Gone(PROTOCOL)),
        row("6.5.2", "MAX_FRAME_SIZE at its largest", [settings(&[(5, (1 << 24) - 1)]), get(1)], Answer(1, 200)),
        row("6.5.2", "MAX_CONCURRENT_STREAMS of 0", [settings(&[(3, 0)]), get(1)], Answer(1, 200)),
        row("6.5.2", "HEADER_TABLE_SIZE of 0", [settings(&[(1, 0)]), get(1)], Answer(1, 200)),
        row("6.5.2", "HEADER_TABLE_SIZE at its largest", [settings(&[(1, u32::MAX)]), get(1)], Answer(1, 200)),
        row("6.5.2", "a setting that is unknown", [settings(&[(0xff, 1), (0, 7)]), get(1)], Answer(1, 200)),
        row("6.5.3", "one setting twice: the last one counts", [settings(&[(4, 100), (4, 1)]), get(1)], Held(1, 1)),
        // The clause says nothing of it.
        row("6.5.3", "an ACK for nothing", [frame(SETTINGS, ACK, 0, &[]), get(1)], Gone(PROTOCOL)),
    ]
}

fn windows() -> Vec<Case> {
    let more = |stream, bytes| number(WINDOW_UPDATE, stream, bytes);
    let most = (1 << 31) - 1;
    let small = || settings(&[(4, 1)]);
    vec![
        row("6.9", "WINDOW_UPDATE of nothing on the connection", [more(0, 0)], Gone(PROTOCOL)),
        // A stream error by the clause, which may be one of the connection (5.4.2).
        row("6.9", "WINDOW_UPDATE of nothing on a stream", [post(1, &[]), more(1, 0)], Gone(PROTOCOL)),
        row("6.9", "WINDOW_UPDATE of 3 bytes", [frame(WINDOW_UPDATE, NONE, 0, &[0; 3])], Gone(PROTOCOL)),
        row("6.9", "WINDOW_UPDATE of 5 bytes", [frame(WINDOW_UPDATE, NONE, 0, &[0; 5])], Gone(PROTOCOL)),
        row("6.9", "WINDOW_UPDATE with the reserved bit", [more(0, 1 << 31 | 1), get(1)], Answer(1, 200)),
        row("6.9.1", "a body waits for its window", [small(), get(1)], Held(1, 1)),
        row("6.9.1", "a window of nothing", [settings(&[(4, 0)]), get(1)], Held(1, 0)),
        row("6.9.1", "a window that opens", [small(), get(1), more(1, 1)], Held(1, 2)),
        row("6.9.1", "the connection's window past its largest", [more(0, most), more(0, most)], Gone(FLOW_CONTROL)),
        row(
            "6.9.1",
            "a stream's window past its largest",
            [post(1, &[]), more(1, most), more(1, most)],
            Reset(1, FLOW_CONTROL),
        ),
        row("6.9.2", "a window that grows by SETTINGS", [settings(&[(4, 0)]), get(1), small()], Held(1, 1)),
        row(
            "6.9.2",
            "a window below nothing stays shut",
            [settings(&[(4, 3)]), get(1), settings(&[(4, 0)]), more(1, 2)],
            Held(1, 2),
        ),
        row(
            "6.9.2",
            "SETTINGS that push a window past its largest",
            [post(1, &[]), more(1, most - 65_535), settings(&[(4, most)])],
            Gone(FLOW_CONTROL),
        ),
    ]
}

fn continuations() -> Vec<Case> {
    let (first, rest) = (block(&GET[..1]), block(&GET[1..]));
    let open = |flags| frame(HEADERS, flags, 1, &first);
    let more = |flags, bytes: &[u8]| frame(CONTINUATION, flags, 1, bytes);
    vec![
        row("6.10", "a block in two frames", [open(END_STREAM), more(END_HEADERS, &rest)], Answer(1, 200)),
        row(
            "6.10",
            "a block in four frames, cut anywhere",
            [open(END_STREAM), more(0, &rest[..3]), more(0, &rest[3..20]), more(END_HEADERS, &rest[20..])],
            Answer(1, 200),
        ),
        row(
            "6.10",
            "an empty CONTINUATION",
            [open(END_STREAM), more(0, &[]), more(END_HEADERS, &rest)],
            Answer(1, 200),
        ),
        row(
            "6.10",
            "a body after a block in two frames",
            [
                frame(HEADERS, NONE, 1, &block(&[(":method", "POST")])),
                more(END_HEADERS, &block(&[GET[1], (":path", "/echo"), GET[3]])),
                data(1, END_STREAM, 3),
            ],
            Body(1, 3),
        ),
        row(
            "6.10",
            "CONTINUATION on stream 0",
            [open(END_STREAM), frame(CONTINUATION, END_HEADERS, 0, &rest)],
            Gone(PROTOCOL),
        ),
        row("6.10", "CONTINUATION after the end of a block", [post(1, &[]), more(END_HEADERS, &rest)], Gone(PROTOCOL)),
        row(
            "6.10",
            "CONTINUATION after CONTINUATION that ended a block",
            [open(END_STREAM), more(END_HEADERS, &rest), more(END_HEADERS, &rest)],
            Gone(PROTOCOL),
        ),
        row(
            "6.10",
            "CONTINUATION after DATA",
            [post(1, &[]), data(1, NONE, 1), more(END_HEADERS, &rest)],
            Gone(PROTOCOL),
        ),
        row("6.10", "RST_STREAM within a block", [open(END_STREAM), number(RST_STREAM, 1, 8)], Gone(PROTOCOL)),
    ]
}
