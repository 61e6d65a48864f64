//! An authority that speaks ACME (RFC 8555) over plain HTTP on this machine. Signatures of requests are not looked at;
//! whether a name leads to who asks is, at the address or in the way a test gives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) struct Authority {
    pub(super) address: SocketAddr,
    seen: Mutex<Seen>,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What is found for a kind of challenge and a host.
pub(super) type Look = Arc<dyn Fn(&str, &str) -> Vec<String> + Send + Sync>;

#[derive(Default)]
struct Seen {
    /// By public key, each account's number.
    accounts: BTreeMap<String, usize>,
    orders: Vec<Order>,
    /// Where names lead.
    reach: Option<SocketAddr>,
    look: Option<Look>,
    mood: Mood,
}

/// What an authority does beside what all do.
#[derive(Default)]
pub(super) struct Mood {
    /// Offered; HTTP-01 alone when there is none.
    pub(super) kinds: Vec<&'static str>,
    /// The next account is made, and its maker does not hear of it.
    pub(super) loses_account: bool,
    /// Accounts up to this number are deactivated.
    pub(super) closed: usize,
    pub(super) refuses_contact: bool,
    /// New orders are refused, and wanted after so many seconds.
    pub(super) busy_s: Option<u64>,
    /// When certificates are to be renewed.
    pub(super) window: Option<(&'static str, &'static str)>,
    /// What orders said that they replace.
    pub(super) replaced: Vec<String>,
    pub(super) token: Option<&'static str>,
}

struct Order {
    host: String,
    /// Of the account's key.
    thumb: String,
    replaces: Option<String>,
    status: &'static str,
    /// How often it was said that it may ask.
    told: usize,
    problem: Option<String>,
    chain: String,
}

impl Authority {
    pub(super) async fn start(tasks: &kit::Tasks, shutdown: &kit::Shutdown) -> Arc<Self> {
        let listener = kit::serve::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer");
        let address = listener.local_addr().expect("an address");
        let authority = Arc::new(Self { address, seen: Mutex::default(), issuer });
        let router = Router::new()
            .route("/directory", get(directory))
            .route("/nonce", get(async || answer(StatusCode::OK, &[], Value::Null)))
            .route("/account", post(account))
            .route("/orders", post(new_order))
            .route("/order/{number}", post(order))
            .route("/authorization/{number}", post(authorization))
            .route("/account/{number}", post(contact))
            .route("/renewal/{identifier}", get(renewal))
            .route("/challenge/{number}/{kind}", post(challenge))
            .route("/finalize/{number}", post(finalize))
            .route("/certificate/{number}", post(certificate))
            .with_state(Arc::clone(&authority));
        kit::serve::http(tasks, "authority", listener, router, shutdown).expect("it serves");
        authority
    }

    pub(super) fn directory(&self) -> String {
        format!("http://{}/directory", self.address)
    }

    pub(super) fn lead_to(&self, address: SocketAddr) {
        self.seen().reach = Some(address);
    }

    pub(super) fn look_with(&self, look: Look) {
        self.seen().look = Some(look);
    }

    pub(super) fn mood<T>(&self, change: impl FnOnce(&mut Mood) -> T) -> T {
        change(&mut self.seen().mood)
    }

    /// Accounts, orders, and how often it was said that it may ask.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let seen = self.seen();
        (seen.accounts.len(), seen.orders.len(), seen.orders.iter().map(|order| order.told).sum())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}/{rest}", self.address)
    }

    fn of_order(&self, number: usize) -> Value {
        let (seen, url) = (self.seen(), |what: &str| self.url(&format!("{what}/{number}")));
        json!({
            "status": seen.orders[number].status,
            "replaces": seen.orders[number].replaces,
            "identifiers": [{"type": "dns", "value": seen.orders[number].host}],
            "authorizations": [url("authorization")],
            "finalize": url("finalize"),
            "certificate": url("certificate"),
        })
    }

    fn of_challenge(&self, number: usize, kind: &str) -> Value {
        let seen = self.seen();
        let order = &seen.orders[number];
        let status = match order.status {
            "pending" if order.told > 0 => "processing",
            "pending" => "pending",
            "invalid" => "invalid",
            _ => "valid",
        };
        let problem = order.problem.as_ref();
        let error = problem.map(|detail| json!({"type": "urn:ietf:params:acme:error:unauthorized", "detail": detail}));
        let url = self.url(&format!("challenge/{number}/{kind}"));
        let token = seen.mood.token.map_or_else(|| token(number), str::to_owned);
        json!({"type": kind, "url": url, "token": token, "status": status, "error": error})
    }
}

fn token(number: usize) -> String {
    format!("t0ken-{number}")
}

fn header(body: &[u8]) -> Value {
    let envelope: Value = serde_json::from_slice(body).expect("an envelope");
    let header = BASE64_URL_SAFE_NO_PAD.decode(envelope["protected"].as_str().expect("a header")).expect("base64");
    serde_json::from_slice(&header).expect("JSON")
}

fn sha256(data: &[u8]) -> Vec<u8> {
    let hex = appbase_core::Digest::of(data).hex();
    (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex digits")).collect()
}

/// The thumbprint of a key (RFC 7638).
fn thumb(key: &Value) -> String {
    let own = format!(r#"{{"crv":{},"kty":{},"x":{},"y":{}}}"#, key["crv"], key["kty"], key["x"], key["y"]);
    BASE64_URL_SAFE_NO_PAD.encode(sha256(own.as_bytes()))
}

fn refused(kind: &str, detail: &str, retry_after: Option<u64>) -> Response {
    let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": 403});
    let mut response = answer(StatusCode::FORBIDDEN, &[], body);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("Retry-After", seconds.into());
    }
    response
}

/// What was asked, out of its signed envelope.
fn payload(body: &[u8]) -> Value {
    let envelope: Value = serde_json::from_slice(body).expect("an envelope");
    let payload = BASE64_URL_SAFE_NO_PAD.decode(envelope["payload"].as_str().expect("a payload")).expect("base64");
    if payload.is_empty() { Value::Null } else { serde_json::from_slice(&payload).expect("JSON") }
}

fn answer(status: StatusCode, location: &[String], body: Value) -> Response {
    let mut response = (status, [("Replay-Nonce", kit::random::hex::<8>())], Json(body)).into_response();
    for url in location {
        response.headers_mut().insert("Location", url.parse().expect("an address"));
    }
    response
}

type Us = State<Arc<Authority>>;

async fn directory(State(us): Us) -> Json<Value> {
    let renewal = us.seen().mood.window.map(|_| us.url("renewal"));
    Json(json!({"newNonce": us.url("nonce"), "newAccount": us.url("account"), "newOrder": us.url("orders"),
        "renewalInfo": renewal}))
}

async fn renewal(State(us): Us, Path(identifier): Path<String>) -> Response {
    assert_eq!(identifier.split('.').count(), 2, "{identifier}");
    let (start, end) = us.seen().mood.window.expect("it is offered");
    let mut response = Json(json!({"suggestedWindow": {"start": start, "end": end}})).into_response();
    response.headers_mut().insert("Retry-After", 21_600.into());
    response
}

/// Of an account: what it may be written to.
async fn contact(State(us): Us, Path(number): Path<usize>) -> Response {
    let seen = us.seen();
    if number <= seen.mood.closed {
        return refused("unauthorized", "the account is deactivated", None);
    }
    if seen.mood.refuses_contact {
        return refused("invalidContact", "no mail gets there", None);
    }
    answer(StatusCode::OK, &[], json!({"status": "valid"}))
}

async fn account(State(us): Us, body: axum::body::Bytes) -> Response {
    assert_eq!(payload(&body)["termsOfServiceAgreed"], true);
    let mut seen = us.seen();
    let next = seen.accounts.len() + 1;
    let number = *seen.accounts.entry(thumb(&header(&body)["jwk"])).or_insert(next);
    if std::mem::take(&mut seen.mood.loses_account) {
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"detail": "it broke off", "status": 500})))
            .into_response();
    }
    drop(seen);
    answer(StatusCode::CREATED, &[us.url(&format!("account/{number}"))], json!({"status": "valid"}))
}

async fn new_order(State(us): Us, body: axum::body::Bytes) -> Response {
    let asked = payload(&body);
    let host = asked["identifiers"][0]["value"].as_str().expect("a name").to_owned();
    assert_eq!(asked["identifiers"].as_array().map(Vec::len), Some(1), "one host each");
    let replaces = asked["replaces"].as_str().map(str::to_owned);
    let account = header(&body)["kid"].as_str().and_then(|kid| kid.rsplit('/').next()?.parse::<usize>().ok());
    let account = account.expect("an account");
    let number = {
        let mut seen = us.seen();
        if account <= seen.mood.closed {
            return refused("unauthorized", "the account is deactivated", None);
        }
        if let Some(seconds) = seen.mood.busy_s {
            return refused("rateLimited", "too many orders", Some(seconds));
        }
        seen.mood.replaced.extend(replaces.clone());
        let thumb = seen.accounts.iter().find(|(_, number)| **number == account).expect("it is known").0.clone();
        let (status, problem, chain) = ("pending", None, String::new());
        seen.orders.push(Order { host, thumb, replaces, status, told: 0, problem, chain });
        seen.orders.len() - 1
    };
    answer(StatusCode::CREATED, &[us.url(&format!("order/{number}"))], us.of_order(number))
}

async fn order(State(us): Us, Path(number): Path<usize>) -> Response {
    answer(StatusCode::OK, &[], us.of_order(number))
}

async fn authorization(State(us): Us, Path(number): Path<usize>) -> Response {
    let (host, status) = {
        let seen = us.seen();
        let status = match seen.orders[number].status {
            "pending" => "pending",
            "invalid" => "invalid",
            _ => "valid",
        };
        (seen.orders[number].host.clone(), status)
    };
    let identifier = json!({"type": "dns", "value": host.strip_prefix("*.").unwrap_or(&host)});
    let kinds = us.mood(|mood| if mood.kinds.is_empty() { vec!["http-01"] } else { mood.kinds.clone() });
    let challenges: Vec<Value> = kinds.iter().map(|kind| us.of_challenge(number, kind)).collect();
    let wildcard = host.starts_with("*.");
    let body = json!({"identifier": identifier, "status": status, "challenges": challenges, "wildcard": wildcard});
    answer(StatusCode::OK, &[], body)
}

/// Asks at once, so that whoever told it too early is found out.
async fn challenge(State(us): Us, Path((number, kind)): Path<(usize, String)>) -> Response {
    let (host, reach, look, expect) = {
        let mut seen = us.seen();
        seen.orders[number].told += 1;
        let expect = format!("{}.{}", token(number), seen.orders[number].thumb);
        (seen.orders[number].host.clone(), seen.reach, seen.look.clone(), expect)
    };
    let (said, expect) = match (kind.as_str(), reach, look) {
        ("http-01", Some(address), _) => (fetch(address, &host, &token(number)).await, expect),
        (kind, _, Some(look)) => {
            let expect = BASE64_URL_SAFE_NO_PAD.encode(sha256(expect.as_bytes()));
            let found = look(kind, &host);
            (found.iter().find(|one| **one == expect).cloned().unwrap_or_else(|| found.join(" ")), expect)
        }
        _ => ("no address".to_owned(), expect),
    };
    let is_right = said == expect;
    {
        let order = &mut us.seen().orders[number];
        order.status = if is_right { "ready" } else { "invalid" };
        order.problem = (!is_right).then(|| format!("{host} answered \"{said}\""));
    }
    // Who asks is not told here how it went, as real ones do not.
    let mut body = us.of_challenge(number, &kind);
    body["error"] = Value::Null;
    answer(StatusCode::OK, &[], body)
}

async fn fetch(address: SocketAddr, host: &str, token: &str) -> String {
    let path = format!("/.well-known/acme-challenge/{token}");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

async fn finalize(State(us): Us, Path(number): Path<usize>, body: axum::body::Bytes) -> Response {
    let csr = BASE64_URL_SAFE_NO_PAD.decode(payload(&body)["csr"].as_str().expect("a request")).expect("base64");
    let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).expect("a request that is signed");
    let now = std::time::Duration::from_millis(kit::Clock::start().unix_ms());
    csr.params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now - std::time::Duration::from_secs(3_600);
    csr.params.use_authority_key_identifier_extension = true;
    csr.params.not_after = csr.params.not_before + std::time::Duration::from_secs(90 * 86_400);
    let made = csr.signed_by(&us.issuer).expect("signed").pem();
    {
        let order = &mut us.seen().orders[number];
        assert_eq!(order.status, "ready");
        (order.status, order.chain) = ("valid", format!("{made}{}", us.issuer.pem()));
    }
    answer(StatusCode::OK, &[], us.of_order(number))
}

async fn certificate(State(us): Us, Path(number): Path<usize>) -> Response {
    let chain = us.seen().orders[number].chain.clone();
    let mut response = chain.into_response();
    response.headers_mut().insert("Replay-Nonce", kit::random::hex::<8>().parse().expect("a line"));
    response
}
