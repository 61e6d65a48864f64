//! The name server in process, asked over real sockets by an independent codec.

#[path = "daemon/following.rs"]
mod following;
#[path = "daemon/forwarding.rs"]
mod forwarding;
#[path = "daemon/serving.rs"]
mod serving;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns::{Config, Handle, RunError};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use kit::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Nothing here takes longer, but for an upstream's silence.
const LIMIT: Duration = Duration::from_secs(8);

const TABLE: &str = r#"{
  "platform": {"domain": "platform", "ttl_ms": 5000, "views": [
    {"name": "host", "sources": ["127.0.0.1"], "forward": true, "parts": {"lb": ["127.0.0.1"]}},
    {"name": "others", "sources": ["::/0"], "forward": false, "parts": {"lb": ["192.0.2.1"]}}]},
  "apps": [{"environment": "production", "app": "hello", "default_environment": true, "routed": true, "live": 2, "instances": {
    "hello-v2-r2-web-1": {"process": "web", "number": 1, "release": 2, "version": "2", "address": "10.210.1.2", "port": 8080, "active": true}}}]
}"#;

/// A running server; it stops with [`Daemon::stop`].
struct Daemon {
    handle: Handle,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Daemon {
    async fn start(config: Config) -> Self {
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let handle = dns::run(config, &tasks, &shutdown).await.expect("it starts");
        Self { handle, tasks, shutdown }
    }

    async fn stop(self) {
        self.shutdown.ask();
        assert_eq!(self.tasks.finish(LIMIT).await, Vec::<String>::new(), "tasks that did not end");
    }

    async fn metrics(&self) -> String {
        self.admin("/metrics").await.1
    }

    /// Status and body of the admin endpoint.
    async fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.handle.admin).await.expect("the admin endpoint listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut text = String::new();
        timeout(LIMIT, stream.read_to_string(&mut text)).await.expect("in time").expect("text");
        let status = text[9..12].parse().expect("a status");
        (status, text)
    }
}

fn config() -> Config {
    let any = "127.0.0.1:0".parse().expect("an address");
    Config { listen: any, admin: any, ..Config::default() }
}

/// A table file in a directory that is removed with the guard.
fn table_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("names.json");
    std::fs::write(&path, text).expect("written");
    (directory, path)
}

fn question(id: u16, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).expect("a name"), kind));
    message.metadata.recursion_desired = true;
    message
}

async fn ask_udp(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    // Connected: a reply from another address than the one that was asked does not come in.
    socket.connect(server).await.expect("an address");
    socket.send(&message.to_vec().expect("a packet")).await.expect("sent");
    let mut packet = [0; 4096];
    let length = timeout(LIMIT, socket.recv(&mut packet)).await.expect("in time").expect("a reply");
    Message::from_vec(&packet[..length]).expect("readable")
}

async fn write_message(stream: &mut TcpStream, message: &Message) {
    let packet = message.to_vec().expect("a packet");
    let length = u16::try_from(packet.len()).expect("short").to_be_bytes();
    stream.write_all(&[&length[..], &packet].concat()).await.expect("sent");
}

async fn read_message(stream: &mut TcpStream) -> Message {
    let read = async {
        let length = stream.read_u16().await.expect("a length");
        let mut packet = vec![0; usize::from(length)];
        stream.read_exact(&mut packet).await.expect("a message");
        Message::from_vec(&packet).expect("readable")
    };
    timeout(LIMIT, read).await.expect("in time")
}

async fn ask_tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("it listens");
    write_message(&mut stream, message).await;
    read_message(&mut stream).await
}

/// `CODE answer answer …`.
fn shown(message: &Message) -> String {
    let answers = message.answers.iter().map(|record| format!(" {}", record.data));
    format!("{}{}", u16::from(message.metadata.response_code), answers.collect::<String>())
}

async fn ask(server: SocketAddr, name: &str) -> String {
    shown(&ask_udp(server, &question(7, name, RecordType::A)).await)
}

/// Asks until the answer is `expect`.
async fn until(server: SocketAddr, name: &str, expect: &str) {
    let asking = async {
        while ask(server, name).await != expect {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(LIMIT, asking).await.is_ok(), "{name} never answered {expect}: {}", ask(server, name).await);
}

async fn start_error(config: Config) -> RunError {
    let tasks = Tasks::new();
    dns::run(config, &tasks, &Shutdown::new()).await.expect_err("it must not start")
}

fn with_table(path: &Path) -> Config {
    Config { table: Some(path.to_path_buf()), ..config() }
}
