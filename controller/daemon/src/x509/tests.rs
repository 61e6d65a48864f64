use rcgen::{CertificateParams, KeyPair};

use super::*;

const DAY_MS: u64 = 86_400_000;
/// 2026-06-01.
const NOW: u64 = 1_780_272_000_000;

/// Good from 2026-01-01 to 2027-01-01.
fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    change(&mut params);
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn a_certificate_of_people_is_read() {
    let (chain, key) = made(&["WWW.Example.org", "*.example.org", "10.0.0.1"], |_| {});
    // Signed by a name that is its own as well: it may stand behind the first.
    let (other, _) = made(&["authority.example"], |_| {});
    // As programs write it: words around it, Windows' ends of lines, the key in the same file.
    let file = format!("Bag Attributes\nsubject=x\n{}{key}{other}", chain.replace('\n', "\r\n"));
    let record = uploaded(&file, &file, NOW).expect("sound");
    let names: Vec<_> = record.certificate.names.iter().map(String::as_str).collect();
    assert_eq!(names, ["*.example.org", "www.example.org"], "lower case, and no addresses");
    assert_eq!(record.certificate.chain, format!("{chain}{other}").replace("\r\n", "\n"));
    assert!(!record.certificate.chain.contains("PRIVATE"));
    assert_eq!(record.certificate.key.0, key.replace("\r\n", "\n"));
    assert_eq!((record.from_unix_ms, record.until_unix_ms), (1_767_225_600_000, 1_798_761_600_000));
    assert_eq!(record.issuer, "rcgen self signed cert");
    assert_eq!(uploaded(&chain, &key, NOW).expect("sound").fingerprint, record.fingerprint);
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let own = CertificateParams::new(vec!["a.example".to_owned()]).expect("names").self_signed(&ed25519);
    assert!(uploaded(&own.expect("a certificate").pem(), &ed25519.serialize_pem(), NOW).is_ok());
}

#[test]
fn what_no_client_would_take_is_refused() {
    let (chain, key) = made(&["shop.example"], |_| {});
    let refused = |chain: &str, key: &str, now: u64| uploaded(chain, key, now).expect_err("refused");
    let check = |error: CertificateError, code: &str, words: &str| {
        let said = error.to_string();
        assert_eq!(error.code().0, code, "{said}");
        assert!(said.contains(words) && !error.code().1.is_empty(), "{said}");
        assert!(!said.contains("MIG"), "no part of a key: {said}");
    };
    let large = format!("{chain}{}", " ".repeat(BYTES_MAX));
    check(refused(&large, &key, NOW), "certificate-too-large", "more than 65536 bytes");
    check(refused(&chain.repeat(11), &key, NOW), "certificate-too-large", "11 certificates");
    check(refused("", &key, NOW), "bad-chain", "no certificate");
    check(refused(&key, &key, NOW), "bad-chain", "no certificate");
    check(refused(&chain.replace("MII", "M!I"), &key, NOW), "bad-chain", "certificate 1 of the chain");
    let torn = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n";
    check(refused(&format!("{chain}{torn}"), &key, NOW), "bad-chain", "certificate 2 of the chain");
    check(refused(&chain, "", NOW), "bad-key", "there is no key");
    check(refused(&chain, &chain, NOW), "bad-key", "there is no key");
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    check(refused(&chain, &encrypted, NOW), "encrypted-key", "encrypted");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    check(refused(&chain, old, NOW), "encrypted-key", "encrypted");
    let (strange, _) = made(&["authority.example"], |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
    });
    check(refused(&format!("{chain}{chain}{strange}"), &key, NOW), "bad-chain", "certificate 3 of the chain is not");
    let uses = |uses: &[rcgen::ExtendedKeyUsagePurpose]| {
        let (chain, key) = made(&["shop.example"], |params| params.extended_key_usages = uses.to_vec());
        uploaded(&chain, &key, NOW)
    };
    let [client, server] = [rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    check(uses(std::slice::from_ref(&client)).expect_err("refused"), "bad-use", "serverAuth");
    assert!(uses(&[client, server]).is_ok() && uses(&[rcgen::ExtendedKeyUsagePurpose::Any]).is_ok());
    let (wide, its) = made(&["shop.example"], |params| {
        let content = vec![0; KEPT_BYTES_MAX];
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], content)];
    });
    check(refused(&wide, &its, NOW), "certificate-too-large", "more than 32768");
    let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    check(refused(&chain, broken, NOW), "bad-key", "cannot be used");
    let (_, other) = made(&["shop.example"], |_| {});
    check(refused(&chain, &other, NOW), "other-key", "shop.example");
    check(refused(&chain, &key, NOW + 365 * DAY_MS), "certificate-ended", "ended 151 days ago");
    check(refused(&chain, &key, NOW - 153 * DAY_MS), "certificate-not-yet", "in 3 days");
    let (nameless, its) = made(&[], |_| {});
    check(refused(&nameless, &its, NOW), "bad-names", "no DNS names");
    let (address, its) = made(&["10.0.0.1"], |_| {});
    check(refused(&address, &its, NOW), "bad-names", "no DNS names");
    for name in ["*", "a.*.example", "w*.example", "a..example", "under_score.example"] {
        let (odd, its) = made(&["shop.example", name], |_| {});
        check(refused(&odd, &its, NOW), "bad-names", name);
    }
}
