//! The service as a user sees it: the real program, asked over TCP.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

struct Hello {
    child: Child,
    port: u16,
}

impl Hello {
    fn start(switches: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hello-world"));
        command.env_clear().env("PORT", port.to_string()).env("HELLO_VERSION", "7").envs(switches.iter().copied());
        let child = command.current_dir(std::env::temp_dir()).spawn().unwrap();
        Self { child, port }
    }

    fn listening(switches: &[(&str, &str)]) -> Self {
        let hello = Self::start(switches);
        until(|| TcpStream::connect(("127.0.0.1", hello.port)).is_ok());
        hello
    }

    fn send(&self, method: &str, target: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "{method} {target} HTTP/1.1\r\nhost: hello\r\nconnection: close\r\n\r\n").unwrap();
        stream
    }

    fn ask(&self, method: &str, target: &str) -> (u16, String) {
        answer(self.send(method, target))
    }

    fn term(&self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn until(mut reached: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if reached() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not reached in 10 s");
}

/// An answer before the body would make the connection one that must be closed, which its sender takes for a failure.
#[test]
fn a_body_is_taken_before_it_is_answered() {
    let hello = Hello::listening(&[]);
    let mut stream = TcpStream::connect(("127.0.0.1", hello.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    write!(stream, "POST /count/late HTTP/1.1\r\nhost: hello\r\ncontent-length: 4\r\n\r\n").unwrap();
    let mut byte = [0];
    assert!(stream.read(&mut byte).is_err(), "it is answered before its body");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "body").unwrap();
    write!(stream, "GET /count/late HTTP/1.1\r\nhost: hello\r\nconnection: close\r\n\r\n").unwrap();
    let mut both = String::new();
    stream.read_to_string(&mut both).unwrap();
    assert_eq!(both.matches("200 OK").count(), 2, "{both}");
}

#[test]
fn it_greets_counts_and_says_who_it_is() {
    let hello = Hello::listening(&[("PLATFORM_INSTANCE", "hello-world-v7-r1-web-1")]);
    assert_eq!(hello.ask("GET", "/greeting"), (200, "hello from hello-world 7\n".to_owned()));
    assert_eq!(hello.ask("GET", "/health"), (200, "ok\n".to_owned()));
    assert_eq!(hello.ask("POST", "/count/a").1, "{\"count\":1,\"key\":\"a\"}\n");
    assert_eq!(hello.ask("POST", "/count/a").1, "{\"count\":2,\"key\":\"a\"}\n");
    assert_eq!(hello.ask("GET", "/count/b").1, "{\"count\":0,\"key\":\"b\"}\n");
    assert_eq!(hello.ask("GET", "/counts").1, "{\"a\":2}\n");
    assert_eq!(hello.ask("GET", "/count/").0, 400);
    assert_eq!(hello.ask("DELETE", "/count/a").0, 405);
    assert_eq!(hello.ask("GET", "/nowhere").0, 404);
    let (_, instance) = hello.ask("GET", "/instance");
    let pid = hello.child.id();
    assert_eq!(instance, format!("{{\"instance\":\"hello-world-v7-r1-web-1\",\"pid\":{pid},\"version\":\"7\"}}\n"));
    let (_, lines) = hello.ask("GET", "/stream?n=3&ms=1");
    assert_eq!(lines.matches("hello from hello-world 7").count(), 3);
}

#[test]
fn asked_to_stop_it_finishes_what_is_in_flight() {
    let mut hello = Hello::listening(&[]);
    let slow = hello.send("GET", "/slow?ms=400");
    let stream = hello.send("GET", "/stream?n=20&ms=20");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("1 hello") {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    hello.term();
    until(|| TcpStream::connect(("127.0.0.1", hello.port)).is_err());
    assert_eq!(answer(slow), (200, "hello from hello-world 7\n".to_owned()));
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("20 hello") && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(hello.ended().code(), Some(0));
}

#[test]
fn websockets_echo_and_are_told_to_go() {
    let mut hello = Hello::listening(&[]);
    let mut socket = TcpStream::connect(("127.0.0.1", hello.port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head =
        "GET /ws HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
    write!(socket, "{head}sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").unwrap();
    let mut read = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        read.read_line(&mut head).unwrap();
    }
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // A text frame "hi", masked with zeros; the echo is unmasked.
    socket.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    let mut echo = [0; 4];
    read.read_exact(&mut echo).unwrap();
    assert_eq!(echo, [0x81, 2, b'h', b'i']);
    hello.term();
    let mut goodbye = [0; 4];
    read.read_exact(&mut goodbye).unwrap();
    assert_eq!((goodbye[0], u16::from_be_bytes([goodbye[2], goodbye[3]])), (0x88, 1001));
    drop((socket, read));
    assert_eq!(hello.ended().code(), Some(0));
}

#[test]
fn switches_make_it_misbehave() {
    assert_eq!(Hello::start(&[("HELLO_CRASH_AT_ONCE", "1")]).ended().code(), Some(1));
    assert_eq!(Hello::start(&[("HELLO_CRASH_AFTER_MS", "50")]).ended().code(), Some(1));
    let hello = Hello::listening(&[("HELLO_NEVER_HEALTHY", "1"), ("HELLO_STATUS_500", "1")]);
    assert_eq!((hello.ask("GET", "/health").0, hello.ask("GET", "/greeting").0), (503, 500));
    let mut silent = Hello::start(&[("HELLO_NEVER_LISTEN", "1")]);
    let hello = Hello::listening(&[("HELLO_SLOW_START_MS", "300"), ("HELLO_IGNORE_SIGTERM", "1")]);
    hello.term();
    assert_eq!(hello.ask("GET", "/slow?ms=100").0, 200);
    assert!(TcpStream::connect(("127.0.0.1", silent.port)).is_err());
    assert!(silent.child.try_wait().unwrap().is_none());
}
