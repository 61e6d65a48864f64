//! Foreign questions: what is asked of an upstream, and which replies are taken.

use hickory_proto::op::Message;

use super::{HOST, question, table, with_edns};
use crate::{Forward, Mismatch, Outcome, Transport, UpstreamReply, answer};

fn forward(message: &Message, transport: Transport) -> Forward {
    let source = HOST.parse().expect("an address");
    let bytes = message.to_vec().expect("a packet");
    match answer(&bytes, Some(&table()), source, transport, 0, &mut Vec::new()) {
        Outcome::Forward(forward) => forward,
        other => panic!("not forwarded: {other:?}"),
    }
}

/// What an upstream would answer: the question with QR set, and `records` copies of one address.
fn upstream_reply(query: &[u8], records: u16, rcode: u8) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x84;
    reply[3] = 0x20 | rcode;
    reply[6..8].copy_from_slice(&records.to_be_bytes());
    for _ in 0..records {
        reply.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    }
    reply
}

#[test]
fn an_upstream_is_asked_under_a_new_id_with_our_size() {
    let forward = forward(&with_edns(question("Example.com", "A"), 4096), Transport::Udp);
    let query = Message::from_vec(&forward.query(99)).expect("readable");
    assert_eq!(query.metadata.id, 99);
    assert!(query.metadata.recursion_desired);
    assert_eq!(query.queries, question("Example.com", "A").queries);
    assert_eq!(query.edns.expect("asked with EDNS").max_payload(), 1232);
}

#[test]
fn only_the_reply_to_the_question_is_taken() {
    let forward = forward(&question("example.com", "A"), Transport::Udp);
    let sound = upstream_reply(&forward.query(99), 1, 0);
    assert_eq!(forward.accept(99, &sound), Ok(UpstreamReply::Final { rcode: 0 }));
    assert_eq!(forward.accept(98, &sound), Err(Mismatch));
    let changed = |at: usize, bits: u8| {
        let mut reply = sound.clone();
        reply[at] ^= bits;
        forward.accept(99, &reply)
    };
    assert_eq!(changed(2, 0x80), Err(Mismatch), "not a reply");
    assert_eq!(changed(13, 1), Err(Mismatch), "another name");
    assert_eq!(changed(26, 16), Err(Mismatch), "another type");
    assert_eq!(changed(5, 3), Err(Mismatch), "two questions");
    assert_eq!(changed(13, 0x20), Ok(UpstreamReply::Final { rcode: 0 }), "in another case");
    assert_eq!(changed(2, 2), Ok(UpstreamReply::Truncated));
    assert_eq!(changed(3, 2), Ok(UpstreamReply::TryNext { rcode: 2 }));
    assert_eq!(changed(3, 3), Ok(UpstreamReply::Final { rcode: 3 }));
    for length in 0..28 {
        assert_eq!(forward.accept(99, &sound[..length]), Err(Mismatch), "cut to {length}");
    }
}

#[test]
fn a_reply_goes_back_under_the_askers_id_and_case() {
    let message = question("eXample.com", "A");
    let forward = forward(&message, Transport::Udp);
    let mut upstream = upstream_reply(&forward.query(99), 2, 0);
    upstream[13..20].make_ascii_lowercase();
    let (bytes, answered) = forward.relay(upstream);
    let reply = Message::from_vec(&bytes).expect("readable");
    assert_eq!((reply.metadata.id, reply.answers.len(), answered.rcode), (4711, 2, 0));
    assert!(bytes[12..].starts_with(&message.to_vec().expect("a packet")[12..]));
    assert!(reply.metadata.recursion_available && !reply.metadata.authoritative && !reply.metadata.authentic_data);
}

#[test]
fn what_is_too_large_for_the_asker_says_tc() {
    let message = question("example.com", "A");
    let plain = forward(&message, Transport::Udp);
    let large = upstream_reply(&plain.query(99), 40, 0);
    let (bytes, answered) = plain.relay(large.clone());
    let reply = Message::from_vec(&bytes).expect("readable");
    assert!(answered.truncated && reply.metadata.truncation && reply.answers.is_empty());
    assert!(!plain.wants_all());
    let tcp = forward(&message, Transport::Tcp);
    assert!(tcp.wants_all());
    assert_eq!(Message::from_vec(&tcp.relay(large).0).expect("readable").answers.len(), 40);
    let (failure, answered) = plain.failure(2);
    assert_eq!((answered.rcode, Message::from_vec(&failure).expect("readable").metadata.id), (2, 4711));
}
