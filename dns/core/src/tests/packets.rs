//! Packets, sound and otherwise.

use std::collections::BTreeSet;

use hickory_proto::op::Message;
use hickory_proto::rr::DNSClass;

use super::{HOST, STAGING, ask_message, file, question, reply, shown, table, table_of, with_edns};
use crate::v1::NamedInstance;
use crate::{Outcome, Table, Transport, answer};

fn packet(name: &str, rtype: &str) -> Vec<u8> {
    question(name, rtype).to_vec().expect("a packet")
}

/// The code of what comes back; none when nothing does.
fn code(table: &Table, packet: &[u8]) -> Option<u16> {
    let reply = reply(table, HOST, packet, Transport::Udp, 0)?;
    Some(u16::from(reply[3] & 15))
}

#[test]
fn the_question_comes_back_byte_for_byte() {
    let table = table();
    let mut asked = packet("hello.platform", "A");
    for (at, byte) in asked.iter_mut().enumerate().skip(12).take(16) {
        if at % 2 == 0 {
            byte.make_ascii_uppercase();
        }
    }
    let reply = reply(&table, HOST, &asked, Transport::Udp, 0).expect("a reply");
    assert_eq!(reply[12..asked.len()], asked[12..]);
    assert_eq!(Message::from_vec(&reply).expect("readable").answers.len(), 1, "matched whatever its case");
}

#[test]
fn packets_that_are_no_question_get_a_code_or_nothing() {
    let table = table();
    let sound = packet("hello.platform", "A");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = sound.clone();
        change(&mut packet);
        code(&table, &packet)
    };
    assert_eq!(changed(&|_| {}), Some(0));
    assert_eq!(changed(&|packet| packet.truncate(11)), None, "no header");
    assert_eq!(changed(&|packet| packet[2] |= 128), None, "a reply is never replied to");
    assert_eq!(changed(&|packet| packet[2] |= 5 << 3), Some(4), "an update is not implemented");
    for count in [0, 2, 255] {
        assert_eq!(changed(&|packet| packet[5] = count), Some(1), "{count} questions");
    }
    assert_eq!(changed(&|packet| packet.truncate(20)), Some(1), "cut");
    assert_eq!(changed(&|packet| packet.push(0)), Some(1), "too long");
    assert_eq!(changed(&|packet| packet[12] = 0xC0), Some(1), "a pointer in the question");
    assert_eq!(changed(&|packet| packet[12] = 64), Some(1), "a label of 64");
    assert_eq!(changed(&|packet| packet[11] = 1), Some(1), "a record that is not there");
    assert_eq!(changed(&|packet| packet[7] = 255), Some(1), "255 records that are not there");
    let long =
        [vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], [vec![63], vec![b'a'; 63]].concat().repeat(4), vec![0, 0, 1, 0, 1]];
    assert_eq!(code(&table, &long.concat()), Some(1), "a name of 257");
}

#[test]
fn no_cut_or_flipped_packet_panics_and_all_replies_are_readable() {
    let table = table();
    let sound = with_edns(question("_web._tcp.hello.platform", "SRV"), 4096).to_vec().expect("a packet");
    let mut out = Vec::new();
    let source = STAGING.parse().expect("an address");
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut packet = sound.clone();
            packet[at] ^= 1 << bit;
            for length in [packet.len(), at] {
                let outcome = answer(&packet[..length], Some(&table), source, Transport::Udp, 1, &mut out);
                if let Outcome::Reply(answered) = outcome {
                    assert!(out.len() <= 1232);
                    assert_eq!(out[..2], packet[..2]);
                    assert_eq!(u16::from(out[3] & 15), answered.rcode & 15);
                    assert!(answered.qtype.is_none() || Message::from_vec(&out).is_ok(), "{packet:?} -> {out:?}");
                }
            }
        }
    }
}

#[test]
fn other_classes_transfers_and_unknown_askers_are_refused() {
    let table = table();
    let mut chaos = question("version.bind", "TXT");
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(shown(&ask_message(&table, HOST, &chaos)), "REFUSED");
    for kind in [251, 252] {
        let mut transfer = packet("platform", "A");
        transfer[23] = kind;
        assert_eq!(code(&table, &transfer), Some(5), "IXFR and AXFR: {kind}");
    }
    let mut file = file();
    file.platform.views.pop();
    let closed = table_of(file);
    assert_eq!(shown(&ask_message(&closed, "192.0.2.1", &question("lb.platform", "A"))), "REFUSED");
}

#[test]
fn before_the_first_table_everything_fails_for_now() {
    let mut out = Vec::new();
    let source = HOST.parse().expect("an address");
    let outcome = answer(&packet("hello.platform", "A"), None, source, Transport::Udp, 0, &mut out);
    assert!(matches!(outcome, Outcome::Reply(answered) if answered.rcode == 2), "{outcome:?}");
}

#[test]
fn edns_is_capped_and_other_versions_are_told() {
    let table = table();
    let reply = ask_message(&table, HOST, &with_edns(question("lb.platform", "A"), 4096));
    assert_eq!(reply.edns.expect("asked with EDNS").max_payload(), 1232);
    assert!(ask_message(&table, HOST, &question("lb.platform", "A")).edns.is_none(), "asked without");

    let mut odd = with_edns(question("lb.platform", "A"), 4096);
    let edns = odd.edns.as_mut().expect("set above");
    edns.set_version(1).set_dnssec_ok(true);
    let reply = ask_message(&table, HOST, &odd);
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    let edns = reply.edns.expect("asked with EDNS");
    assert!(edns.version() == 0 && edns.flags().dnssec_ok, "{edns:?}");

    let mut twice = with_edns(question("lb.platform", "A"), 4096).to_vec().expect("a packet");
    let opt = twice[twice.len() - 11..].to_vec();
    twice.extend_from_slice(&opt);
    twice[11] = 2;
    assert_eq!(code(&table, &twice), Some(1), "two OPT records");
}

/// The app `queue` with this many active instances.
fn crowded(count: u8) -> Table {
    let mut file = file();
    let instances = &mut file.apps[1].instances;
    let model: NamedInstance = instances.values().next().expect("one").clone();
    instances.clear();
    for number in 1..=count {
        let mut instance = model.clone();
        (instance.number, instance.address) = (u32::from(number), [10, 210, 2, number].into());
        let id = format!("queue-v1-r1-broker-{number}");
        instances.insert(id.parse().expect("a name"), instance);
    }
    table_of(file)
}

#[test]
fn too_many_addresses_become_fewer_and_all_are_there_over_tcp() {
    let table = crowded(200);
    let message = question("queue.platform", "A");
    let plain = ask_message(&table, HOST, &message);
    assert!(!plain.metadata.truncation);
    assert_eq!(plain.answers.len(), (512 - 12 - 20) / 16);
    let edns = ask_message(&table, HOST, &with_edns(message.clone(), 65_000));
    assert!(!edns.metadata.truncation && edns.edns.is_some());
    assert_eq!(edns.answers.len(), (1232 - 12 - 20 - 11) / 16);

    let bytes = message.to_vec().expect("a packet");
    let tcp = reply(&table, HOST, &bytes, Transport::Tcp, 0).expect("a reply");
    assert_eq!(Message::from_vec(&tcp).expect("readable").answers.len(), 200);
}

#[test]
fn the_seed_picks_who_comes_first() {
    let table = crowded(3);
    let bytes = packet("queue.platform", "A");
    let firsts: BTreeSet<String> = (0..3)
        .map(|seed| {
            let reply = reply(&table, HOST, &bytes, Transport::Udp, seed).expect("a reply");
            let reply = Message::from_vec(&reply).expect("readable");
            assert_eq!(reply.answers.len(), 3);
            reply.answers[0].data.to_string()
        })
        .collect();
    assert_eq!(firsts.len(), 3, "{firsts:?}");
}

#[test]
fn too_many_services_say_tc_and_additionals_are_left_out_in_silence() {
    let message = question("_broker._tcp.queue.platform", "SRV");
    let few = ask_message(&crowded(8), HOST, &message);
    assert!(!few.metadata.truncation && few.answers.len() == 8 && few.additionals.len() < 8, "{few:?}");
    let many = ask_message(&crowded(100), HOST, &with_edns(message.clone(), 1232));
    assert!(many.metadata.truncation && many.answers.is_empty() && many.additionals.is_empty());
    assert!(many.edns.is_some(), "TC keeps OPT");
    let bytes = message.to_vec().expect("a packet");
    let tcp = reply(&crowded(100), HOST, &bytes, Transport::Tcp, 0).expect("a reply");
    let tcp = Message::from_vec(&tcp).expect("readable");
    assert_eq!((tcp.answers.len(), tcp.additionals.len()), (100, 100));
}

#[test]
fn recursion_is_offered_where_forwarding_is_allowed() {
    let table = table();
    let offered = |source| ask_message(&table, source, &question("lb.platform", "A")).metadata.recursion_available;
    assert!(offered(HOST) && !offered(STAGING));
    assert_eq!(shown(&ask_message(&table, STAGING, &question("example.com", "A"))), "REFUSED");
    let mut undesired = question("example.com", "A");
    undesired.metadata.recursion_desired = false;
    assert_eq!(shown(&ask_message(&table, HOST, &undesired)), "REFUSED");
}
