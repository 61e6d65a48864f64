//! An app that keeps every byte it gets, and says what it is told to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use kit::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use lb::Config;

use crate::stage::{Active, Stage, config, section_of};

/// The end of every body that a test sends.
pub(crate) const END: &str = "END";

pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    /// What came on each connection since the last look, probes left out.
    connections: Mutex<BTreeMap<u16, Vec<u8>>>,
    answer: Mutex<Vec<u8>>,
}

impl Recorder {
    /// Behind an lb that finds it up.
    pub(crate) async fn stage() -> (Stage, Arc<Self>) {
        Self::stage_as(config()).await
    }

    pub(crate) async fn stage_as(config: Config) -> (Stage, Arc<Self>) {
        let stage = Stage::start_as(config).await;
        let recorder = Self::start(&stage.tasks).await;
        stage.controller.publish(&[section_of(&[("recorder", recorder.address, Active)])]).await;
        stage.up("recorder").await;
        (stage, recorder)
    }

    async fn start(tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Mutex::new(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
        let recorder = Arc::new(Self { address, connections: Mutex::default(), answer });
        let (serving, inner) = (Arc::clone(&recorder), tasks.clone());
        tasks.spawn("recorder", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let recorder = Arc::clone(&serving);
                inner.spawn("recorder-connection", async move { recorder.talk(stream).await });
            }
        });
        recorder
    }

    /// From now on it says this to each request, and closes the connection when the text ends with `<close>`.
    pub(crate) fn say(&self, answer: &str) {
        self.say_bytes(answer.as_bytes());
    }

    pub(crate) fn say_bytes(&self, answer: &[u8]) {
        *self.answer.lock().unwrap() = answer.to_vec();
    }

    /// What came since the last look: all connections' bytes.
    pub(crate) fn take(&self) -> String {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    async fn talk(&self, mut stream: TcpStream) {
        let number = stream.peer_addr().unwrap().port();
        let mut bytes = Vec::new();
        loop {
            let mut piece = [0; 64 << 10];
            let Ok(read @ 1..) = stream.read(&mut piece).await else { return };
            bytes.extend_from_slice(&piece[..read]);
            if bytes.starts_with(b"GET /health") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
                return;
            }
            self.connections.lock().unwrap().entry(number).or_default().extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let has_body =
                ["\r\ncontent-length:", "\r\ntransfer-encoding:"].iter().any(|name| text.to_lowercase().contains(name));
            let is_whole = if has_body { text.contains(END) } else { text.ends_with("\r\n\r\n") };
            if is_whole {
                bytes.clear();
                let answer = self.answer.lock().unwrap().clone();
                let last = answer.strip_suffix(b"<close>");
                if stream.write_all(last.unwrap_or(&answer)).await.is_err() || last.is_some() {
                    return;
                }
            }
        }
    }
}
