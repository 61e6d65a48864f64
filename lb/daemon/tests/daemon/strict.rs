//! Heads that two programs could read differently never reach an app.

use std::time::Duration;

use crate::client::raw;
use crate::stage::Stage;

#[tokio::test]
async fn ambiguous_heads_are_refused() {
    let (stage, app) = Stage::with_app("one").await;
    let many: String = (0..101).map(|number| format!("x-{number}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(40_000));
    let ok = |head: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n");
    for (bytes, status, code) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400", "bad-framing"),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), "400", "bad-framing"),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".to_owned(), "400", "bad-framing"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "400",
            "bad-framing",
        ),
        ("GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400", "bad-path"),
        ("GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400", "bad-path"),
        ("GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400", "bad-path"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), "400", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "400", ""),
        (ok(&many), "431", "head-too-large"),
        (ok(&large), "431", "head-too-large"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), "405", ""),
    ] {
        let limit = Duration::from_secs(5);
        let answer = tokio::time::timeout(limit, raw(stage.lb.http, bytes.as_bytes())).await.expect("it is closed");
        let first: String = bytes.chars().take(80).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{first:?} got {answer:?}");
        assert!(answer.to_lowercase().contains(&format!("x-platform-error: {code}")) || code.is_empty(), "{answer:?}");
    }
    assert_eq!(app.hits(), 0);
    let answer = raw(stage.lb.http, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.") && answer.ends_with("one"), "HTTP/1.0 needs no host: {answer:?}");
}
