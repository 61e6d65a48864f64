//! RFC 9113, section 5: what may come on a stream, and when.

use super::writer::{
    ALL, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, NONE, POST, PRIORITISED, PRIORITY, RST_STREAM,
    WINDOW_UPDATE, block, data, frame, get, number, post,
};
use super::{Answer, Body, Case, Gone, Ignored, PROTOCOL, REFUSED, Reset, STREAM_CLOSED, row};

const CANCEL: u32 = 8;

pub(super) fn rows() -> Vec<Case> {
    [idle(), half_closed(), closed(), numbers(), priorities()].into_iter().flatten().collect()
}

fn reset(stream: u32) -> Vec<u8> {
    number(RST_STREAM, stream, CANCEL)
}

fn continuation(stream: u32) -> Vec<u8> {
    frame(CONTINUATION, END_HEADERS, stream, &block(&GET))
}

/// A request that is under way for a while, its client's side closed.
fn slow(stream: u32) -> Vec<u8> {
    let slow = [GET[0], GET[1], (":path", "/slow?ms=60000"), GET[3]];
    frame(HEADERS, ALL, stream, &block(&slow))
}

fn idle() -> Vec<Case> {
    vec![
        row("5.1", "idle: DATA", [data(1, END_STREAM, 4)], Gone(PROTOCOL)),
        row("5.1", "idle: RST_STREAM", [reset(1)], Gone(PROTOCOL)),
        row("5.1", "idle: WINDOW_UPDATE", [number(WINDOW_UPDATE, 1, 100)], Gone(PROTOCOL)),
        row("5.1", "idle: CONTINUATION", [continuation(1)], Gone(PROTOCOL)),
        row("5.1", "idle: PRIORITY", [frame(PRIORITY, NONE, 7, &[0, 0, 0, 0, 15]), get(9)], Answer(9, 200)),
        row("5.1", "idle: DATA on a stream of the server", [data(2, END_STREAM, 4)], Gone(PROTOCOL)),
        row("5.1", "idle: WINDOW_UPDATE on a stream of the server", [number(WINDOW_UPDATE, 2, 100)], Gone(PROTOCOL)),
        row("5.1", "idle: RST_STREAM on a stream of the server", [reset(2)], Gone(PROTOCOL)),
    ]
}

fn half_closed() -> Vec<Case> {
    let ended = || [post(1, &[]), data(1, END_STREAM, 4)].concat();
    vec![
        // The clause asks for a stream error, STREAM_CLOSED. h2 ends the connection: of a client that is so wrong other
        // streams end as well, and nobody else's.
        row("5.1", "half-closed: DATA", [slow(1), data(1, END_STREAM, 4)], Gone(PROTOCOL)),
        row("5.1", "half-closed: HEADERS", [slow(1), get(1)], Gone(PROTOCOL)),
        row("5.1", "half-closed: trailers", [slow(1), frame(HEADERS, ALL, 1, &block(&[("x-t", "1")]))], Gone(PROTOCOL)),
        row("5.1", "half-closed: CONTINUATION", [slow(1), continuation(1)], Gone(PROTOCOL)),
        row("5.1", "half-closed: WINDOW_UPDATE", [ended(), number(WINDOW_UPDATE, 1, 100)], Body(1, 4)),
        row("5.1", "half-closed: PRIORITY", [ended(), frame(PRIORITY, NONE, 1, &[0, 0, 0, 0, 15])], Body(1, 4)),
        row("5.1", "half-closed: RST_STREAM", [slow(1), reset(1)], Ignored),
    ]
}

fn closed() -> Vec<Case> {
    let gone = || [post(1, &[]), reset(1)].concat();
    vec![
        row("5.1", "reset: DATA", [gone(), data(1, END_STREAM, 4)], Reset(1, STREAM_CLOSED)),
        // As above.
        row("5.1", "reset: HEADERS", [gone(), get(1)], Gone(PROTOCOL)),
        row("5.1", "reset: CONTINUATION", [gone(), continuation(1)], Gone(PROTOCOL)),
        row("5.1", "reset: WINDOW_UPDATE", [gone(), number(WINDOW_UPDATE, 1, 100)], Ignored),
        row("5.1", "reset: PRIORITY", [gone(), frame(PRIORITY, NONE, 1, &[0, 0, 0, 0, 15])], Ignored),
        row("5.1", "reset: RST_STREAM", [gone(), reset(1)], Ignored),
    ]
}

fn numbers() -> Vec<Case> {
    let many: Vec<u8> = (0..101).flat_map(|number| post(2 * number + 1, &[])).chain(reset(1)).collect();
    vec![
        row("5.1.1", "an even number", [get(2)], Gone(PROTOCOL)),
        row("5.1.1", "a number that is smaller than one before", [slow(5), get(3)], Gone(PROTOCOL)),
        row("5.1.1", "numbers that leave some out", [get(1), get(9), get(1001)], Answer(1001, 200)),
        // Numbers that were left out are closed streams.
        row("5.1.1", "DATA on a number that was left out", [get(5), data(3, END_STREAM, 1)], Reset(3, STREAM_CLOSED)),
        row("5.1.1", "stream 0", [frame(HEADERS, ALL, 0, &block(&GET))], Gone(PROTOCOL)),
        row("5.1.2", "more streams at once than were allowed", [many], Reset(201, REFUSED)),
        row(
            "5.1.2",
            "as many streams as are allowed, one after the other",
            (0..90).map(|number| get(2 * number + 1)),
            Answer(179, 200),
        ),
        row(
            "5.1",
            "trailers end a stream",
            [post(1, &[]), data(1, NONE, 4), frame(HEADERS, ALL, 1, &block(&[("x-t", "1")]))],
            Body(1, 4),
        ),
        row("5.1", "an empty DATA ends a stream", [post(1, &[]), frame(DATA, END_STREAM, 1, &[])], Body(1, 0)),
    ]
}

fn priorities() -> Vec<Case> {
    let weighed = |on: u32| {
        let payload = [&on.to_be_bytes()[..], &[15], &block(&POST)].concat();
        frame(HEADERS, END_HEADERS | PRIORITISED, 1, &payload)
    };
    vec![
        // RFC 9113, section 5.3.2 retired them; what is read still is what RFC 7540 said of them.
        row("5.3", "HEADERS with a priority", [weighed(0), data(1, END_STREAM, 2)], Body(1, 2)),
        row("5.3", "HEADERS that depend on a stream that is none", [weighed(33), data(1, END_STREAM, 2)], Body(1, 2)),
        row("5.3", "HEADERS that depend on themselves", [weighed(1)], Reset(1, PROTOCOL)),
        row(
            "5.3",
            "PRIORITY that depends on itself",
            [post(1, &[]), frame(PRIORITY, NONE, 1, &[0, 0, 0, 1, 15])],
            Reset(1, PROTOCOL),
        ),
        row(
            "5.3",
            "PRIORITY of a stream under way",
            [post(1, &[]), frame(PRIORITY, NONE, 1, &[0x80, 0, 0, 0, 15]), data(1, END_STREAM, 2)],
            Body(1, 2),
        ),
    ]
}
