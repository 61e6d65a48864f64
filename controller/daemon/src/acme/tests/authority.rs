//! An authority that speaks ACME (RFC 8555) over plain HTTP on this machine. Signatures of requests are not looked at;
//! whether a name leads to who asks is, at the address a test gives.

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

#[derive(Default)]
struct Seen {
    accounts: usize,
    orders: Vec<Order>,
    /// Where names lead.
    reach: Option<SocketAddr>,
}

struct Order {
    host: String,
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
            .route("/challenge/{number}", post(challenge))
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

    /// Accounts, orders, and how often it was said that it may ask.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let seen = self.seen();
        (seen.accounts, seen.orders.len(), seen.orders.iter().map(|order| order.told).sum())
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
            "identifiers": [{"type": "dns", "value": seen.orders[number].host}],
            "authorizations": [url("authorization")],
            "finalize": url("finalize"),
            "certificate": url("certificate"),
        })
    }

    fn of_challenge(&self, number: usize) -> Value {
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
        let url = self.url(&format!("challenge/{number}"));
        json!({"type": "http-01", "url": url, "token": token(number), "status": status, "error": error})
    }
}

fn token(number: usize) -> String {
    format!("t0ken-{number}")
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
    Json(json!({"newNonce": us.url("nonce"), "newAccount": us.url("account"), "newOrder": us.url("orders")}))
}

async fn account(State(us): Us, body: axum::body::Bytes) -> Response {
    assert_eq!(payload(&body)["termsOfServiceAgreed"], true);
    us.seen().accounts += 1;
    answer(StatusCode::CREATED, &[us.url("account/1")], json!({"status": "valid"}))
}

async fn new_order(State(us): Us, body: axum::body::Bytes) -> Response {
    let asked = payload(&body);
    let host = asked["identifiers"][0]["value"].as_str().expect("a name").to_owned();
    assert_eq!(asked["identifiers"].as_array().map(Vec::len), Some(1), "one host each");
    let number = {
        let mut seen = us.seen();
        seen.orders.push(Order { host, status: "pending", told: 0, problem: None, chain: String::new() });
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
    let identifier = json!({"type": "dns", "value": host});
    let body = json!({"identifier": identifier, "status": status, "challenges": [us.of_challenge(number)]});
    answer(StatusCode::OK, &[], body)
}

/// Asks at once, so that whoever told it too early is found out.
async fn challenge(State(us): Us, Path(number): Path<usize>) -> Response {
    let (host, reach) = {
        let mut seen = us.seen();
        seen.orders[number].told += 1;
        (seen.orders[number].host.clone(), seen.reach)
    };
    let said = match reach {
        Some(address) => fetch(address, &host, &token(number)).await,
        None => "no address".to_owned(),
    };
    let is_right = said.strip_prefix(&token(number)).is_some_and(|rest| rest.starts_with('.') && rest.len() == 44);
    {
        let order = &mut us.seen().orders[number];
        order.status = if is_right { "ready" } else { "invalid" };
        order.problem = (!is_right).then(|| format!("{host} answered \"{said}\""));
    }
    // Who asks is not told here how it went, as real ones do not.
    let mut body = us.of_challenge(number);
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
