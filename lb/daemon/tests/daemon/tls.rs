//! TLS: certificates by name, replaced while others shake hands, and what lb says of a connection that has it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::{Certificate, HttpsPolicy, PrivateKey, Route};
use appbase_core::{AppName, Prefix, ProcessName};
use axum::http::{Method, StatusCode};
use lb::{Config, Limits};
use lb_core::v1::RouteSection;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::app::App;
use crate::client::{Client, raw, request};
use crate::stage::{Active, Stage, config, eventually, section};

/// Whom the clients of a test trust.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn certificate(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        Certificate {
            names: names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(),
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: PrivateKey(key.serialize_pem()),
        }
    }

    /// A client that trusts it, and shows a certificate of its own where it has one.
    pub(crate) fn client(&self, protocols: &[&str], own: Option<&Certificate>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.chain.as_bytes()).map(Result::unwrap).collect();
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.0.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

pub(crate) async fn shake(
    config: Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
}

/// lb with TLS, and two apps that have a host each.
pub(crate) struct Secured {
    pub(crate) stage: Stage,
    pub(crate) https: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) apps: [Arc<App>; 2],
}

impl Secured {
    pub(crate) async fn start() -> Self {
        Self::start_as(Config::clone(&config())).await
    }

    async fn start_as(config: Config) -> Self {
        let stage = Stage::start_as(Config { https: Some("127.0.0.1:0".parse().unwrap()), ..config }).await;
        let apps = [stage.app("one").await, stage.app("two").await];
        let https = stage.lb.https.unwrap();
        let secured = Self { stage, https, authority: Authority::new(), apps };
        secured.publish(|_| {}).await;
        for app in &secured.apps {
            secured.stage.up(app.name).await;
        }
        secured
    }

    /// The sections of both, with a certificate each, and then changed.
    pub(crate) fn sections(&self, change: impl FnOnce(&mut [RouteSection; 2])) -> [RouteSection; 2] {
        let of = |app: &Arc<App>| {
            let mut own = section(&[(app, Active)]);
            own.app = AppName::parse(app.name).unwrap();
            let host = format!("{}.example", app.name);
            own.routes = vec![Route::new(Some(host.clone()), "/", ProcessName::default_name())];
            own.tls.certificates = vec![self.authority.certificate(&[&host])];
            own
        };
        let mut sections = [of(&self.apps[0]), of(&self.apps[1])];
        change(&mut sections);
        sections
    }

    pub(crate) async fn publish(&self, change: impl FnOnce(&mut [RouteSection; 2])) {
        self.stage.controller.publish(&self.sections(change)).await;
    }

    pub(crate) async fn client(&self, name: &str, protocols: &[&str]) -> Client {
        let stream = shake(self.authority.client(protocols, None), self.https, name).await.unwrap();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        assert_eq!(is_http2, protocols.contains(&"h2"));
        Client::over(stream, is_http2, &self.stage.tasks).await.unwrap()
    }

    /// What the handshake ends with, when it fails.
    async fn refusal(&self, name: &str) -> String {
        let stream = shake(self.authority.client(&[], None), self.https, name).await;
        stream.map(drop).expect_err("a refusal")
    }
}

fn get(host: &str, path: &str) -> axum::http::Request<http_body_util::Full<axum::body::Bytes>> {
    let mut request = request(Method::GET, path, "");
    request.headers_mut().insert("host", host.parse().unwrap());
    request
}

#[tokio::test]
async fn each_name_has_its_certificate_and_a_name_without_one_has_no_connection() {
    let secured = Secured::start().await;
    for name in ["one", "two"] {
        let host = format!("{name}.example");
        let mut client = secured.client(&host, &["http/1.1"]).await;
        for _ in 0..2 {
            assert_eq!(client.send(get(&host, "/")).await.unwrap().body, name);
        }
    }
    assert!(secured.refusal("three.example").await.contains("alert"));
    assert!(secured.refusal("127.0.0.1").await.contains("alert"), "an address is no name");
    let nonsense = raw(secured.https, b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n").await;
    assert!(!nonsense.contains("HTTP/1.1"), "{nonsense:?}");
    eventually("failures are counted", async || {
        let metrics = secured.stage.admin("/metrics").await.1;
        let counts =
            |word: &str| metrics.contains(&format!("platform_lb_handshakes_failed_total{{reason=\"{word}\"}} 1\n"));
        counts("unknown-name") && counts("no-name") && counts("refused")
    })
    .await;
}

#[tokio::test]
async fn an_exact_name_goes_before_a_wildcard_which_is_for_one_label_more() {
    let secured = Secured::start().await;
    let exact = secured.authority.certificate(&["a.shop.example"]);
    let wildcard = secured.authority.certificate(&["*.shop.example"]);
    secured
        .publish(|[one, two]| {
            two.routes.push(Route::new(Some("*.shop.example".to_owned()), "/", ProcessName::default_name()));
            two.tls.certificates = vec![wildcard.clone()];
            one.tls.certificates = vec![exact];
        })
        .await;
    let serial_of = async |name: &str| {
        let stream = shake(secured.authority.client(&[], None), secured.https, name).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let shown = CertificateDer::from_pem_slice(wildcard.chain.as_bytes()).unwrap();
    assert_ne!(serial_of("a.shop.example").await, shown);
    assert_eq!(serial_of("b.shop.example").await, shown);
    assert!(secured.refusal("c.b.shop.example").await.contains("alert"));
    assert!(secured.refusal("shop.example").await.contains("alert"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_handshakes_and_none_fails() {
    let secured = Secured::start().await;
    let config = secured.authority.client(&[], None);
    let swaps = async {
        for _ in 0..100 {
            secured.publish(|_| {}).await;
        }
    };
    let mut shaken = 0;
    let handshakes = async {
        loop {
            let mut stream = shake(Arc::clone(&config), secured.https, "one.example").await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            shaken += 1;
        }
    };
    tokio::select! { () = swaps => {} () = handshakes => {} }
    assert!(shaken > 20, "{shaken}");
}

#[tokio::test]
async fn bodies_pass_whole_and_the_app_learns_of_the_scheme() {
    let secured = Secured::start().await;
    secured.publish(|[one, _]| one.tls.policy.hsts_seconds = 86_400).await;
    for protocol in ["http/1.1", "h2"] {
        let mut client = secured.client("one.example", &[protocol]).await;
        let answer = client.send(get("one.example", "/headers")).await.unwrap();
        assert!(answer.body.contains("x-forwarded-proto: https\n"), "{protocol}: {answer:?}");
        assert_eq!(answer.headers["strict-transport-security"], "max-age=86400");
        let body: String = (0..200_000).map(|number| format!("{number} ")).collect();
        let mut post = request(Method::POST, "/echo", &body);
        post.headers_mut().insert("host", "one.example".parse().unwrap());
        let echo = client.send(post).await.unwrap();
        assert_eq!((echo.status, echo.body == body), (StatusCode::OK, true), "{protocol}");
    }
    let plain = secured.stage.client().await.send(get("one.example", "/headers")).await.unwrap();
    assert!(
        plain.body.contains("x-forwarded-proto: http\n") && !plain.headers.contains_key("strict-transport-security")
    );
}

#[tokio::test]
async fn an_app_may_send_everybody_to_https() {
    let secured = Secured::start_as(Config { https_public_port: Some(443), ..config() }).await;
    let redirect = HttpsPolicy { redirect: true, hsts_seconds: 0 };
    secured.publish(|[one, _]| one.tls.policy = redirect).await;
    let mut plain = secured.stage.client().await;
    let answer = plain.send(get("one.example:8080", "/b?c=d")).await.unwrap();
    assert_eq!(
        (answer.status, &answer.headers["location"]),
        (StatusCode::PERMANENT_REDIRECT, &"https://one.example/b?c=d".parse().unwrap())
    );
    assert_eq!(plain.send(get("two.example", "/")).await.unwrap().body, "two", "only who asks for it");
    assert_eq!(secured.client("one.example", &[]).await.send(get("one.example", "/")).await.unwrap().body, "one");
}

#[tokio::test]
async fn a_connection_is_for_the_hosts_of_its_certificate() {
    let secured = Secured::start().await;
    let both = secured.authority.certificate(&["one.example", "www.one.example"]);
    secured
        .publish(|[one, _]| {
            one.routes.push(Route::new(Some("www.one.example".to_owned()), "/", ProcessName::default_name()));
            one.tls.certificates = vec![both];
        })
        .await;
    for protocol in ["http/1.1", "h2"] {
        let mut client = secured.client("one.example", &[protocol]).await;
        assert_eq!(client.send(get("www.one.example", "/")).await.unwrap().body, "one");
        let answer = client.send(get("two.example", "/")).await.unwrap();
        assert_eq!((answer.status, answer.code()), (StatusCode::MISDIRECTED_REQUEST, "misdirected"));
        assert_eq!(client.send(get("one.example", "/")).await.unwrap().body, "one", "the connection goes on");
    }
    assert_eq!(secured.apps[1].hits(), 0);
}

#[tokio::test]
async fn an_app_may_ask_its_clients_for_certificates() {
    let secured = Secured::start().await;
    let early = secured.client("one.example", &["http/1.1"]).await;
    let pem = secured.authority.pem();
    secured.publish(|[one, _]| one.tls.client_authorities = Some(pem)).await;
    let own = secured.authority.certificate(&["alice.example"]);
    let stream = shake(secured.authority.client(&[], Some(&own)), secured.https, "one.example").await.unwrap();
    let mut known = Client::over(stream, false, &secured.stage.tasks).await.unwrap();
    let mut asks = get("one.example", "/headers");
    asks.headers_mut().insert("client-cert", ":bGll:".parse().unwrap());
    let told = known.send(asks).await.unwrap().body;
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("client-cert: ")).collect();
    assert!(lines.len() == 1 && lines[0].len() > 400 && lines[0].ends_with(":"), "{told}");

    // A stranger's handshake ends before it gets an answer, in TLS 1.3 after the client's part of it.
    let stranger = async |own: Option<&Certificate>| -> std::io::Result<String> {
        let config = secured.authority.client(&[], own);
        let stream = TcpStream::connect(secured.https).await.unwrap();
        let name = ServerName::try_from("one.example").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, stream).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    assert!(stranger(None).await.is_err());
    let other = Authority::new().certificate(&["mallory.example"]);
    assert!(stranger(Some(&other)).await.is_err());
    assert_eq!(secured.apps[0].hits(), 1);

    for (mut client, status, code) in [
        (early, StatusCode::MISDIRECTED_REQUEST, "misdirected"),
        (secured.stage.client().await, StatusCode::FORBIDDEN, "client-certificate"),
        (secured.client("two.example", &["http/1.1"]).await, StatusCode::MISDIRECTED_REQUEST, "misdirected"),
    ] {
        let answer = client.send(get("one.example", "/")).await.unwrap();
        assert_eq!((answer.status, answer.code()), (status, code));
    }
}

#[tokio::test]
async fn one_certificate_of_two_apps_is_shown_as_each_of_them_asks() {
    let secured = Secured::start().await;
    let both = secured.authority.certificate(&["one.example", "two.example"]);
    let pem = secured.authority.pem();
    secured
        .publish(|sections| {
            for section in sections.iter_mut() {
                section.tls.certificates = vec![both.clone()];
            }
            sections[1].tls.client_authorities = Some(pem);
        })
        .await;
    let mut open = secured.client("one.example", &["http/1.1"]).await;
    assert_eq!(open.send(get("one.example", "/")).await.unwrap().body, "one");
    assert_eq!(said_code(&open.send(get("two.example", "/")).await.unwrap()), (421, "misdirected"));
    let own = secured.authority.certificate(&["alice.example"]);
    let stream = shake(secured.authority.client(&[], Some(&own)), secured.https, "two.example").await.unwrap();
    let mut known = Client::over(stream, false, &secured.stage.tasks).await.unwrap();
    assert_eq!(known.send(get("two.example", "/")).await.unwrap().body, "two");
}

fn said_code(answer: &crate::client::Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

#[tokio::test]
async fn a_table_with_a_certificate_that_cannot_be_used_changes_nothing() {
    let secured = Secured::start().await;
    let other = secured.authority.certificate(&["one.example"]);
    let mut wrong = secured.sections(|_| {});
    wrong[0].tls.certificates[0].key = other.key.clone();
    secured.stage.controller.offer(&wrong);
    let status = secured.stage.controller.until("a refusal", |status| status.refused.is_some()).await;
    let reason = status.refused.unwrap().reason;
    assert!(
        reason.contains("certificate for one.example of production/one") && !reason.contains("PRIVATE"),
        "{reason}"
    );
    wrong[0].tls.certificates[0].key = PrivateKey("secret words".to_owned());
    let earlier = reason;
    secured.stage.controller.offer(&wrong);
    let other = |status: &appbase_core::v1::MemberStatus| {
        status.refused.as_ref().is_some_and(|refused| refused.reason != earlier)
    };
    let reason = secured.stage.controller.until("another refusal", other).await.refused.unwrap().reason;
    assert!(reason.contains("its key is not PEM") && !reason.contains("secret words"), "{reason}");
    let mut client = secured.client("one.example", &["http/1.1"]).await;
    assert_eq!(client.send(get("one.example", "/")).await.unwrap().body, "one");
}

#[tokio::test]
async fn who_never_ends_a_handshake_is_let_go() {
    let limits = Limits { head: Duration::from_millis(200), ..Limits::default() };
    let secured = Secured::start_as(Config { limits, ..config() }).await;
    assert_eq!(raw(secured.https, b"\x16\x03\x01\x02\0").await, "");
    eventually("it is counted", async || {
        let metrics = secured.stage.admin("/metrics").await.1;
        metrics.contains("platform_lb_handshakes_failed_total{reason=\"late\"} 1\n")
    })
    .await;
}

#[tokio::test]
async fn a_proxy_names_the_client_before_the_handshake() {
    let secured = Secured::start_as(Config { proxies: vec![Prefix::parse("127.0.0.0/8").unwrap()], ..config() }).await;
    let mut stream = TcpStream::connect(secured.https).await.unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 5 443\r\n").await.unwrap();
    let connector = TlsConnector::from(secured.authority.client(&[], None));
    let stream = connector.connect(ServerName::try_from("one.example").unwrap(), stream).await.unwrap();
    let mut client = Client::over(stream, false, &secured.stage.tasks).await.unwrap();
    let answer = client.send(get("one.example", "/headers")).await.unwrap();
    assert!(answer.body.contains("x-forwarded-for: 192.0.2.7\n"), "{answer:?}");
}
