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
    cut: AtomicU64,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    pub good: u64,
    pub posts: u64,
    pub failed: u64,
    /// Of those, without any answer: nobody listened, or the connection broke.
    pub cut: u64,
    /// The first reasons.
    pub reasons: Vec<String>,
}

/// Why a request failed.
enum Failure {
    /// No whole answer.
    Cut(String),
    /// Another answer than it should be.
    Wrong(String),
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
        Self::start_on(&[lb], app)
    }

    /// One client of each kind on every second lb.
    pub fn start_on(lbs: &[SocketAddr], app: &str) -> Self {
        Self::of([Kind::KeepAlive, Kind::NewConnection, Kind::Slow, Kind::Post], lbs, app)
    }

    /// Only requests that may be sent again.
    pub fn start_gets(lb: SocketAddr, app: &str) -> Self {
        Self::of([Kind::KeepAlive, Kind::NewConnection, Kind::Slow, Kind::NewConnection], &[lb], app)
    }

    fn of(kinds: [Kind; 4], lbs: &[SocketAddr], app: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = Arc::new(Counted::default());
        let tasks = kit::Tasks::new();
        let guard = runtime.enter();
        let clients = (0..8_usize)
            .map(|number| {
                let client = Client {
                    kind: kinds[number % 4],
                    number,
                    base: format!("http://{}", lbs[number / 4 % lbs.len()]),
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

    /// So far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
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
            cut: self.shared.cut.load(Ordering::Relaxed),
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

    /// Who could not connect knows it; nobody got a wrong answer.
    pub fn assert_only_cut(&self) {
        assert!(self.good > 50, "too few requests to say anything: {self:?}");
        assert_eq!(self.failed, self.cut, "wrong answers: {self:?}");
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
                Err(failure) => self.failed(failure),
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    fn failed(&self, failure: Failure) {
        let reason = match failure {
            Failure::Cut(reason) => {
                self.shared.cut.fetch_add(1, Ordering::Relaxed);
                reason
            }
            Failure::Wrong(reason) => reason,
        };
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.shared.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.len() < REASONS_MAX {
            reasons.push(format!("at {} {reason}", kit::Clock::start().unix_ms()));
        }
    }

    async fn get(&self, client: &reqwest::Client, path: &str) -> Result<(), Failure> {
        let request = client.get(format!("{}{path}", self.base)).header("host", &self.host);
        let cut = |error: reqwest::Error| Failure::Cut(format!("GET {path}: {}", kit::problem::chain(&error)));
        let answer = request.send().await.map_err(cut)?;
        let status = answer.status();
        let body = answer.text().await.map_err(cut)?;
        if status.is_success() { Ok(()) } else { Err(Failure::Wrong(format!("GET {path}: {status} {body}"))) }
    }

    /// A key of its own each time: an answer other than 1 means that it was carried out twice.
    async fn post(&self, client: &reqwest::Client, count: u64) -> Result<(), Failure> {
        let path = format!("/count/client-{}-{count}", self.number);
        let request = client.post(format!("{}{path}", self.base)).header("host", &self.host).body(vec![b'x'; 4096]);
        let cut = |error: reqwest::Error| Failure::Cut(format!("POST {path}: {}", kit::problem::chain(&error)));
        let answer = request.send().await.map_err(cut)?;
        let status = answer.status();
        let body = answer.text().await.map_err(cut)?;
        let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let times = value["count"].as_u64().or_else(|| value.as_u64());
        if !status.is_success() || times != Some(1) {
            return Err(Failure::Wrong(format!("POST {path}: {status} {body}")));
        }
        self.shared.posts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
