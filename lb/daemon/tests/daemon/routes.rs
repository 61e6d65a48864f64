//! Routes that want more than a host and a path, and that change what goes through.

use appbase_core::ProcessName;
use appbase_core::v1::{HeaderEdits, Redirect, Route};

use crate::client::raw;
use crate::recorder::Recorder;
use crate::stage::{Active, section_of};

fn route(path: &str) -> Route {
    Route::new(None, path, ProcessName::default_name())
}

fn pairs<T: FromIterator<(String, String)>>(pairs: &[(&str, &str)]) -> T {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn requests_are_sent_elsewhere_rewritten_and_edited() {
    let (stage, recorder) = Recorder::stage().await;
    let mut section = section_of(&[("recorder", recorder.address, Active)]);
    let redirect = |to: &str, status| Some(Redirect { to: to.to_owned(), status });
    section.routes = vec![
        Route { redirect: redirect("https://{host}/new{rest}", 308), ..route("/old") },
        Route { redirect: redirect("/login", 302), headers: pairs(&[("cookie", "guest*")]), ..route("/") },
        Route { rewrite: Some("/v2".to_owned()), methods: ["GET".to_owned()].into(), ..route("/api") },
        Route {
            request_headers: HeaderEdits {
                set: pairs(&[("X-Tier", "gold"), ("Host", "inner.example")]),
                remove: ["Authorization".to_owned()].into(),
                ..HeaderEdits::default()
            },
            response_headers: HeaderEdits { add: pairs(&[("X-Frame-Options", "DENY")]), ..HeaderEdits::default() },
            ..route("/edited")
        },
        route("/plain"),
    ];
    stage.controller.publish(&[section]).await;
    let ask = async |request: &str| {
        let answer = raw(stage.lb.http, format!("{request}Connection: close\r\n\r\n").as_bytes()).await;
        (answer, recorder.take())
    };

    let (answer, reached) = ask("GET /old/x?y=z HTTP/1.1\r\nHost: A.example:8080\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
    assert!(answer.contains("\r\nLocation: https://a.example/new/x?y=z\r\n"), "{answer}");
    assert!(!answer.contains("X-Platform-Error") && reached.is_empty(), "{answer} {reached}");
    let (answer, _) = ask("GET /old//evil.example HTTP/1.1\r\nHost: a\r\n").await;
    assert!(answer.contains("\r\nLocation: https://a/new/evil.example\r\n"), "{answer}");

    let (answer, _) = ask("GET /any HTTP/1.1\r\nHost: a\r\nCookie: guest=1\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 302 ") && answer.contains("\r\nLocation: /login\r\n"), "{answer}");
    let (answer, _) = ask("GET /any HTTP/1.1\r\nHost: a\r\nCookie: user=1\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "no rule is left: {answer}");

    let (_, reached) = ask("GET /api/%41?q HTTP/1.1\r\nHost: a\r\n").await;
    assert!(reached.starts_with("GET /v2/%41?q HTTP/1.1\r\nHost: a\r\n"), "{reached}");
    let (answer, reached) = ask("DELETE /api/x HTTP/1.1\r\nHost: a\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && reached.is_empty(), "{answer}");

    let (answer, reached) = ask("GET /edited HTTP/1.1\r\nHost: a\r\nx-tier: none\r\nAuthorization: secret\r\n").await;
    assert!(reached.starts_with("GET /edited HTTP/1.1\r\nHost: inner.example\r\nX-Tier: gold\r\n"), "{reached}");
    assert!(!reached.contains("secret") && !reached.contains("none"), "{reached}");
    assert!(reached.contains("\r\nX-Forwarded-Host: a\r\n"), "{reached}");
    assert!(answer.contains("\r\nX-Frame-Options: DENY\r\n"), "{answer}");
    let (answer, reached) = ask("GET /plain HTTP/1.1\r\nHost: a\r\nx-tier: none\r\n").await;
    assert!(reached.contains("\r\nx-tier: none\r\n") && !answer.contains("X-Frame-Options"), "{reached} {answer}");
}

#[tokio::test]
async fn explanations_name_the_rules_that_do_not_fit() {
    let (stage, recorder) = Recorder::stage().await;
    let mut section = section_of(&[("recorder", recorder.address, Active)]);
    section.routes = vec![
        Route { headers: pairs(&[("x-beta", "yes")]), rewrite: Some("/beta".to_owned()), ..route("/") },
        route("/"),
    ];
    stage.controller.publish(&[section]).await;
    let explained = async |query: &str| -> serde_json::Value {
        serde_json::from_str(&stage.admin(&format!("/v1/route?{query}")).await.1).unwrap()
    };
    let plain = explained("host=a&path=/x").await;
    assert_eq!(plain["considered"][0]["miss"], "header x-beta does not fit", "{plain}");
    assert_eq!((&plain["considered"][1]["miss"], &plain["outcome"]), (&serde_json::Value::Null, &"forwarded".into()));
    let beta = explained("host=a&path=/x&headers=X-Beta:%20yes").await;
    assert_eq!((&beta["rule"]["rewrite"], &beta["detail"]), (&"/beta".into(), &"as /beta/x".into()), "{beta}");
    assert_eq!(explained("path=/x&headers=no-colon").await["code"], "bad-headers");
}
