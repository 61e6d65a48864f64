//! An app that answers every request with 200, and keeps what it was. It reads like whoever wrote for it: a proxy's bytes
//! are well-formed, whatever it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use kit::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as it came, in the one spelling that all mean: without a version, without a host in its target, and with
/// odd characters of that as `%22`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Got {
    line: String,
    body: Vec<u8>,
    is_whole: bool,
}

impl std::fmt::Debug for Got {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} [{}]", self.line, self.body.escape_ascii())
    }
}

pub(super) struct Origin {
    pub(super) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Origin {
    pub(super) async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let (got, inner) = (Arc::clone(&origin.got), tasks.clone());
        tasks.spawn("origin", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let got = Arc::clone(&got);
                inner.spawn("origin-connection", async move { talk(stream, &got).await });
            }
        });
        origin
    }

    /// One that broke off is none: its app never gets to its end.
    pub(super) fn take(&self) -> Vec<Got> {
        let all = std::mem::take(&mut *self.got.lock().unwrap());
        all.into_iter().filter(|one| one.is_whole).collect()
    }
}

/// A request is kept as soon as its head is there, and its body as it comes.
async fn talk(mut stream: TcpStream, got: &Mutex<Vec<Got>>) {
    let mut bytes = Vec::new();
    loop {
        while let Some((one, length)) = read(&bytes) {
            let is_whole = one.is_whole;
            keep(&mut got.lock().unwrap(), one);
            if !is_whole {
                break;
            }
            bytes.drain(..length);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                return;
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
}

fn keep(got: &mut Vec<Got>, one: Got) {
    // What was there of it before is there again, and more.
    if got.last().is_some_and(|last| !last.is_whole && last.line == one.line) {
        got.pop();
    }
    if one.line != "GET /health" {
        got.push(one);
    }
}

/// The request at the start, and how long it is. None: not even its head is there.
fn read(bytes: &[u8]) -> Option<(Got, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let line = meant(lines.next().unwrap_or_default());
    let value = |name: &str| {
        let found =
            head.lines().find_map(|line| line.split_once(':').filter(|(own, _)| own.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let rest = &bytes[end..];
    if value("transfer-encoding").is_some() {
        let (body, length) = unchunk(rest);
        let is_whole = length.is_some();
        return Some((Got { line, body, is_whole }, end + length.unwrap_or(0)));
    }
    let length = value("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let body = rest[..length.min(rest.len())].to_vec();
    let is_whole = body.len() == length;
    Some((Got { line, body, is_whole }, end + length))
}

fn meant(line: &str) -> String {
    let line = line.rsplit_once(" HTTP/1.").map_or(line, |(rest, _)| rest);
    let (method, target) = line.split_once(' ').unwrap_or((line, ""));
    let own = ["http://a", "https://a"].iter().find_map(|own| target.strip_prefix(own));
    let plain = |byte: u8| byte > b' ' && byte < 0x7f && byte != b'"';
    let spelled = own
        .unwrap_or(target)
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    format!("{method} {}", spelled.collect::<String>())
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (all, mut body) = (rest.len(), Vec::new());
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let text = String::from_utf8_lossy(&rest[..at]).into_owned();
        let size = usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        rest = &rest[at + 2..];
        if size == 0 {
            // Trailers up to the empty line.
            let end = if rest.starts_with(b"\r\n") {
                Some(2)
            } else {
                rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
            };
            return (body, end.map(|end| all - rest.len() + end));
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            break;
        }
        rest = &rest[size + 2..];
    }
    (body, None)
}
