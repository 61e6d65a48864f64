//! TLS on a whole platform: certificates that come by themselves, those that people bring, and a deploy under handshakes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tests::platform::eventually;
use tests::{Engine, Part, Platform};

tests::on_both_engines!(names_have_certificates_by_themselves_and_uploaded_ones_instead);

/// Who trusts one authority.
fn trusting(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // A session that goes on is shown no certificate.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A request on a connection of its own. The answer, head and all.
fn ask(config: &Arc<ClientConfig>, lb: SocketAddr, name: &str, path: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect(lb)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let host = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(Arc::clone(config), host).expect("a session");
    let mut tls = StreamOwned::new(session, stream);
    write!(tls, "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer)?;
    Ok(answer)
}

fn names_have_certificates_by_themselves_and_uploaded_ones_instead(engine: Engine) {
    let platform = Platform::on(engine);
    let further = "[https]\nredirect = true\nhsts = 3600\n";
    for version in ["1", "2"] {
        platform.push("hello", version, further);
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let local = trusting(&platform.ctl_ok(&["cert", "trust", "--out", "-"]));
    let lbs = [Part::Lb1, Part::Lb2].map(|lb| platform.https(lb));
    for lb in lbs {
        let answer = eventually("lb has the certificate", || ask(&local, lb, "hello.platform", "/greeting").ok());
        assert!(answer.contains("hello-world 1"), "{answer}");
        assert!(answer.contains("Strict-Transport-Security: max-age=3600\r\n"), "{answer}");
        assert!(ask(&local, lb, "other.platform", "/").is_err(), "a name that no app has");
    }
    let plain = tests::platform::http_request(platform.lb(), "hello.platform", "/greeting");
    assert_eq!(plain.map(|(status, _)| status), Some(308));

    // A deploy while others shake hands.
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = lbs
        .into_iter()
        .map(|lb| {
            let (stop, config) = (Arc::clone(&stop), Arc::clone(&local));
            std::thread::spawn(move || {
                let mut answered = 0;
                while !stop.load(Ordering::SeqCst) {
                    let answer = ask(&config, lb, "hello.platform", "/greeting").expect("no handshake fails");
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    platform.ctl_ok(&["deploy", "hello", "2"]);
    let own = rcgen::generate_simple_self_signed(vec!["hello.platform".to_owned()]).expect("a certificate");
    let place = tempfile::tempdir().expect("a directory");
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| place.path().join(name));
    std::fs::write(&chain, own.cert.pem()).expect("written");
    std::fs::write(&key, own.signing_key.serialize_pem()).expect("written");
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.join().expect("no client failed") > 0);
    }

    let [chain, key] = [&chain, &key].map(|path| path.to_str().expect("text"));
    platform.ctl_ok(&["cert", "add", chain, key]);
    let brought = trusting(&own.cert.pem());
    for lb in lbs {
        let answer = eventually("the uploaded one is shown", || ask(&brought, lb, "hello.platform", "/greeting").ok());
        assert!(answer.contains("hello-world 2"), "{answer}");
        assert!(ask(&local, lb, "hello.platform", "/").is_err(), "instead of the local one");
    }
    let listed = platform.ctl_ok(&["cert", "ls"]);
    assert!(listed.contains("hello.platform") && !listed.contains("PRIVATE"), "{listed}");
    let id = listed.lines().find_map(|line| line.split_whitespace().find(|word| word.starts_with("hello.platform-")));
    platform.ctl_ok(&["cert", "rm", id.expect("an id")]);
    for lb in lbs {
        eventually("the local one is back", || ask(&local, lb, "hello.platform", "/greeting").ok());
    }

    platform.ctl_ok(&["route", "add", "hello", "hello.platform/closed", "--allow", "192.0.2.0/24", "--rate", "5/60"]);
    for lb in lbs {
        let answer = ask(&local, lb, "hello.platform", "/closed").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not-allowed"), "{answer}");
    }
}
