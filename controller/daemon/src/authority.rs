//! Authority: the cluster's own certificate authority, so that every app has a certificate from its first minute. Who
//! trusts it (`platformctl cert trust`) trusts it for `localhost` and the platform's domain alone: it says so itself.
//!
//! Owns how its certificates look. Refuses to decide when one is made; that is `controller-core` `certificates`.

use std::collections::BTreeSet;
use std::time::Duration;

use appbase_core::v1::{Certificate, PrivateKey};
use appbase_core::{ClusterId, Digest, SectionKey};
use controller_core::certificates::local_domains;
use controller_core::v1::state::{AuthorityRecord, CertificateRecord};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SerialNumber,
};

const DAY_MS: u64 = 86_400_000;
const AUTHORITY_LIFE_MS: u64 = 3650 * DAY_MS;
const LEAF_LIFE_MS: u64 = 90 * DAY_MS;
/// Clients whose clock is a little behind take it all the same.
const BACK_MS: u64 = 5 * 60_000;

/// A new authority for `localhost` and what is in the domain.
pub(crate) fn new(cluster: &ClusterId, domain: &str, now_unix_ms: u64) -> Result<AuthorityRecord, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let domains = local_domains(domain);
    let (from_unix_ms, until_unix_ms) = life(now_unix_ms, AUTHORITY_LIFE_MS);
    let mut params = params(&format!("platformer {cluster}"), from_unix_ms, until_unix_ms);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Systems that trust it for servers take no program's or mail's signature from it.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: domains.iter().cloned().map(GeneralSubtree::DnsName).collect(),
        // A constraint says nothing of other kinds of names: no address at all is permitted.
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    let certificate = params.self_signed(&key)?;
    Ok(AuthorityRecord {
        certificate: certificate.pem(),
        key: PrivateKey(key.serialize_pem()),
        fingerprint: Digest::of(certificate.der()),
        domains,
        from_unix_ms,
        until_unix_ms,
    })
}

/// A certificate for one app's names, with a key of its own.
pub(crate) fn issue(
    authority: &AuthorityRecord,
    key: &SectionKey,
    names: &BTreeSet<String>,
    now_unix_ms: u64,
) -> Result<CertificateRecord, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key.0)?)?;
    let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let (from_unix_ms, until_unix_ms) = life(now_unix_ms, LEAF_LIFE_MS);
    let mut params = params(&format!("platformer app {key}"), from_unix_ms, until_unix_ms);
    params.subject_alt_names = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&own, &issuer)?;
    Ok(CertificateRecord {
        certificate: Certificate {
            names: names.clone(),
            chain: certificate.pem(),
            key: PrivateKey(own.serialize_pem()),
        },
        fingerprint: Digest::of(certificate.der()),
        issuer: "local authority".to_owned(),
        authority: Some(authority.fingerprint),
        from_unix_ms,
        until_unix_ms,
    })
}

/// Whole seconds, as certificates have them.
fn life(now_unix_ms: u64, life_ms: u64) -> (u64, u64) {
    let from = now_unix_ms.saturating_sub(BACK_MS) / 1000 * 1000;
    (from, from + life_ms)
}

fn params(name: &str, from_unix_ms: u64, until_unix_ms: u64) -> CertificateParams {
    let at = |unix_ms: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(unix_ms);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.chars().take(COMMON_NAME_MAX).collect::<String>());
    params.serial_number = Some(serial());
    (params.not_before, params.not_after) = (at(from_unix_ms), at(until_unix_ms));
    params
}

/// RFC 5280, upper bound of a common name.
const COMMON_NAME_MAX: usize = 64;

/// A positive number of 126 random bits, always of the same length.
fn serial() -> SerialNumber {
    let mut bytes = kit::random::bytes::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests;
