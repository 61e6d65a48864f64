//! RFC 7541: how a block of fields is written. Each is a whole request, or none.

use super::writer::{ALL, GET, HEADERS, block, frame, get, settings};
use super::{Answer, Case, Expect, Gone, PROTOCOL, row};

pub(super) fn rows() -> Vec<Case> {
    [indexed(), literals(), huffman(), sizes()].into_iter().flatten().collect()
}

/// The request that most of these are: GET, http, / by index; the authority as a literal, and more.
fn get_and(more: &[u8]) -> Vec<u8> {
    [&[0x82, 0x86, 0x84][..], &block(&GET[3..]), more].concat()
}

fn asks(clause: &'static str, name: &'static str, block: Vec<u8>, expect: Expect) -> Case {
    row(clause, name, [frame(HEADERS, ALL, 1, &block)], expect)
}

/// RFC 9113, section 4.3 asks for COMPRESSION_ERROR. h2 says PROTOCOL_ERROR of what it could not read: the connection
/// ends at once either way, and the code is for people to read.
const UNREADABLE: Expect = Gone(PROTOCOL);

fn indexed() -> Vec<Case> {
    let put = [0x40, 3, b'x', b'-', b'a', 1, b'1'];
    vec![
        asks("7541 6.1", "fields of the static table", get_and(&[]), Answer(1, 200)),
        asks("7541 6.1", "index 0", get_and(&[0x80]), UNREADABLE),
        asks(
            "7541 2.3.3",
            "an index past the static table, while the dynamic one is empty",
            get_and(&[0xbe]),
            UNREADABLE,
        ),
        asks("7541 2.3.3", "an index far past both", get_and(&[0xff, 0xff, 0x7f]), UNREADABLE),
        asks("7541 2.3.3", "a name with an index past both", get_and(&[0x7f, 0x20, 1, b'1']), UNREADABLE),
        asks(
            "7541 2.3.2",
            "a field that was put in the dynamic table",
            get_and(&[&put[..], &[0xbe]].concat()),
            Answer(1, 200),
        ),
        row(
            "7541 2.3.2",
            "a field of the dynamic table in a later block",
            [frame(HEADERS, ALL, 1, &get_and(&put)), frame(HEADERS, ALL, 3, &get_and(&[0xbe]))],
            Answer(3, 200),
        ),
    ]
}

fn literals() -> Vec<Case> {
    vec![
        asks("7541 6.2.1", "a literal that is put in the table", get_and(&[0x40, 1, b'x', 1, b'1']), Answer(1, 200)),
        asks("7541 6.2.1", "the same with a name of the static table", get_and(&[0x7a, 1, b'1']), Answer(1, 200)),
        asks("7541 6.2.2", "a literal that is not", get_and(&[0, 1, b'x', 1, b'1']), Answer(1, 200)),
        asks("7541 6.2.2", "the same with a name of the static table", get_and(&[0x0f, 0x2b, 1, b'1']), Answer(1, 200)),
        asks("7541 6.2.3", "a literal that never is", get_and(&[0x10, 1, b'x', 1, b'1']), Answer(1, 200)),
        asks("7541 6.2.3", "the same with a name of the static table", get_and(&[0x1f, 0x2b, 1, b'1']), Answer(1, 200)),
        asks(
            "7541 5.1",
            "a number in more bytes than it needs",
            get_and(&[0, 1, b'x', 0x7f, 0x80, 0x00].iter().copied().chain([b'1'; 127]).collect::<Vec<_>>()),
            Answer(1, 200),
        ),
        asks(
            "7541 5.1",
            "a number that does not end",
            get_and(&[0, 1, b'x', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            UNREADABLE,
        ),
        asks("7541 5.2", "a name that is longer than its block", get_and(&[0, 9, b'x']), UNREADABLE),
        asks("7541 5.2", "a value that is longer than its block", get_and(&[0, 1, b'x', 9, b'1']), UNREADABLE),
        asks("7541 5.2", "a name without a value", get_and(&[0, 1, b'x']), UNREADABLE),
    ]
}

fn huffman() -> Vec<Case> {
    // `www.example.com` of RFC 7541, appendix C.4.1.
    let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    let value = |bytes: &[u8]| get_and(&[&[0, 1, b'x', 0x80 | bytes.len() as u8][..], bytes].concat());
    vec![
        asks("7541 5.2", "a value in Huffman's code", value(&example), Answer(1, 200)),
        asks("7541 5.2", "padding of more than 7 bits", value(&[&example[..], &[0xff]].concat()), UNREADABLE),
        asks("7541 5.2", "padding of a whole byte alone", value(&[0xff]), UNREADABLE),
        asks("7541 5.2", "padding that is not of EOS", value(&[&example[..11], &[0xfe]].concat()), UNREADABLE),
        asks("7541 5.2", "EOS itself", value(&[0x1f, 0xff, 0xff, 0xff, 0xff]), UNREADABLE),
    ]
}

fn sizes() -> Vec<Case> {
    let first = |size: &[u8]| [size, &get_and(&[])].concat();
    vec![
        asks("7541 6.3", "a size of nothing", first(&[0x20]), Answer(1, 200)),
        asks("7541 6.3", "two sizes at the start", first(&[0x20, 0x3f, 0xe1, 0x1f]), Answer(1, 200)),
        asks("7541 6.3", "a size larger than was offered", first(&[0x3f, 0xe2, 0x1f]), UNREADABLE),
        asks("7541 4.2", "a size at the end of a block", get_and(&[0x20]), UNREADABLE),
        asks("7541 4.2", "a size within a block", get_and(&[0x20, 0, 1, b'x', 1, b'1']), UNREADABLE),
        row(
            "7541 4.2",
            "an encoder that is asked for a smaller table",
            [settings(&[(1, 0)]), get(1), get(3)],
            Answer(3, 200),
        ),
    ]
}
