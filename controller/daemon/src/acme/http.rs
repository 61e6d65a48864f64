//! How the authority is asked: HTTP/1.1 over TLS, a connection for each request, no redirects, everything with a limit.
//!
//! Plain HTTP is for an authority on this machine alone. An authority of the world names addresses of the world: what it
//! leads to in a private network, or on this machine, is not asked. Refuses to know what is asked.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{HOST, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One request with its answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The largest answer is a chain.
const ANSWER_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{0} is no address of an authority: give https://HOST/PATH")]
    Address(Uri),
    #[error("no connection to {0}")]
    Connect(String, #[source] io::Error),
    #[error("the authority leads to {0}, which is in a private network, and it is not there itself")]
    Private(String),
    #[error("TLS to {0}")]
    Tls(String, #[source] io::Error),
    #[error("{0} is no name of a server")]
    Name(String, #[source] InvalidDnsNameError),
    #[error("no answer")]
    Hyper(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Body(String),
    #[error("no answer in {} s", LIMIT.as_secs())]
    Late,
}

tokio::task_local! {
    /// How many seconds the authority asked to wait, in its last answer to this task.
    static ASKED: Cell<Option<u64>>;
}

/// What comes of a piece of work with the authority, and how long it asked to wait in its last answer.
pub(super) async fn listening<T>(work: impl Future<Output = T>) -> (T, Option<u64>) {
    let scoped = ASKED.scope(Cell::new(None), async {
        let done = work.await;
        (done, ASKED.with(Cell::get))
    });
    scoped.await
}

/// Whom the authority's own server is trusted by.
#[derive(Clone)]
pub(crate) struct Https {
    tls: TlsConnector,
    /// The host of its directory.
    home: Option<String>,
    /// Its directory was found on this machine or in a private network.
    is_near: Arc<AtomicBool>,
}

/// Where a request goes.
struct Place {
    host: String,
    port: u16,
    is_tls: bool,
}

impl Place {
    fn of(uri: &Uri) -> Option<Self> {
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_here = || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let (is_tls, port) = match uri.scheme_str()? {
            "https" => (true, 443),
            "http" if is_here() => (false, 80),
            _ => return None,
        };
        Some(Self { port: uri.port_u16().unwrap_or(port), host, is_tls })
    }
}

/// Whether an authority can have this address.
pub(crate) fn check(directory: &str) -> Result<(), String> {
    let uri = directory.parse::<Uri>().map_err(|error| error.to_string())?;
    Place::of(&uri).map(|_| ()).ok_or_else(|| HttpError::Address(uri).to_string())
}

impl Https {
    /// Trusts the roots of the world, and these, in PEM.
    pub(crate) fn new(more: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = more {
            let count = roots.len();
            for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let der = der.map_err(|error| error.to_string())?;
                roots.add(der).map_err(|error| error.to_string())?;
            }
            if roots.len() == count {
                return Err("there is no -----BEGIN CERTIFICATE----- in it".to_owned());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), home: None, is_near: Arc::default() })
    }

    /// For the authority with this directory.
    pub(crate) fn of(self, directory: &str) -> Self {
        let home = directory.parse::<Uri>().ok().and_then(|uri| Some(Place::of(&uri)?.host));
        Self { home, ..self }
    }

    /// Where a host is, as far as it may be asked.
    async fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>, HttpError> {
        let name = &place.host;
        let found = tokio::net::lookup_host((name.as_str(), place.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|error| HttpError::Connect(name.clone(), error))?.collect();
        if self.home.as_ref() == Some(name) {
            // Who gave this name wants it asked, wherever it is.
            self.is_near.store(found.iter().any(|address| is_private(address.ip())), Ordering::Relaxed);
            return Ok(found);
        }
        let is_near = self.is_near.load(Ordering::Relaxed);
        let allowed: Vec<SocketAddr> =
            found.into_iter().filter(|address| is_near || !is_private(address.ip())).collect();
        if allowed.is_empty() { Err(HttpError::Private(name.clone())) } else { Ok(allowed) }
    }

    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, HttpError> {
        let Some(place) = Place::of(request.uri()) else { return Err(HttpError::Address(request.uri().clone())) };
        let name = &place.host;
        let stream = TcpStream::connect(self.addresses(&place).await?.as_slice()).await;
        let stream = stream.map_err(|error| HttpError::Connect(name.clone(), error))?;
        if !place.is_tls {
            return exchange(stream, request).await;
        }
        let server = ServerName::try_from(name.clone()).map_err(|error| HttpError::Name(name.clone(), error))?;
        let stream = self.tls.connect(server, stream).await.map_err(|error| HttpError::Tls(name.clone(), error))?;
        exchange(stream, request).await
    }
}

/// Addresses that mean another machine, or none, to whoever is elsewhere.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || first == 0 || v4.is_broadcast() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3) in seconds. A date is not taken: what is sent are seconds.
fn asked(answer: &Response<Full<Bytes>>) -> Option<u64> {
    answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// One request on a connection of its own, which ends with it.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Full<Bytes>>, HttpError> {
    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let host = host.ok_or_else(|| HttpError::Address(request.uri().clone()))?;
    request.headers_mut().insert(HOST, host);
    *request.uri_mut() = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")).into();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = pin!(async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| HttpError::Body(error.to_string()))?.to_bytes();
        Ok::<_, HttpError>(Response::from_parts(head, Full::new(body)))
    });
    match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // It says nothing: what it brought may be there all the same.
        Either::Right((_, answer)) => answer.await,
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.clone();
        Box::pin(async move {
            let answer = tokio::time::timeout(LIMIT, http.ask(request)).await.unwrap_or(Err(HttpError::Late));
            // Nobody listens where nothing is tried again.
            let _ = ASKED.try_with(|last| last.set(answer.as_ref().ok().and_then(asked)));
            answer.map(BytesResponse::from).map_err(|error| Error::Other(Box::new(error)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_asked_over_tls_or_on_this_machine() {
        for (address, fits) in [
            ("https://acme.example/directory", true),
            ("https://acme.example:14000/dir", true),
            ("http://127.0.0.1:4000/directory", true),
            ("http://[::1]:4000/directory", true),
            ("http://localhost/directory", true),
            ("http://acme.example/directory", false),
            ("http://10.0.0.1/directory", false),
            ("ftp://acme.example/", false),
            ("/directory", false),
            ("no address", false),
        ] {
            assert_eq!(check(address).is_ok(), fits, "{address}");
        }
        assert!(Https::new(None).is_ok());
        assert!(Https::new(Some("no certificate")).is_err());
    }

    #[tokio::test]
    async fn an_authority_of_the_world_leads_nowhere_inside() {
        for (address, expect) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.16.0.1", true),
            ("192.168.1.1", true),
            ("169.254.169.254", true),
            ("100.64.0.1", true),
            ("0.0.0.0", true),
            ("::1", true),
            ("::ffff:10.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("192.0.2.1", false),
            ("100.128.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(address.parse().expect("an address")), expect, "{address}");
        }
        let ask = async |https: &Https, host: &str| {
            let uri = format!("https://{host}:1/order").parse().expect("an address");
            https.addresses(&Place::of(&uri).expect("a place")).await.map(|found| found.len())
        };
        let far = Https::new(None).expect("roots").of("https://192.0.2.1/directory");
        assert_eq!(ask(&far, "192.0.2.1").await.expect("its own"), 1);
        assert_eq!(ask(&far, "192.0.2.2").await.expect("in the world as well"), 1);
        let refused = ask(&far, "127.0.0.1").await.expect_err("inside").to_string();
        assert!(refused.contains("leads to 127.0.0.1"), "{refused}");
        assert!(ask(&far, "localhost").await.is_err() && ask(&far, "[fd00::1]").await.is_err());
        let near = Https::new(None).expect("roots").of("https://10.0.0.1/directory");
        assert!(ask(&near, "10.0.0.2").await.is_err(), "before it is known where the directory is");
        assert_eq!(ask(&near, "10.0.0.1").await.expect("it was named"), 1);
        assert_eq!(ask(&near, "10.0.0.2").await.expect("it is inside itself"), 1);
    }

    #[tokio::test]
    async fn what_the_last_answer_asked_for_is_known() {
        let answer = |seconds: &str| {
            let answer = Response::builder().status(429).header(RETRY_AFTER, seconds);
            answer.body(Full::new(Bytes::new())).expect("an answer")
        };
        for (said, expect) in [("120", Some(120)), (" 0 ", Some(0)), ("soon", None), ("-1", None)] {
            assert_eq!(asked(&answer(said)), expect, "{said}");
        }
        let ((), none) = listening(async {}).await;
        let ((), some) = listening(async { ASKED.with(|last| last.set(Some(3))) }).await;
        assert_eq!((none, some), (None, Some(3)));
    }

    /// Answers each connection `204`, over TLS with this chain and key.
    async fn serve(listener: tokio::net::TcpListener, chain: CertificateDer<'static>, key: rcgen::KeyPair) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![chain], key);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.expect("a key that fits")));
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust it says so and goes.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = vec![0; 4096];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.expect("a head");
            assert!(head[..read].starts_with(b"GET /directory HTTP/1.1\r\n"), "no whole address");
            let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.expect("written");
        }
    }

    #[tokio::test]
    async fn a_private_authority_is_trusted_by_its_root_alone() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("a key"));
        let (root, key) = (root.expect("a root"), rcgen::KeyPair::generate().expect("a key"));
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let chain = params.signed_by(&key, &root).expect("signed").der().clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}/directory", listener.local_addr().expect("an address").port());
        let tasks = kit::Tasks::new();
        let server = tasks.spawn("server", serve(listener, chain, key));
        let ask = async |https: Https| {
            let request = Request::builder().uri(&url).body(BodyWrapper::default()).expect("a request");
            https.of(&url).request(request).await.map(|answer| answer.parts.status.as_u16())
        };
        let refused = ask(Https::new(None).expect("roots")).await.expect_err("nobody knows it");
        assert!(kit::problem::chain(&refused).contains("UnknownIssuer"), "{refused:?}");
        assert_eq!(ask(Https::new(Some(&root.pem())).expect("roots")).await.expect("an answer"), 204);
        server.abort();
    }
}
