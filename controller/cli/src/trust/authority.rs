//! What is looked at before a system trusts an authority. Whoever answers for the controller says what they like beside
//! it: only what stands in the certificate itself counts, since that is what every program on the system goes by.
//!
//! Refuses whatever could sign for other names than those that the person is told of.

use std::collections::BTreeSet;

use controller_core::v1::api::AuthorityView;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree};
use x509_parser::pem::Pem;

/// The name that every authority may sign for beside the platform's domain.
const LOCALHOST: &str = "localhost";
/// Of whole address families: no prefix, and its mask.
const NO_ADDRESS: [&[u8]; 2] = [&[0; 8], &[0; 32]];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("it is not one certificate in PEM")]
    NotOne,
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is no authority that signs certificates of servers alone ({0})")]
    NoAuthority(&'static str),
    #[error("it is not signed by itself")]
    NotOwn,
    #[error("it may sign for every name ({0})")]
    Unconstrained(&'static str),
    #[error("it may sign for {theirs}, and the controller says {said}")]
    OtherNames { theirs: String, said: String },
    #[error("it is called {0}, as no authority of this cluster is")]
    OtherCluster(String),
    #[error("it is not valid now")]
    NotNow,
}

/// Whether a system may trust this: an authority signed by itself, for servers below the domains that the controller
/// says, and for nothing else.
pub(crate) fn check(view: &AuthorityView, now_unix_ms: u64) -> Result<(), AuthorityError> {
    let unreadable = |error: &dyn std::fmt::Display| AuthorityError::Unreadable(error.to_string());
    let pem = one_section(&view.certificate)?;
    let (rest, certificate) = x509_parser::parse_x509_certificate(&pem.contents).map_err(|error| unreadable(&error))?;
    if !rest.is_empty() {
        return Err(AuthorityError::NotOne);
    }
    check_uses(&certificate)?;
    check_names(&certificate, &view.domains)?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    // By this name it is found again when it is to be taken away.
    if !format!("platformer {}", view.cluster).starts_with(name) || name.len() <= "platformer ".len() {
        return Err(AuthorityError::OtherCluster(name.escape_debug().to_string()));
    }
    let is_own = certificate.subject().as_raw() == certificate.issuer().as_raw();
    if !is_own || certificate.verify_signature(None).is_err() {
        return Err(AuthorityError::NotOwn);
    }
    let now = i64::try_from(now_unix_ms / 1000).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let is_now = validity.not_before.timestamp() <= now && now < validity.not_after.timestamp();
    if is_now { Ok(()) } else { Err(AuthorityError::NotNow) }
}

/// Nothing stands beside it: the same text goes into the system's store.
fn one_section(text: &str) -> Result<Pem, AuthorityError> {
    let mut sections = Pem::iter_from_buffer(text.as_bytes());
    let first = sections.next().and_then(Result::ok).filter(|pem| pem.label == "CERTIFICATE");
    let is_all = text.trim_start().starts_with("-----BEGIN ") && text.trim_end().ends_with("-----END CERTIFICATE-----");
    first.filter(|_| is_all && text.matches("-----BEGIN").count() == 1).ok_or(AuthorityError::NotOne)
}

fn check_uses(certificate: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    let refused = |reason: &'static str| Err(AuthorityError::NoAuthority(reason));
    match certificate.basic_constraints() {
        Ok(Some(basic)) if basic.critical && basic.value.ca => {
            if basic.value.path_len_constraint != Some(0) {
                return refused("it may sign other authorities");
            }
        }
        _ => return refused("basic constraints"),
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => {}
        _ => return refused("key usage"),
    }
    match certificate.extended_key_usage() {
        // Those made before it said so are bound by their names all the same.
        Ok(None) => Ok(()),
        Ok(Some(usage)) => {
            let usage = usage.value;
            let more = usage.any
                || usage.client_auth
                || usage.code_signing
                || usage.email_protection
                || usage.time_stamping
                || usage.ocsp_signing
                || !usage.other.is_empty();
            if usage.server_auth && !more { Ok(()) } else { refused("extended key usage") }
        }
        Err(_) => refused("extended key usage"),
    }
}

fn check_names(certificate: &X509Certificate<'_>, said: &BTreeSet<String>) -> Result<(), AuthorityError> {
    let constraints = match certificate.name_constraints() {
        Ok(Some(constraints)) if constraints.critical => constraints.value,
        Ok(Some(_)) => return Err(AuthorityError::Unconstrained("clients may pass over its name constraints")),
        _ => return Err(AuthorityError::Unconstrained("it has no name constraints")),
    };
    let mut theirs = BTreeSet::new();
    for GeneralSubtree { base } in constraints.permitted_subtrees.iter().flatten() {
        match base {
            // An empty one is every name.
            GeneralName::DNSName(name) if !name.trim_matches('.').is_empty() => {
                theirs.insert((*name).to_owned());
            }
            _ => return Err(AuthorityError::Unconstrained("a constraint that is no domain")),
        }
    }
    let excluded = constraints.excluded_subtrees.iter().flatten();
    let excluded: Vec<&GeneralName<'_>> = excluded.map(|subtree| &subtree.base).collect();
    let has = |address: &[u8]| excluded.iter().any(|base| matches!(base, GeneralName::IPAddress(a) if *a == address));
    if !NO_ADDRESS.into_iter().all(has) {
        return Err(AuthorityError::Unconstrained("it may sign for addresses"));
    }
    let is_sound = theirs == *said && theirs.contains(LOCALHOST) && theirs.len() <= 2;
    let words = |names: &BTreeSet<String>| {
        let words = names.iter().map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
        if words.is_empty() { "no domain".to_owned() } else { words }
    };
    if is_sound { Ok(()) } else { Err(AuthorityError::OtherNames { theirs: words(&theirs), said: words(said) }) }
}

#[cfg(test)]
mod tests {
    use appbase_core::{ClusterId, Digest};
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, CustomExtension, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    };

    use super::*;

    /// 2026-06-01.
    const NOW: u64 = 1_780_272_000_000;

    fn dns(name: &str) -> rcgen::GeneralSubtree {
        rcgen::GeneralSubtree::DnsName(name.to_owned())
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "platformer c1");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2036, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![dns("localhost"), dns("platform")],
            excluded_subtrees: vec![
                rcgen::GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
                rcgen::GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
            ],
        });
        params
    }

    fn view(certificate: String) -> AuthorityView {
        AuthorityView {
            cluster: ClusterId::parse("c1").expect("a name"),
            fingerprint: Digest::of(certificate.as_bytes()),
            certificate,
            domains: ["localhost".to_owned(), "platform".to_owned()].into(),
            from_unix_ms: 0,
            until_unix_ms: u64::MAX,
        }
    }

    fn made(change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = params();
        change(&mut params);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").pem()
    }

    fn constraints(params: &mut CertificateParams) -> &mut NameConstraints {
        params.name_constraints.as_mut().expect("some")
    }

    #[test]
    fn the_local_authority_is_taken() {
        assert_eq!(check(&view(made(|_| {})), NOW), Ok(()));
        assert_eq!(check(&view(made(|params| params.extended_key_usages.clear())), NOW), Ok(()));
    }

    #[test]
    fn what_could_sign_for_more_is_not() {
        type Change = fn(&mut CertificateParams);
        let cases: [(&str, Change); 14] = [
            ("basic constraints", |params| params.is_ca = IsCa::NoCa),
            ("other authorities", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            ("key usage", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
            ("extended key usage", |params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning)),
            ("extended key usage", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
            ("no name constraints", |params| params.name_constraints = None),
            ("no domain", |params| constraints(params).permitted_subtrees.push(dns(""))),
            ("no domain", |params| constraints(params).permitted_subtrees.push(dns("."))),
            ("for addresses", |params| constraints(params).excluded_subtrees.truncate(1)),
            ("localhost, org, platform", |params| constraints(params).permitted_subtrees.push(dns("org"))),
            ("may sign for org,", |params| constraints(params).permitted_subtrees = vec![dns("org")]),
            ("no domain", |params| {
                let all = rcgen::GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0));
                constraints(params).permitted_subtrees.push(all);
            }),
            ("called acme", |params| params.distinguished_name.push(DnType::CommonName, "acme")),
            ("not valid now", |params| params.not_before = rcgen::date_time_ymd(2026, 7, 1)),
        ];
        for (words, change) in cases {
            let said = check(&view(made(change)), NOW).expect_err(words).to_string();
            assert!(said.contains(words), "{words}: {said}");
        }
        // What a client does not have to look at does not hold it.
        let lax = made(|params| {
            params.name_constraints = None;
            // permittedSubtrees [0] { { dNSName "localhost" } }
            let content = [&[0x30, 0x0f, 0xa0, 0x0d, 0x30, 0x0b, 0x82, 0x09][..], b"localhost"].concat();
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 30], content));
        });
        let said = check(&view(lax), NOW).expect_err("not critical").to_string();
        assert!(said.contains("may pass over"), "{said}");
    }

    #[test]
    fn one_that_another_signed_is_not() {
        let key = || KeyPair::generate().expect("a key");
        let mut own = params();
        let root = CertifiedIssuer::self_signed(own.clone(), key()).expect("a root");
        let signed = own.signed_by(&key(), &root).expect("signed").pem();
        assert_eq!(check(&view(signed), NOW), Err(AuthorityError::NotOwn), "of the same name, with another key");
        own.distinguished_name.push(DnType::OrganizationName, "other");
        let signed = own.signed_by(&key(), &root).expect("signed").pem();
        assert_eq!(check(&view(signed), NOW), Err(AuthorityError::NotOwn));
    }

    #[test]
    fn only_one_certificate_is_taken() {
        let pem = made(|_| {});
        let key = pem.replace("CERTIFICATE", "PRIVATE KEY");
        for bad in ["", "MIIB", &format!("{pem}{pem}"), &key, &format!("x\n{pem}"), &format!("{pem}x")] {
            assert_eq!(check(&view(bad.to_owned()), NOW), Err(AuthorityError::NotOne), "{bad}");
        }
        let torn = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n";
        assert!(matches!(check(&view(torn.to_owned()), NOW), Err(AuthorityError::Unreadable(_))));
    }
}
