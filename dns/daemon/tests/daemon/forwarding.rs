//! Questions about other domains, against upstreams that behave as they are told by the name that is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record, RecordType, rdata};
use tokio::net::TcpListener;

use super::*;

/// An upstream on UDP and TCP.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn reply_to(query: &Message, code: ResponseCode, addresses: u8) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.response_code = code;
    reply.metadata.authentic_data = true;
    for last in 1..=addresses {
        let data = RData::A(rdata::A::new(198, 51, 100, last));
        reply.answers.push(Record::from_rdata(query.queries[0].name.clone(), 60, data));
    }
    reply
}

/// What it sends over UDP, packet by packet.
fn udp_replies(query: &Message, number: u8) -> Vec<Message> {
    let name = query.queries[0].name.to_string();
    match name.split('.').next().expect("a label") {
        "missing" => vec![reply_to(query, ResponseCode::NXDomain, 0)],
        "broken" => vec![reply_to(query, ResponseCode::ServFail, 0)],
        "half" if number == 1 => vec![reply_to(query, ResponseCode::ServFail, 0)],
        "half" => vec![reply_to(query, ResponseCode::NoError, 2)],
        "silent" => vec![],
        "large" => {
            let mut reply = reply_to(query, ResponseCode::NoError, 0);
            reply.metadata.truncation = true;
            vec![reply]
        }
        "forged" => {
            let mut id = reply_to(query, ResponseCode::NoError, 9);
            id.metadata.id = id.metadata.id.wrapping_add(1);
            let mut name = reply_to(query, ResponseCode::NoError, 9);
            name.queries[0].name = Name::from_ascii("other.example.").expect("a name");
            vec![id, name, reply_to(query, ResponseCode::NoError, 1)]
        }
        _ => vec![reply_to(query, ResponseCode::NoError, 1)],
    }
}

impl Upstream {
    async fn start(tasks: &Tasks, number: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("bound");
        let socket = UdpSocket::bind(address).await.expect("the same port is free for UDP");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tasks.spawn("upstream-udp", async move {
            let mut packet = [0; 4096];
            loop {
                let (length, peer) = socket.recv_from(&mut packet).await.expect("a packet");
                count.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(&packet[..length]).expect("readable");
                for reply in udp_replies(&query, number) {
                    socket.send_to(&reply.to_vec().expect("a packet"), peer).await.expect("sent");
                }
            }
        });
        tasks.spawn("upstream-tcp", async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let query = read_message(&mut stream).await;
                write_message(&mut stream, &reply_to(&query, ResponseCode::NoError, 100)).await;
            }
        });
        Self { address, asked }
    }
}

/// A server with two upstreams.
async fn start() -> (Daemon, Upstream, Upstream) {
    let (_directory, path) = table_file(TABLE);
    let tasks = Tasks::new();
    let (first, second) = (Upstream::start(&tasks, 1).await, Upstream::start(&tasks, 2).await);
    let upstreams = vec![first.address, second.address];
    (Daemon::start(Config { upstreams, ..with_table(&path) }).await, first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_questions_get_the_upstreams_answer() {
    let (daemon, first, second) = start().await;
    let server = daemon.handle.dns;
    let message = question(77, "wWw.example.com", RecordType::A);
    for reply in [ask_udp(server, &message).await, ask_tcp(server, &message).await] {
        assert_eq!(shown(&reply), "0 198.51.100.1");
        assert_eq!((reply.metadata.id, &reply.queries), (77, &message.queries));
        assert!(reply.metadata.recursion_available && !reply.metadata.authentic_data);
    }
    assert_eq!(ask(server, "missing.example.com").await, "3", "NXDOMAIN is final");
    assert_eq!(first.asked.load(Ordering::SeqCst), 3);
    assert_eq!(second.asked.load(Ordering::SeqCst), 0, "one upstream at a time");
    assert_eq!(ask(server, "hello.platform").await, "0 127.0.0.1");
    assert_eq!(first.asked.load(Ordering::SeqCst), 3, "our own names are never asked for elsewhere");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_upstream_helps_and_failures_are_told() {
    let (daemon, first, second) = start().await;
    let server = daemon.handle.dns;
    assert_eq!(ask(server, "broken.example.com").await, "2");
    assert_eq!((first.asked.load(Ordering::SeqCst), second.asked.load(Ordering::SeqCst)), (1, 1), "each once");
    assert_eq!(ask(server, "half.example.com").await, "0 198.51.100.1 198.51.100.2");
    assert!(daemon.metrics().await.contains("platform_dns_forward_failures_total 1"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_replies_are_passed_over() {
    let (daemon, ..) = start().await;
    assert_eq!(ask(daemon.handle.dns, "forged.example.com").await, "0 198.51.100.1");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_udp_cuts_is_whole_over_tcp() {
    let (daemon, ..) = start().await;
    let message = question(5, "large.example.com", RecordType::A);
    let udp = ask_udp(daemon.handle.dns, &message).await;
    assert!(udp.metadata.truncation && udp.answers.is_empty());
    let tcp = ask_tcp(daemon.handle.dns, &message).await;
    assert!(!tcp.metadata.truncation && tcp.answers.len() == 100);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_within_an_askers_patience_and_holds_up_nobody() {
    let (daemon, ..) = start().await;
    let server = daemon.handle.dns;
    let mut stream = TcpStream::connect(server).await.expect("it listens");
    let clock = kit::Clock::start();
    write_message(&mut stream, &question(1, "silent.example.com", RecordType::A)).await;
    write_message(&mut stream, &question(2, "www.example.com", RecordType::A)).await;
    write_message(&mut stream, &question(3, "hello.platform", RecordType::A)).await;
    let mut ids: Vec<u16> = Vec::new();
    for _ in 0..2 {
        ids.push(read_message(&mut stream).await.metadata.id);
    }
    assert!(ids.contains(&2) && ids.contains(&3), "{ids:?}");
    assert!(clock.elapsed() < Duration::from_secs(3), "the others did not wait");
    let last = read_message(&mut stream).await;
    assert_eq!((last.metadata.id, shown(&last).as_str()), (1, "2"));
    assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());
    daemon.stop().await;
}
