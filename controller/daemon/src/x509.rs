//! X.509: reads certificates and keys as people's files hold them, and says what is wrong with them. What it gives on is
//! cut down to the certificates and the one key, whatever else stood in the files.
//!
//! Refuses what no client would take from lb: a key of another certificate, no names, times that are over. No error holds
//! a part of a key.

use std::collections::BTreeSet;

use appbase_core::Digest;
use appbase_core::v1::{Certificate, PrivateKey};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use controller_core::app_file::check_host;
use controller_core::v1::state::CertificateRecord;
use instant_acme::CertificateIdentifier;
use rustls::InconsistentKeys;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, Der, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// Chain and key together, as text.
pub(crate) const BYTES_MAX: usize = 64 << 10;
/// What is kept of them. Ten certificates with RSA keys are less.
const KEPT_BYTES_MAX: usize = 32 << 10;
/// Characters in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;
/// By so much an issuer's clock may be ahead of this one.
const AHEAD_MS: u64 = 5 * 60_000;
/// Certificates in a chain; real ones have two to four.
const CHAIN_MAX: usize = 10;
/// The labels of what a key may stand in.
const KEY_LABELS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error(
        "chain and key are more than {BYTES_MAX} bytes together, or more than {KEPT_BYTES_MAX} without what stands around them"
    )]
    Large,
    #[error("certificate {0} of the chain is not the one that signed certificate {before}", before = .0 - 1)]
    Order(usize),
    #[error("the certificate is not for servers: its extended key usage leaves serverAuth out")]
    NotServer,
    #[error("the chain holds no certificate: there is no -----BEGIN CERTIFICATE----- in it")]
    NoCertificate,
    #[error("the chain holds {0} certificates, and {CHAIN_MAX} are the most")]
    LongChain(usize),
    #[error("certificate {number} of the chain cannot be read: {reason}")]
    Unreadable { number: usize, reason: String },
    #[error("the key is encrypted")]
    Encrypted,
    #[error("there is no key: no -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY in it")]
    NoKey,
    #[error("the key cannot be used: RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, and Ed25519 are taken")]
    Key,
    #[error("the key belongs to another certificate than the first of the chain, which is for {0}")]
    OtherKey(String),
    #[error("the certificate has no DNS names (subject alternative names), and clients look at nothing else")]
    NoNames,
    #[error("the certificate is for \"{0}\", which is no host name that lb can show it for")]
    Name(String),
    #[error("the certificate ended {0} days ago")]
    Ended(u64),
    #[error("the certificate begins in {0} days")]
    NotYet(u64),
}

impl CertificateError {
    /// The problem's code, and what to do.
    pub(crate) fn code(&self) -> (&'static str, &'static str) {
        match self {
            Self::Large | Self::LongChain(_) => (
                "certificate-too-large",
                "give the certificate and those that lead to its authority, not a whole bundle",
            ),
            Self::NotServer => ("bad-use", "ask for a certificate for a TLS server"),
            Self::NoCertificate | Self::Unreadable { .. } | Self::Order(_) => {
                ("bad-chain", "give PEM, the certificate of the names first, then those between it and its authority")
            }
            Self::Encrypted => ("encrypted-key", "take the passphrase away: openssl pkey -in KEY -out PLAIN-KEY"),
            Self::NoKey | Self::Key => ("bad-key", "give the certificate's own key in PEM"),
            Self::OtherKey(_) => (
                "other-key",
                "give the key that this certificate was asked for with; the chain begins with its own certificate",
            ),
            Self::NoNames | Self::Name(_) => {
                ("bad-names", "ask for a certificate with DNS names, a wildcard only as the whole first label")
            }
            Self::Ended(_) => ("certificate-ended", "renew it where it was issued, and add the new one"),
            Self::NotYet(_) => ("certificate-not-yet", "add it once it is valid; the one before it serves until then"),
        }
    }
}

/// A certificate as somebody uploads it, checked.
pub(crate) fn uploaded(chain: &str, key: &str, now_unix_ms: u64) -> Result<CertificateRecord, CertificateError> {
    if chain.len() + key.len() > BYTES_MAX {
        return Err(CertificateError::Large);
    }
    let chain = pem(&ders(&sections(chain, &["CERTIFICATE"]))?);
    let record = read(&chain)?;
    let pem = key_of(key)?;
    if chain.len() + pem.len() > KEPT_BYTES_MAX {
        return Err(CertificateError::Large);
    }
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateError::Key)?;
    check_key(ders(&chain)?, der, &record)?;
    if record.until_unix_ms <= now_unix_ms {
        return Err(CertificateError::Ended(days(now_unix_ms - record.until_unix_ms)));
    }
    if record.from_unix_ms > now_unix_ms + AHEAD_MS {
        return Err(CertificateError::NotYet(days(record.from_unix_ms - now_unix_ms) + 1));
    }
    let certificate = Certificate { key: PrivateKey(pem), ..record.certificate };
    Ok(CertificateRecord { certificate, ..record })
}

fn days(ms: u64) -> u64 {
    ms / 86_400_000
}

/// What is written in the first certificate of a chain; the key is still missing.
pub(crate) fn read(chain: &str) -> Result<CertificateRecord, CertificateError> {
    let ders = ders(chain)?;
    let (mut record, mut signer) = (None, None::<Vec<u8>>);
    for (at, der) in ders.iter().enumerate() {
        let unreadable = |reason: String| CertificateError::Unreadable { number: at + 1, reason };
        let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(error.to_string()))?;
        // Clients go from each to the next one.
        if signer.replace(parsed.issuer().as_raw().to_vec()).is_some_and(|signer| signer != parsed.subject().as_raw()) {
            return Err(CertificateError::Order(at + 1));
        }
        if at == 0 {
            check_use(&parsed)?;
            let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
            record = Some(CertificateRecord {
                certificate: Certificate {
                    names: names(&parsed)?,
                    chain: chain.to_owned(),
                    key: PrivateKey(String::new()),
                },
                fingerprint: Digest::of(der),
                issuer: issuer(&parsed),
                authority: None,
                from_unix_ms: unix_ms(from),
                until_unix_ms: unix_ms(until),
            });
        }
    }
    record.ok_or(CertificateError::NoCertificate)
}

/// Without the extension it is for everything.
fn check_use(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) if usage.value.server_auth || usage.value.any => Ok(()),
        _ => Err(CertificateError::NotServer),
    }
}

/// The name of a certificate at an authority that says when it wants it renewed (RFC 9773, section 4.1).
pub(crate) fn identifier(chain: &str) -> Option<CertificateIdentifier<'static>> {
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let key = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
        _ => None,
    })?;
    Some(CertificateIdentifier::new(Der::from_slice(key.0), Der::from_slice(parsed.raw_serial())).into_owned())
}

/// The certificates again as text, each the same way however it was written.
fn pem(ders: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for der in ders {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = BASE64_STANDARD.encode(der);
        for line in encoded.as_bytes().chunks(PEM_LINE) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn unix_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn ders(chain: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read = |(at, der): (usize, Result<_, rustls::pki_types::pem::Error>)| {
        der.map_err(|error| CertificateError::Unreadable { number: at + 1, reason: error.to_string() })
    };
    let ders = CertificateDer::pem_slice_iter(chain.as_bytes()).enumerate().map(read);
    let ders = ders.collect::<Result<Vec<_>, _>>()?;
    match ders.len() {
        0 => Err(CertificateError::NoCertificate),
        count if count > CHAIN_MAX => Err(CertificateError::LongChain(count)),
        _ => Ok(ders),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Result<BTreeSet<String>, CertificateError> {
    let alternative = certificate.subject_alternative_name();
    let alternative = alternative.map_err(|_| CertificateError::NoNames)?.ok_or(CertificateError::NoNames)?;
    let mut names = BTreeSet::new();
    for name in &alternative.value.general_names {
        let GeneralName::DNSName(name) = name else { continue };
        let name = name.to_ascii_lowercase();
        if name == "*" || check_host(&name).is_err() {
            return Err(CertificateError::Name(name.escape_debug().take(NAME_SHOWN).collect()));
        }
        names.insert(name);
    }
    if names.is_empty() { Err(CertificateError::NoNames) } else { Ok(names) }
}

/// Of a name that is none, and of an issuer's.
const NAME_SHOWN: usize = 64;

/// The common name of who signed it, else its organization, else all of its name.
fn issuer(certificate: &X509Certificate<'_>) -> String {
    let name = certificate.issuer();
    let common = name.iter_common_name().chain(name.iter_organization()).find_map(|part| part.as_str().ok());
    let text = common.map_or_else(|| name.to_string(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).take(NAME_SHOWN).collect()
}

fn key_of(text: &str) -> Result<String, CertificateError> {
    let pem = first_section(text, &KEY_LABELS);
    match pem {
        Some(pem) if pem.contains("Proc-Type: 4,ENCRYPTED") => Err(CertificateError::Encrypted),
        Some(pem) => Ok(pem),
        None if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") => Err(CertificateError::Encrypted),
        None => Err(CertificateError::NoKey),
    }
}

/// Whether lb can sign with this key, and clients accept that for this certificate.
fn check_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    record: &CertificateRecord,
) -> Result<(), CertificateError> {
    let key = ring::sign::any_supported_type(&key).map_err(|_| CertificateError::Key)?;
    let first = || record.certificate.names.first().cloned().unwrap_or_default();
    match CertifiedKey::new(chain, key).keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(CertificateError::OtherKey(first())),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Key),
        Err(error) => Err(CertificateError::Unreadable { number: 1, reason: error.to_string() }),
    }
}

/// The PEM sections with one of these labels, each on lines of its own, and nothing of what stands between them.
fn sections(text: &str, labels: &[&str]) -> String {
    let (mut rest, mut kept) = (text, String::new());
    while let Some((section, after)) = next_section(rest, labels) {
        kept.push_str(&section);
        rest = after;
    }
    kept
}

fn first_section(text: &str, labels: &[&str]) -> Option<String> {
    next_section(text, labels).map(|(section, _)| section)
}

fn next_section<'a>(text: &'a str, labels: &[&str]) -> Option<(String, &'a str)> {
    let begins = labels.iter().filter_map(|label| Some((text.find(&format!("-----BEGIN {label}-----"))?, *label)));
    let (begin, label) = begins.min()?;
    let end = format!("-----END {label}-----");
    let length = text[begin..].find(&end)? + end.len();
    let (section, after) = text[begin..].split_at(length);
    let lines = section.lines().map(str::trim).filter(|line| !line.is_empty());
    Some((lines.map(|line| format!("{line}\n")).collect(), after))
}

#[cfg(test)]
mod tests;
