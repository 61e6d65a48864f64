use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

const NOW: u64 = 1_795_000_000_123;

fn cluster() -> ClusterId {
    ClusterId::parse("c1").expect("a name")
}

fn shop() -> SectionKey {
    SectionKey::try_from("production/shop".to_owned()).expect("a section")
}

fn names(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// What a client that trusts the authority says of a certificate.
fn trusted(authority: &AuthorityRecord, leaf: &CertificateRecord, host: &str, now: u64) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&authority.certificate)).expect("clients take it for an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
    let host = ServerName::try_from(host.to_owned()).expect("a host");
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now));
    verifier.verify_server_cert(&der(&leaf.certificate.chain), &[], &host, &[], now).map(|_| ())
}

#[test]
fn who_trusts_the_authority_trusts_its_leaves() {
    let authority = new(&cluster(), "apps.example", NOW).expect("made");
    let hosts = names("shop.localhost *.shop.localhost shop.apps.example apps.example");
    let leaf = issue(&authority, &shop(), &hosts, NOW).expect("made");
    for host in ["shop.localhost", "a.shop.localhost", "shop.apps.example", "apps.example"] {
        assert_eq!(trusted(&authority, &leaf, host, NOW), Ok(()), "{host}");
    }
    assert!(trusted(&authority, &leaf, "other.localhost", NOW).is_err(), "it is not for that");
    assert_eq!(trusted(&authority, &leaf, "shop.localhost", NOW - BACK_MS / 2), Ok(()), "a clock that is behind");
    assert_eq!(trusted(&authority, &leaf, "shop.localhost", NOW + LEAF_LIFE_MS - DAY_MS), Ok(()));
    assert!(trusted(&authority, &leaf, "shop.localhost", NOW + LEAF_LIFE_MS).is_err(), "it is over");
    let other = new(&cluster(), "apps.example", NOW).expect("made");
    assert!(trusted(&other, &leaf, "shop.localhost", NOW).is_err(), "another authority of the same name");
}

#[test]
fn a_stolen_key_is_good_for_the_own_names_alone() {
    let authority = new(&cluster(), "apps.example", NOW).expect("made");
    for host in ["example.org", "apps.example.org", "mylocalhost", "10.0.0.1", "::1"] {
        let leaf = issue(&authority, &shop(), &names(host), NOW).expect("made");
        let refused = trusted(&authority, &leaf, host, NOW).expect_err(host);
        let rustls::Error::InvalidCertificate(CertificateError::Other(reason)) = &refused else {
            panic!("{host}: {refused:?}")
        };
        assert!(reason.to_string().contains("NameConstraintViolation"), "{host}: {reason}");
    }
}

#[test]
fn what_is_written_in_them() {
    let authority = new(&cluster(), "platform", NOW).expect("made");
    let leaf = issue(&authority, &shop(), &names("shop.platform"), NOW).expect("made");
    let (der_of_authority, der_of_leaf) = (der(&authority.certificate), der(&leaf.certificate.chain));
    let (_, root) = X509Certificate::from_der(&der_of_authority).expect("X.509");
    assert_eq!(root.subject().to_string(), "CN=platformer c1");
    let constraints = root.basic_constraints().expect("one").expect("there");
    assert!(constraints.critical && constraints.value.ca && constraints.value.path_len_constraint == Some(0));
    let usage = root.key_usage().expect("one").expect("there").value;
    assert!(usage.key_cert_sign() && !usage.digital_signature());
    let uses = root.extended_key_usage().expect("one").expect("there").value;
    assert!(uses.server_auth && !uses.any && !uses.client_auth && !uses.code_signing && !uses.email_protection);
    assert!(root.name_constraints().expect("one").expect("there").critical);
    let (_, own) = X509Certificate::from_der(&der_of_leaf).expect("X.509");
    assert_eq!(own.subject().to_string(), "CN=platformer app production/shop");
    assert!(!own.is_ca());
    assert_eq!(own.raw_serial().len(), 16);
    let read = crate::x509::read(&leaf.certificate.chain).expect("readable");
    assert_eq!((read.from_unix_ms, read.until_unix_ms), (leaf.from_unix_ms, leaf.until_unix_ms));
    assert_eq!((read.certificate.names, read.fingerprint), (names("shop.platform"), leaf.fingerprint));
    assert_eq!((leaf.from_unix_ms, leaf.until_unix_ms - leaf.from_unix_ms), (1_794_999_700_000, LEAF_LIFE_MS));
    let again = issue(&authority, &shop(), &names("shop.platform"), NOW).expect("made");
    assert_ne!(again.certificate.key, leaf.certificate.key);
}

#[test]
fn no_key_is_in_a_debug_form() {
    let authority = new(&cluster(), "platform", NOW).expect("made");
    let leaf = issue(&authority, &shop(), &names("shop.platform"), NOW).expect("made");
    let said = format!("{authority:?} {leaf:?}");
    assert!(said.contains("BEGIN CERTIFICATE") && !said.contains("PRIVATE"), "{said}");
}
