//! Proxies in front of lb say who the client is, and nobody else may.

use appbase_core::Prefix;
use lb::Config;

use crate::client::raw;
use crate::stage::{Active, Stage, config, eventually, section};

async fn behind(proxies: &str) -> Stage {
    let proxies = vec![Prefix::parse(proxies).unwrap()];
    let stage = Stage::start_as(Config { proxies, ..config() }).await;
    let app = stage.app("one").await;
    stage.controller.publish(&[section(&[(&app, Active)])]).await;
    stage.up("one").await;
    stage
}

const ASKS: &[u8] = b"GET /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_proxy_names_the_client_in_both_versions() {
    let stage = behind("127.0.0.0/8").await;
    let v2 = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[192, 0, 2, 9, 10, 0, 0, 1, 0, 5, 0, 80]].concat();
    for (header, client) in [(b"PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\n".to_vec(), "192.0.2.7"), (v2, "192.0.2.9")] {
        let answer = raw(stage.lb.http, &[&header, ASKS].concat()).await;
        assert!(answer.contains(&format!("x-forwarded-for: {client}\n")), "{answer}");
    }
    // Its own connection, a probe say.
    let answer = raw(stage.lb.http, &[b"PROXY UNKNOWN\r\n", ASKS].concat()).await;
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{answer}");
    assert_eq!(raw(stage.lb.http, ASKS).await, "", "a proxy says who it is");
    eventually("it is counted", async || stage.admin("/metrics").await.1.contains("platform_lb_not_proxied_total 1\n"))
        .await;
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let stage = behind("192.0.2.0/24").await;
    let answer = raw(stage.lb.http, &[b"PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\n", ASKS].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(raw(stage.lb.http, ASKS).await.contains("x-forwarded-for: 127.0.0.1\n"));
}
