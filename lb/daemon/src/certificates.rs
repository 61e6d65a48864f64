//! Certificates: what lb proves its names with. One value goes with one table; a handshake takes the one that is in force
//! when it begins, so a new certificate cuts nobody.
//!
//! Each certificate has a TLS configuration of its own, kept from table to table as long as nothing of it changes.
//! Nothing is shown to a client that names no host, or one that no certificate is for: the handshake ends with an alert.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, OnceLock};

use appbase_core::SectionKey;
use appbase_core::v1::Certificate;
use lb_core::{Table, host};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

/// Why a table's certificates cannot be used. Never with a key in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("certificate for {name} of {key}: {reason}")]
    Unusable { key: SectionKey, name: String, reason: String },
    #[error("authorities of the clients of {key}: {reason}")]
    Authorities { key: SectionKey, reason: String },
}

/// All of a table.
#[derive(Default)]
pub(crate) struct Certificates {
    all: Vec<Arc<Shown>>,
    /// By host: what authorities are shown that ask whether it is led here.
    handshakes: BTreeMap<String, Arc<ServerConfig>>,
    /// In the order of the table; of one name there are several where sections have it each.
    by_name: ByHost<Vec<Arc<Shown>>>,
    /// What the sections that take a host ask of its clients, where any asks. A route for every host is at the empty name.
    authorities: ByHost<Option<String>>,
}

/// By exact host, and by what stands behind `*.`.
struct ByHost<T> {
    exact: BTreeMap<String, T>,
    wildcard: BTreeMap<String, T>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), wildcard: BTreeMap::new() }
    }
}

impl<T> ByHost<T> {
    fn entry(&mut self, name: &str) -> Entry<'_, String, T> {
        match name.strip_prefix("*.") {
            Some(domain) => self.wildcard.entry(domain.to_owned()),
            None => self.exact.entry(name.to_owned()),
        }
    }

    fn find(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| self.wildcard.get(host::wildcard_of(host)?))
    }
}

/// A certificate, ready to be shown.
pub(crate) struct Shown {
    certificate: Certificate,
    /// Clients must show one of their own that one of these signed; PEM.
    pub(crate) client_authorities: Option<String>,
    pub(crate) config: Arc<ServerConfig>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("names", &self.certificate.names).finish_non_exhaustive()
    }
}

/// What a finished handshake says of its connection.
#[derive(Debug)]
pub(crate) struct Shaken {
    /// The host that the client named, canonical.
    pub(crate) name: String,
    pub(crate) shown: Arc<Shown>,
    /// The client's own, as a `Client-Cert` header has it (RFC 9440).
    pub(crate) client_certificate: Option<String>,
}

impl Shaken {
    /// Whether a request for this host may come on the connection (RFC 9110, section 7.4): the host was named in the
    /// handshake, or the certificate that was shown is for it as well.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        self.name == host || self.shown.covers(host)
    }
}

impl Shown {
    fn covers(&self, host: &str) -> bool {
        let names = &self.certificate.names;
        names.contains(host) || host::wildcard_of(host).is_some_and(|domain| names.contains(&format!("*.{domain}")))
    }
}

impl Certificates {
    /// Those of a table. What did not change is taken over from `before`.
    pub(crate) fn of(table: &Table, before: &Self) -> Result<Self, CertificateError> {
        let mut all = Self::default();
        for section in table.sections() {
            let tls = &section.published.tls;
            for certificate in &tls.certificates {
                let shown = match before.same(certificate, tls.client_authorities.as_ref()) {
                    Some(shown) => shown,
                    None => Arc::new(Shown::new(&section.key, certificate, tls.client_authorities.as_ref())?),
                };
                for name in &certificate.names {
                    all.by_name.entry(name).or_default().push(Arc::clone(&shown));
                }
                all.all.push(shown);
            }
            for certificate in &tls.handshakes {
                let config = Arc::new(challenge(&section.key, certificate)?);
                all.handshakes.extend(certificate.names.iter().map(|name| (name.clone(), Arc::clone(&config))));
            }
        }
        if table.sections().any(|section| section.published.tls.client_authorities.is_some()) {
            all.take_authorities(table);
        }
        Ok(all)
    }

    fn take_authorities(&mut self, table: &Table) {
        for section in table.sections() {
            for route in &section.published.routes {
                let host = route.host.as_deref().unwrap_or_default().to_ascii_lowercase();
                let authorities = self.authorities.entry(&host).or_default();
                // Two sections on one host: whoever asks is not asked in vain.
                *authorities = authorities.take().or_else(|| section.published.tls.client_authorities.clone());
            }
        }
    }

    fn same(&self, certificate: &Certificate, authorities: Option<&String>) -> Option<Arc<Shown>> {
        let is_same =
            |shown: &&Arc<Shown>| shown.certificate == *certificate && shown.client_authorities.as_ref() == authorities;
        self.all.iter().find(is_same).cloned()
    }

    /// For an authority that asks for this host, canonical, whether it is led here.
    pub(crate) fn challenge(&self, host: &str) -> Option<&Arc<ServerConfig>> {
        self.handshakes.get(host)
    }

    /// The one for a host, canonical: of the section that asks for clients' certificates, where one does for this host.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<Shown>> {
        let authorities = self.authorities.find(host).or_else(|| self.authorities.exact.get(""));
        let authorities = authorities.and_then(Option::as_ref);
        let domain = host::wildcard_of(host).unwrap_or_default();
        let [exact, wildcard] = [self.by_name.exact.get(host), self.by_name.wildcard.get(domain)];
        let mut all = exact.into_iter().chain(wildcard).flatten();
        all.find(|shown| shown.client_authorities.as_ref() == authorities)
    }
}

impl Shown {
    fn new(
        key: &SectionKey,
        certificate: &Certificate,
        authorities: Option<&String>,
    ) -> Result<Self, CertificateError> {
        let unusable = |reason: String| CertificateError::Unusable {
            key: key.clone(),
            name: certificate.names.first().cloned().unwrap_or_default(),
            reason,
        };
        let certified = certified(certificate).map_err(unusable)?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let refused = |reason: String| CertificateError::Authorities { key: key.clone(), reason };
                let roots = roots(pem).map_err(refused)?;
                let provider = Arc::new(ring::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| refused(error.to_string()))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Resumed by tickets alone: they need no memory here. Whoever must show a certificate shows it each time.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match (authorities, ticketer()) {
            (None, Some(ticketer)) => config.ticketer = ticketer,
            _ => config.send_tls13_tickets = 0,
        }
        Ok(Self {
            certificate: certificate.clone(),
            client_authorities: authorities.cloned(),
            config: Arc::new(config),
        })
    }
}

/// The protocol in which an authority asks, and in which nothing is said but the handshake (RFC 8737).
pub(crate) const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

fn challenge(key: &SectionKey, certificate: &Certificate) -> Result<ServerConfig, CertificateError> {
    let unusable = |reason: String| CertificateError::Unusable {
        key: key.clone(),
        name: certificate.names.first().cloned().unwrap_or_default(),
        reason,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| unusable(error.to_string()))?;
    let (chain, der) = parts(certificate).map_err(unusable)?;
    let key = ring::sign::any_supported_type(&der).map_err(|error| unusable(error.to_string()))?;
    // Its critical extension is known to authorities alone: nobody else reads this certificate, nor does lb.
    let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(certified));
    config.alpn_protocols = vec![CHALLENGE_PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// One for all configurations, so that a session outlives its certificate. Its keys change every few hours.
fn ticketer() -> Option<Arc<dyn ProducesTickets>> {
    static TICKETER: OnceLock<Option<Arc<dyn ProducesTickets>>> = OnceLock::new();
    TICKETER.get_or_init(|| ring::Ticketer::new().ok()).clone()
}

/// Reads a certificate and its key, and whether they belong together.
fn certified(certificate: &Certificate) -> Result<CertifiedKey, String> {
    let (chain, key) = parts(certificate)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| error.to_string())
}

fn parts(certificate: &Certificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("its chain is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("its chain has no certificate: give the leaf and what leads to its authority, in PEM".to_owned());
    }
    // What the parser says could show a part of the key.
    let key = PrivateKeyDer::from_pem_slice(certificate.key.0.as_bytes());
    let key = key.map_err(|_| "its key is not PEM: give PKCS #8, PKCS #1 or SEC 1".to_owned())?;
    Ok((chain, key))
}

fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("they are not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate among them".to_owned()) } else { Ok(roots) }
}

/// For clients to whom no certificate is shown: their handshake ends with an alert that says so.
pub(crate) fn nobody() -> Arc<ServerConfig> {
    #[derive(Debug)]
    struct Nothing;

    impl ResolvesServerCert for Nothing {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    static NOBODY: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let config = NOBODY.get_or_init(|| {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("ring has suites of all versions");
        Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(Nothing)))
    });
    Arc::clone(config)
}
