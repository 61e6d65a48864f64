//! Challenges of ACME: an authority's question is answered, whatever the app asks of others.

use std::collections::BTreeMap;

use appbase_core::Prefix;
use appbase_core::v1::Guard;
use lb_core::v1::RouteSection;

use crate::client::raw;
use crate::tls::Secured;

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
