//! A table file, UDP, TCP, the admin endpoint.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_file_is_served_over_udp_and_tcp() {
    let (_directory, path) = table_file(TABLE);
    let daemon = Daemon::start(with_table(&path)).await;
    let server = daemon.handle.dns;
    let message = question(9, "HELLO.platform", RecordType::A);
    for reply in [ask_udp(server, &message).await, ask_tcp(server, &message).await] {
        assert_eq!(shown(&reply), "0 127.0.0.1");
        assert_eq!((reply.metadata.id, &reply.queries), (9, &message.queries));
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
    }
    assert_eq!(ask(server, "nothing.platform").await, "3");

    let metrics = daemon.metrics().await;
    for line in [
        "platform_dns_queries_total{transport=\"udp\",qtype=\"A\",rcode=\"NOERROR\"} 1",
        "platform_dns_queries_total{transport=\"udp\",qtype=\"A\",rcode=\"NXDOMAIN\"} 1",
        "platform_dns_queries_total{transport=\"tcp\",qtype=\"A\",rcode=\"NOERROR\"} 1",
        "platform_dns_ready 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    kit::admin::healthcheck(daemon.handle.admin).await.expect("healthy");
    daemon.stop().await;
    assert!(TcpStream::connect(server).await.is_err(), "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_leave_from_the_address_that_was_asked() {
    let (_directory, path) = table_file(TABLE);
    let listen = "0.0.0.0:0".parse().expect("an address");
    let daemon = Daemon::start(Config { listen, ..with_table(&path) }).await;
    for asked in ["127.0.0.1", "127.0.0.2", "127.3.2.1"] {
        let server = SocketAddr::new(asked.parse().expect("an address"), daemon.handle.dns.port());
        assert_eq!(ask(server, "hello.platform").await, "0 127.0.0.1", "asked at {asked}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_is_that_of_the_asker() {
    let (_directory, path) = table_file(TABLE);
    let listen = "0.0.0.0:0".parse().expect("an address");
    let daemon = Daemon::start(Config { listen, ..with_table(&path) }).await;
    let socket = UdpSocket::bind("127.0.0.9:0").await.expect("a socket");
    let server = SocketAddr::new("127.0.0.1".parse().expect("an address"), daemon.handle.dns.port());
    socket.connect(server).await.expect("an address");
    let mut packet = [0; 512];
    for (name, expect) in [("hello.platform", "0 192.0.2.1"), ("example.com", "5")] {
        let message = question(1, name, RecordType::A);
        socket.send(&message.to_vec().expect("a packet")).await.expect("sent");
        let length = timeout(LIMIT, socket.recv(&mut packet)).await.expect("in time").expect("a reply");
        assert_eq!(shown(&Message::from_vec(&packet[..length]).expect("readable")), expect, "{name}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_takes_many_questions_in_any_pieces() {
    let (_directory, path) = table_file(TABLE);
    let daemon = Daemon::start(with_table(&path)).await;
    let mut stream = TcpStream::connect(daemon.handle.dns).await.expect("it listens");
    for id in 1..=50 {
        write_message(&mut stream, &question(id, "hello.platform", RecordType::A)).await;
    }
    for id in 1..=50 {
        assert_eq!(read_message(&mut stream).await.metadata.id, id);
    }
    let packet = question(51, "hello.platform", RecordType::A).to_vec().expect("a packet");
    stream.write_all(&[0]).await.expect("sent");
    stream.flush().await.expect("sent");
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(&[u8::try_from(packet.len()).expect("short")]).await.expect("sent");
    stream.write_all(&packet).await.expect("sent");
    assert_eq!(read_message(&mut stream).await.metadata.id, 51);

    // One that is no question ends the connection, and only it.
    stream.write_all(&[0, 3, 1, 2, 3]).await.expect("sent");
    let ended = timeout(LIMIT, stream.read(&mut [0; 8])).await.expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(ask(daemon.handle.dns, "hello.platform").await, "0 127.0.0.1");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_source_cannot_take_all_connections() {
    let (_directory, path) = table_file(TABLE);
    let daemon = Daemon::start(with_table(&path)).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(daemon.handle.dns).await.expect("it listens");
        write_message(&mut stream, &question(1, "hello.platform", RecordType::A)).await;
        read_message(&mut stream).await;
        open.push(stream);
    }
    let mut refused = TcpStream::connect(daemon.handle.dns).await.expect("it listens");
    let ended = timeout(LIMIT, refused.read(&mut [0; 8])).await.expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    drop(open);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(daemon.handle.dns).await.expect("it listens");
            write_message(&mut stream, &question(1, "hello.platform", RecordType::A)).await;
            if stream.read_u16().await.is_ok() {
                return;
            }
        }
    };
    timeout(LIMIT, again).await.expect("places are free again");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_gets_a_code_or_nothing_and_harms_nobody() {
    let (_directory, path) = table_file(TABLE);
    let daemon = Daemon::start(with_table(&path)).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.connect(daemon.handle.dns).await.expect("an address");
    let mut reply_packet = question(1, "hello.platform", RecordType::A);
    reply_packet.metadata.message_type = MessageType::Response;
    for silent in [Vec::new(), vec![0; 11], reply_packet.to_vec().expect("a packet")] {
        socket.send(&silent).await.expect("sent");
    }
    let mut two = question(2, "hello.platform", RecordType::A);
    two.add_query(two.queries[0].clone());
    socket.send(&two.to_vec().expect("a packet")).await.expect("sent");
    let mut packet = [0; 512];
    let length = timeout(LIMIT, socket.recv(&mut packet)).await.expect("in time").expect("a reply");
    assert_eq!(packet[..length], [0, 2, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0], "FORMERR to the last one only");
    assert!(daemon.metrics().await.contains("platform_dns_dropped_total 3"), "{}", daemon.metrics().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_said_at_the_start() {
    let (_directory, path) = table_file(&TABLE.replace("\"ttl_ms\"", "\"ttl\": 1, \"ttl_ms\""));
    let error = start_error(with_table(&path)).await;
    assert!(error.to_string().contains(".platform.ttl"), "{error}");
    assert!(matches!(start_error(config()).await, RunError::NoTable));
    let both = Config { controller: Some("http://127.0.0.1:1".to_owned()), ..with_table(&path) };
    assert!(matches!(start_error(both).await, RunError::TwoTables));

    let (_directory, path) = table_file(TABLE);
    let first = Daemon::start(with_table(&path)).await;
    let taken = Config { listen: first.handle.dns, ..with_table(&path) };
    let error = start_error(taken).await;
    assert!(error.to_string().contains("taken"), "{error}");
    first.stop().await;
}
