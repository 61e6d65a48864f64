//! Challenges of ACME: an authority's question is answered, whatever the app asks of others.

use std::collections::BTreeMap;

use appbase_core::Prefix;
use appbase_core::v1::{Certificate, Guard, PrivateKey};
use lb_core::v1::RouteSection;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncReadExt;

use crate::client::raw;
use crate::tls::{Secured, shake};

const ANSWER: &str = "t0ken_-.thumb_-print";

async fn ask(secured: &Secured, method: &str, host: &str, token: &str) -> String {
    let path = format!("/.well-known/acme-challenge/{token}");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    raw(secured.stage.lb.http, head.as_bytes()).await
}

fn challenged(section: &mut RouteSection) {
    section.tls.challenges = BTreeMap::from([("t0ken_-".to_owned(), ANSWER.to_owned())]);
}

#[tokio::test]
async fn an_authority_is_answered_whatever_the_app_asks_of_others() {
    let secured = Secured::start().await;
    let authorities = secured.authority.pem();
    type Change<'a> = (&'a str, &'a dyn Fn(&mut RouteSection));
    let changes: [Change<'_>; 7] = [
        ("as it is", &|_| {}),
        ("https", &|section| section.tls.policy.redirect = true),
        ("maintenance", &|section| section.maintenance = Some("closed".to_owned())),
        ("hold", &|section| section.hold = true),
        ("guard", &|section| {
            let networks = [Prefix::parse("192.0.2.0/24").unwrap()].into();
            section.routes[0].guard = Guard { networks, ..Guard::default() };
        }),
        ("clients' certificates", &|section| section.tls.client_authorities = Some(authorities.clone())),
        ("another path", &|section| section.routes[0].path = "/api".to_owned()),
    ];
    for (what, change) in changes {
        secured
            .publish(|[one, _]| {
                challenged(one);
                change(one);
            })
            .await;
        let answer = ask(&secured, "GET", "One.example:80", "t0ken_-").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain"), "{what}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{ANSWER}")), "{what}: exactly that: {answer:?}");
        let head = ask(&secured, "HEAD", "one.example", "t0ken_-").await;
        let length = format!("\r\nContent-Length: {}\r\n", ANSWER.len());
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&length), "{what}: {head}");
        assert!(head.ends_with("\r\n\r\n"), "{what}: {head}");
    }
    assert_eq!(secured.apps[0].hits(), 0, "the app was never asked");
    let metrics = secured.stage.admin("/metrics").await.1;
    assert!(!metrics.contains("code=\"challenge\""), "and nothing failed: {metrics}");
}

#[tokio::test]
async fn what_is_no_challenge_goes_to_the_app() {
    let secured = Secured::start().await;
    secured.publish(|[one, _]| challenged(one)).await;
    for (method, host, token) in [
        ("GET", "one.example", "other"),
        ("GET", "one.example", "t0ken_-/more"),
        ("DELETE", "one.example", "t0ken_-"),
        ("GET", "two.example", "t0ken_-"),
    ] {
        let answer = ask(&secured, method, host, token).await;
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains(ANSWER), "{method} {host} {token}: {answer}");
    }
    let hits = secured.apps.each_ref().map(|app| app.hits());
    assert_eq!(hits, [3, 1]);
    // It is over: the token is the app's again.
    secured.publish(|_| {}).await;
    assert!(!ask(&secured, "GET", "one.example", "t0ken_-").await.contains(ANSWER));
}

/// What an authority is shown for this host (RFC 8737): signed by itself, with a critical extension that only it knows.
fn proof(host: &str) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    Certificate {
        names: [host.to_owned()].into(),
        chain: params.self_signed(&key).unwrap().pem(),
        key: PrivateKey(key.serialize_pem()),
    }
}

#[tokio::test]
async fn an_authority_that_asks_in_a_handshake_is_shown_the_proof_and_nobody_else_is() {
    let secured = Secured::start().await;
    let of_one = proof("one.example");
    let shown = of_one.clone();
    secured.publish(|[one, _]| one.tls.handshakes = vec![shown]).await;
    let mut asking = (*secured.authority.client(&["acme-tls/1"], None)).clone();
    asking.dangerous().set_certificate_verifier(std::sync::Arc::new(Anybody));
    let asking = std::sync::Arc::new(asking);
    let mut stream = shake(asking.clone(), secured.https, "one.example").await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    let der = session.peer_certificates().unwrap()[0].clone();
    assert_eq!(der, CertificateDer::from_pem_slice(of_one.chain.as_bytes()).unwrap());
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "nothing more is said");

    let refused = shake(asking, secured.https, "two.example").await.expect_err("it is not asked for");
    assert!(refused.contains("alert"), "{refused}");
    // Others on the same host have its own certificate, also while it is asked for.
    let stream = shake(secured.authority.client(&["h2"], None), secured.https, "one.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let metrics = secured.stage.admin("/metrics").await.1;
    assert!(!metrics.contains("reason=\"challenge\""), "it did not fail: {metrics}");
}

/// Takes every certificate, as who only looks at one.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
