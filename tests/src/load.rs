//! Load: clients of every kind that count what they asked and what they got.
//!
//! Keep-alive and new connections, slow answers, POST bodies with a key of their own each. Every request has a time
//! limit; anything but its proper answer is a failure with its reason.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// No answer takes longer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Failures kept with their reason.
const REASONS_MAX: usize = 20;

/// Running clients.
pub struct Load {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Counted>,
    clients: Vec<tokio::task::JoinHandle<Option<()>>>,
}

#[derive(Default)]
struct Counted {
    stop: AtomicBool,
    good: AtomicU64,
    posts: AtomicU64,
    bad: Mutex<Vec<String>>,
    failed: AtomicU64,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    pub good: u64,
    pub posts: u64,
    pub failed: u64,
    /// The first reasons.
    pub reasons: Vec<String>,
}

#[derive(Clone, Copy)]
enum Kind {
    KeepAlive,
    NewConnection,
    Slow,
    Post,
}

impl Load {
    /// Two clients of each kind, until stopped.
    pub fn start(lb: SocketAddr, app: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = Arc::new(Counted::default());
        let tasks = kit::Tasks::new();
        let guard = runtime.enter();
        let kinds = [Kind::KeepAlive, Kind::NewConnection, Kind::Slow, Kind::Post];
        let clients = (0..8_usize)
            .map(|number| {
                let client = Client {
                    kind: kinds[number % 4],
                    number,
                    base: format!("http://{lb}"),
                    host: format!("{app}.test"),
                    shared: Arc::clone(&shared),
                };
                tasks.spawn("client", client.run())
            })
            .collect();
        drop(guard);
        Self { runtime, shared, clients }
    }

    pub fn good(&self) -> u64 {
        self.shared.good.load(Ordering::Relaxed)
    }

    /// Lets every request under way end, then counts.
    pub fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            for client in self.clients {
                client.await.expect("a client does not panic");
            }
        });
        Tally {
            good: self.shared.good.load(Ordering::Relaxed),
            posts: self.shared.posts.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            reasons: self.shared.bad.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Tally {
    /// The promise: something was asked, and nothing failed.
    pub fn assert_nothing_failed(&self) {
        assert!(self.good > 50, "too few requests to say anything: {self:?}");
        assert_eq!(self.failed, 0, "requests failed: {self:?}");
    }
}

struct Client {
    kind: Kind,
    number: usize,
    base: String,
    host: String,
    shared: Arc<Counted>,
}

impl Client {
    async fn run(self) {
        let client = |idle: usize| {
            let builder = reqwest::Client::builder().timeout(ANSWER_MAX).pool_max_idle_per_host(idle).no_proxy();
            builder.build().expect("a client without TLS")
        };
        let kept = client(1);
        let mut count = 0_u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            count += 1;
            let outcome = match self.kind {
                Kind::KeepAlive => self.get(&kept, "/greeting").await,
                Kind::NewConnection => self.get(&client(0), "/greeting").await,
                Kind::Slow => self.get(&kept, "/slow?ms=150").await,
                Kind::Post => self.post(&kept, count).await,
            };
            match outcome {
                Ok(()) => {
                    self.shared.good.fetch_add(1, Ordering::Relaxed);
                }
                Err(reason) => self.failed(reason),
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    fn failed(&self, reason: String) {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.shared.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.len() < REASONS_MAX {
            reasons.push(reason);
        }
    }

    async fn get(&self, client: &reqwest::Client, path: &str) -> Result<(), String> {
        let request = client.get(format!("{}{path}", self.base)).header("host", &self.host);
        let answer = request.send().await.map_err(|error| format!("GET {path}: {}", kit::problem::chain(&error)))?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| format!("GET {path}: {}", kit::problem::chain(&error)))?;
        if status.is_success() { Ok(()) } else { Err(format!("GET {path}: {status} {body}")) }
    }

    /// A key of its own each time: an answer other than 1 means that it was carried out twice.
    async fn post(&self, client: &reqwest::Client, count: u64) -> Result<(), String> {
        let path = format!("/count/client-{}-{count}", self.number);
        let request = client.post(format!("{}{path}", self.base)).header("host", &self.host).body(vec![b'x'; 4096]);
        let answer = request.send().await.map_err(|error| format!("POST {path}: {}", kit::problem::chain(&error)))?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| format!("POST {path}: {}", kit::problem::chain(&error)))?;
        let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let times = value["count"].as_u64().or_else(|| value.as_u64());
        if !status.is_success() || times != Some(1) {
            return Err(format!("POST {path}: {status} {body}"));
        }
        self.shared.posts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
