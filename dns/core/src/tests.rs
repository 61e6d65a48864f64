//! Tables and packets from outside, read back by an independent codec.

mod forwards;
mod names;
mod packets;
mod tables;

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::v1::TableFile;
use crate::{Outcome, Table, Transport, answer};

/// Two environments, a routed and a plain app, a standby instance, three views.
const FIXTURE: &str = r#"{
  "platform": {
    "domain": "platform",
    "ttl_ms": 4001,
    "views": [
      {"name": "production", "sources": ["10.210.0.0/20"], "environment": "production", "forward": true,
       "parts": {"lb": ["10.210.0.2"], "dns": ["10.210.0.3"]}},
      {"name": "staging", "sources": ["10.210.16.0/20"], "environment": "staging", "forward": false,
       "parts": {"lb": ["10.210.16.2"], "dns": ["10.210.16.3"]}},
      {"name": "host", "sources": ["::/0"], "forward": true,
       "parts": {"lb": ["127.0.0.1", "::1"], "dns": ["127.0.0.1"], "controller": ["127.0.0.1"]}}
    ],
    "servers": {"east-1": ["192.0.2.7"]}
  },
  "apps": [
    {"environment": "production", "app": "hello", "default_environment": true, "routed": true, "live": 7, "instances": {
      "hello-v1-r6-web-1": {"process": "web", "number": 1, "release": 6, "version": "1", "address": "10.210.1.1", "port": 8080, "active": false},
      "hello-v2-r7-web-1": {"process": "web", "number": 1, "release": 7, "version": "2", "address": "10.210.1.2", "port": 8080, "active": true},
      "hello-v2-r7-web-2": {"process": "web", "number": 2, "release": 7, "version": "2", "address": "10.210.1.3", "port": 8081, "active": true}}},
    {"environment": "production", "app": "queue", "default_environment": true, "routed": false, "instances": {
      "queue-v1-r1-broker-1": {"process": "broker", "number": 1, "release": 1, "version": "1", "address": "10.210.1.9", "port": 5672, "active": true},
      "queue-v1-r1-broker-2": {"process": "broker", "number": 2, "release": 1, "version": "1", "address": "fd00::9", "port": 5672, "active": true},
      "queue-v2-0-r2-broker-1": {"process": "broker", "number": 1, "release": 2, "version": "2.0", "address": "10.210.1.10", "port": 5672, "active": false}}},
    {"environment": "production", "app": "empty", "default_environment": true, "routed": false, "instances": {}},
    {"environment": "staging", "app": "hello", "default_environment": false, "routed": true, "live": 3, "instances": {
      "hello-staging-v2-r3-web-1": {"process": "web", "number": 1, "release": 3, "version": "2", "address": "10.210.17.1", "port": 8080, "active": true}}}
  ]
}"#;

const HOST: &str = "127.0.0.1";
const PRODUCTION: &str = "10.210.1.2";
const STAGING: &str = "10.210.17.1";

fn file() -> TableFile {
    serde_json::from_str(FIXTURE).expect("the fixture is a table file")
}

fn table() -> Table {
    table_of(file())
}

fn table_of(file: TableFile) -> Table {
    Table::new(&file.sections().expect("no app twice")).expect("a sound table")
}

fn question(name: &str, rtype: &str) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{name}.")).expect("a name");
    let rtype: RecordType = rtype.parse().expect("a type");
    message.add_query(Query::query(name, rtype));
    message.metadata.recursion_desired = true;
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.edns = Some(edns);
    message
}

/// The reply's bytes; none when dropped. Forwarding is a panic.
fn reply(table: &Table, source: &str, packet: &[u8], transport: Transport, seed: u64) -> Option<Vec<u8>> {
    let source: IpAddr = source.parse().expect("an address");
    let mut out = Vec::new();
    match answer(packet, Some(table), source, transport, seed, &mut out) {
        Outcome::Reply(_) => Some(out),
        Outcome::Drop => None,
        Outcome::Forward(forward) => panic!("not ours: {forward:?}"),
    }
}

fn ask_message(table: &Table, source: &str, message: &Message) -> Message {
    let bytes = message.to_vec().expect("a packet");
    let reply = reply(table, source, &bytes, Transport::Udp, 0).expect("a reply");
    let decoded = Message::from_vec(&reply).expect("a reply that others can read");
    assert_eq!(decoded.metadata.id, message.metadata.id);
    assert_eq!(decoded.queries, message.queries);
    decoded
}

/// `CODE | answers | +additionals | authority`, short enough for a table of expectations.
fn ask(table: &Table, source: &str, name: &str, rtype: &str) -> String {
    shown(&ask_message(table, source, &question(name, rtype)))
}

fn shown(message: &Message) -> String {
    let code = match u16::from(message.metadata.response_code) {
        0 => "NOERROR",
        3 => "NXDOMAIN",
        5 => "REFUSED",
        other => return format!("code {other}"),
    };
    let mut text = code.to_owned();
    let mut section = |mark: &str, records: &[hickory_proto::rr::Record]| {
        for record in records {
            let data = if record.record_type() == RecordType::SOA {
                format!("{}", record.name)
            } else if mark == "+" {
                format!("{} {}", record.name, record.data)
            } else {
                record.data.to_string()
            };
            text.push_str(&format!(" | {mark}{} {data}", record.record_type()));
        }
    };
    section("", &message.answers);
    section("+", &message.additionals);
    section("-", &message.authorities);
    text
}
