//! Frames of HTTP/2 as bytes (RFC 9113, section 4), wrong ones as well: nothing here knows what is allowed.

use std::collections::{BTreeMap, BTreeSet};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const NONE: u8 = 0;
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITISED: u8 = 0x20;
/// A whole request without a body.
pub(super) const ALL: u8 = END_STREAM | END_HEADERS;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn number(kind: u8, stream: u32, number: u32) -> Vec<u8> {
    frame(kind, NONE, stream, &number.to_be_bytes())
}

pub(super) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pair = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, NONE, 0, &pairs.iter().flat_map(pair).collect::<Vec<_>>())
}

/// What a connection begins with.
pub(super) fn opening() -> Vec<u8> {
    [PREFACE.to_vec(), settings(&[]), frame(SETTINGS, ACK, 0, &[])].concat()
}

/// Literals without indexing and without Huffman's code (RFC 7541, section 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(text.len(), &mut bytes);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// A number of seven bits and more (RFC 7541, section 5.1), without Huffman's bit.
fn length(mut left: usize, bytes: &mut Vec<u8>) {
    if left < 127 {
        return bytes.push(left as u8);
    }
    bytes.push(127);
    left -= 127;
    while left > 127 {
        bytes.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    bytes.push(left as u8);
}

pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "one.example")];
pub(super) const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "one.example")];

/// A block of `GET` and more.
pub(super) fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&GET, more].concat())
}

pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, ALL, stream, &block(&GET))
}

/// The head of a request whose body follows.
pub(super) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&[&POST, more].concat()))
}

pub(super) fn data(stream: u32, flags: u8, bytes: usize) -> Vec<u8> {
    frame(DATA, flags, stream, &vec![b'x'; bytes])
}

/// What came from the other side.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) goaway: Option<u32>,
    pub(super) resets: Vec<(u32, u32)>,
    pub(super) statuses: BTreeMap<u32, u16>,
    /// Bytes of bodies.
    pub(super) data: BTreeMap<u32, usize>,
    pub(super) ended: BTreeSet<u32>,
    pub(super) pongs: usize,
    pub(super) acks: usize,
}

impl Seen {
    /// Takes the whole frames at the start.
    pub(super) fn take(&mut self, bytes: &mut Vec<u8>) {
        while bytes.len() >= 9 {
            let whole = 9 + u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
            if bytes.len() < whole {
                return;
            }
            let frame: Vec<u8> = bytes.drain(..whole).collect();
            self.take_one(frame[3], frame[4], number_at(&frame, 5), &frame[9..]);
        }
    }

    fn take_one(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        match kind {
            HEADERS => {
                self.statuses.entry(stream).or_insert_with(|| status(payload));
            }
            DATA => *self.data.entry(stream).or_default() += payload.len(),
            RST_STREAM => self.resets.push((stream, number_at(payload, 0))),
            GOAWAY => self.goaway = Some(number_at(payload, 4)),
            PING if flags & ACK != 0 => self.pongs += 1,
            SETTINGS if flags & ACK != 0 => self.acks += 1,
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.ended.insert(stream);
        }
    }
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The status at the start of an answer's block, while nothing but statuses was put into the dynamic table: an entry of
/// the static table, or its name with three digits in Huffman's code.
fn status(block: &[u8]) -> u16 {
    let mut block = block;
    while block[0] & 0xe0 == 0x20 {
        // A change of the table's size.
        let more = if block[0] == 0x3f { block[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1 } else { 0 };
        block = &block[1 + more..];
    }
    match block[0] {
        index @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        0x48 => {
            let mut bits = block[2..].iter().take(4).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            (0..3).fold(0, |number, _| {
                // 0 to 2 have five bits, 3 to 9 six.
                let (digit, taken) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26) - 0x19 + 3, 6) };
                bits <<= taken;
                number * 10 + digit as u16
            })
        }
        other => panic!("a block that begins with {other:#x}"),
    }
}
