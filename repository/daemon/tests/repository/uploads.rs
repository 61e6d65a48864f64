//! Blobs in and out.

use std::time::Duration;

use appbase_core::Digest;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::world::{World, files, header, refused};

#[tokio::test(flavor = "multi_thread")]
async fn whole_blobs_go_in_and_out_and_are_kept_once() {
    let world = World::start().await;
    let bytes = b"some bytes".repeat(200_000);
    let digest = world.push_blob("a", &bytes).await;
    world.push_blob("b/c", &bytes).await;
    for name in ["a", "b/c"] {
        let response = world.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
        assert_eq!(header(&response, "content-length"), bytes.len().to_string());
        assert_eq!(response.bytes().await.expect("a body"), bytes);
    }
    let head = world.send(Method::HEAD, &format!("/v2/a/blobs/{digest}"), "").await;
    assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, bytes.len().to_string()));
    assert_eq!(files(&world.data().join("blobs/sha256")), [digest.hex()]);
    assert!(files(&world.data().join("uploads")).is_empty(), "nothing is left of finished uploads");
    let other = world.get(&format!("/v2/other/blobs/{digest}")).await;
    refused(other, 404, "BLOB_UNKNOWN").await;
    assert_eq!(world.metric("platform_repository_blobs_stored_total").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_and_ranged_chunks_both_work() {
    let world = World::start().await;
    // As Docker does it: one PATCH of unknown length, an empty PUT.
    let upload = world.begin_upload("a").await;
    let pieces = futures_util::stream::iter(["one ", "two"].map(Ok::<_, std::io::Error>));
    let response = world.send(Method::PATCH, &upload, reqwest::Body::wrap_stream(pieces)).await;
    assert_eq!((response.status(), header(&response, "range")), (StatusCode::ACCEPTED, "0-6".to_owned()));
    let digest = Digest::of(b"one two");
    // Docker escapes the colon.
    let put = format!("{}?digest=sha256%3A{}", header(&response, "location"), digest.hex());
    let response = world.send(Method::PUT, &put, "").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "location"), format!("/v2/a/blobs/{digest}"));
    refused(world.get(&upload).await, 404, "BLOB_UPLOAD_UNKNOWN").await;

    // Ranged, with the last chunk in the PUT.
    let upload = world.begin_upload("a").await;
    assert_eq!(world.patch(&upload, "0-3", b"0123").await.status(), StatusCode::ACCEPTED);
    for (range, bytes) in [("5-8", b"5678"), ("0-3", b"0123")] {
        let response = world.patch(&upload, range, bytes).await;
        assert_eq!(header(&response, "range"), "0-3", "says where to go on");
        refused(response, 416, "BLOB_UPLOAD_INVALID").await;
    }
    let digest = Digest::of(b"01234567");
    let finish = |range: &'static str| {
        let request = world.request(Method::PUT, &format!("{upload}?digest={digest}"));
        request.header("content-range", range).body("4567").send()
    };
    refused(finish("6-9").await.expect("an answer"), 416, "BLOB_UPLOAD_INVALID").await;
    assert_eq!(finish("4-7").await.expect("an answer").status(), StatusCode::CREATED);
    let response = world.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(response.bytes().await.expect("a body"), "01234567");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_not_stored() {
    let world = World::start().await;
    let digest = Digest::of(b"right");
    let response = world.send(Method::POST, &format!("/v2/a/blobs/uploads/?digest={digest}"), "wrong").await;
    let problem = refused(response, 400, "DIGEST_INVALID").await;
    assert_eq!(problem.code, "digest-mismatch");
    let upload = world.begin_upload("a").await;
    world.patch(&upload, "0-4", b"wrong").await;
    let response = world.send(Method::PUT, &format!("{upload}?digest={digest}"), "").await;
    refused(response, 400, "DIGEST_INVALID").await;
    refused(world.get(&format!("/v2/a/blobs/{digest}")).await, 404, "BLOB_UNKNOWN").await;
    for directory in ["blobs/sha256", "uploads"] {
        assert!(files(&world.data().join(directory)).is_empty(), "{directory}");
    }
    assert_eq!(world.metric("platform_repository_uploads_open").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_blob() {
    let world = World::start().await;
    let digest = world.push_blob("a", b"0123456789").await;
    for (range, status, part) in
        [("bytes=2-4", 206, "234"), ("bytes=7-", 206, "789"), ("bytes=-2", 206, "89"), ("lines=1", 200, "0123456789")]
    {
        let request = world.request(Method::GET, &format!("/v2/a/blobs/{digest}")).header("range", range);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), status, "{range}");
        if range == "bytes=2-4" {
            assert_eq!(header(&response, "content-range"), "bytes 2-4/10");
        }
        assert_eq!(response.text().await.expect("a body"), part, "{range}");
    }
    let request = world.request(Method::GET, &format!("/v2/a/blobs/{digest}")).header("range", "bytes=10-");
    let response = request.send().await.expect("an answer");
    assert_eq!(header(&response, "content-range"), "bytes */10");
    refused(response, 416, "SIZE_INVALID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_chunk_is_kept_and_resumed() {
    let world = World::start().await;
    let upload = world.begin_upload("a").await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut stream = tokio::net::TcpStream::connect(world.handle().address).await.expect("connects");
    let head = format!("PATCH {upload} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", bytes.len());
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&bytes[..2_000_000]).await.expect("sent");
    stream.shutdown().await.expect("cut");
    drop(stream);

    let offset = wait_for_bytes(&world, &upload).await;
    assert!(offset <= 2_000_000, "{offset}");
    let range = format!("{offset}-{}", bytes.len() - 1);
    let response = world.patch(&upload, &range, &bytes[offset..]).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let digest = Digest::of(&bytes);
    let response = world.send(Method::PUT, &format!("{upload}?digest={digest}"), "").await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

/// Bytes stored of a cut upload, as soon as there are any.
async fn wait_for_bytes(world: &World, upload: &str) -> usize {
    for _ in 0..500 {
        let response = world.get(upload).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let range = header(&response, "range");
        let last: usize = range.trim_start_matches("0-").parse().expect("a range");
        if last > 0 {
            return last + 1;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing of the cut chunk was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_restart() {
    let mut world = World::start().await;
    let upload = world.begin_upload("a").await;
    world.patch(&upload, "0-4", b"first").await;
    world.restart().await;
    assert_eq!(header(&world.get(&upload).await, "range"), "0-4");
    assert_eq!(world.patch(&upload, "5-10", b"second").await.status(), StatusCode::ACCEPTED);
    let digest = Digest::of(b"firstsecond");
    let response = world.send(Method::PUT, &format!("{upload}?digest={digest}"), "").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    world.restart().await;
    let response = world.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(response.text().await.expect("a body"), "firstsecond");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_who_is_still_sending() {
    let world = World::start().await;
    let upload = world.begin_upload("a").await;
    for _ in 0..20 {
        let response = world.patch(&upload, "7-4194310", &vec![1; 4 << 20]).await;
        assert_eq!(header(&response, "range"), "0-0");
        refused(response, 416, "BLOB_UPLOAD_INVALID").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_to_one_upload_take_turns() {
    let world = World::start().await;
    let upload = world.begin_upload("a").await;
    let bytes = vec![7u8; 1_000_000];
    let (one, two) = tokio::join!(world.patch(&upload, "0-999999", &bytes), world.patch(&upload, "0-999999", &bytes));
    let mut statuses = [one.status().as_u16(), two.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 416], "the second one finds that the first was there");
    let response = world.send(Method::PUT, &format!("{upload}?digest={}", Digest::of(&bytes)), "").await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_and_cancels() {
    let world = World::start().await;
    let digest = world.push_blob("a", b"shared").await;
    let mount = |name: &str, from: &str| format!("/v2/{name}/blobs/uploads/?mount={digest}&from={from}");
    let response = world.send(Method::POST, &mount("b", "a"), "").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(world.get(&format!("/v2/b/blobs/{digest}")).await.status(), StatusCode::OK);
    let response = world.send(Method::POST, &mount("c", "none"), "").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED, "not there: an upload begins instead");
    let upload = header(&response, "location");
    assert_eq!(world.send(Method::DELETE, &upload, "").await.status(), StatusCode::NO_CONTENT);
    refused(world.get(&upload).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    assert!(files(&world.data().join("uploads")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let world = World::start_with(|config| {
        config.blob_bytes_max = 1000;
        config.uploads_max = 2;
    })
    .await;
    let upload = world.begin_upload("a").await;
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![0u8; 600]), Ok(vec![0u8; 600])]);
    let response = world.send(Method::PATCH, &upload, reqwest::Body::wrap_stream(pieces)).await;
    refused(response, 413, "SIZE_INVALID").await;
    refused(world.get(&upload).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    world.push_blob("a", &[1; 1000]).await;

    let first = world.begin_upload("a").await;
    world.begin_upload("a").await;
    let response = world.send(Method::POST, "/v2/a/blobs/uploads/", "").await;
    refused(response, 429, "TOOMANYREQUESTS").await;
    world.send(Method::DELETE, &first, "").await;
    world.begin_upload("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_paths_are_refused() {
    let world = World::start().await;
    let digest = Digest::of(b"x");
    let long = "a".repeat(129);
    for (method, path, status, code) in [
        (Method::GET, "/v2/A/tags/list".to_owned(), 400, "NAME_INVALID"),
        (Method::GET, format!("/v2/{long}/tags/list"), 400, "NAME_INVALID"),
        (Method::POST, "/v2/a..b/blobs/uploads/".to_owned(), 400, "NAME_INVALID"),
        (Method::POST, "/v2/a%2f..%2fb/blobs/uploads/".to_owned(), 400, "NAME_INVALID"),
        (Method::GET, "/v2/a/blobs/sha256:00".to_owned(), 400, "DIGEST_INVALID"),
        (Method::POST, "/v2/a/blobs/uploads/?digest=nonsense".to_owned(), 400, "DIGEST_INVALID"),
        (Method::GET, "/v2/none/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        (Method::GET, "/v2/none/manifests/1".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (Method::DELETE, format!("/v2/a/manifests/{digest}"), 405, "UNSUPPORTED"),
        (Method::PUT, format!("/v2/a/blobs/{digest}"), 405, "UNSUPPORTED"),
        (Method::GET, "/nonsense".to_owned(), 404, "UNSUPPORTED"),
    ] {
        println!("{method} {path}");
        refused(world.send(method, &path, "").await, status, code).await;
    }
    // Dots that a client library would resolve are sent by hand.
    let mut stream = tokio::net::TcpStream::connect(world.handle().address).await.expect("connects");
    stream.write_all(b"GET /v2/../../etc/tags/list HTTP/1.0\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 400") && answer.contains("NAME_INVALID"), "{answer}");

    let base = world.get("/v2/").await;
    assert_eq!(
        (base.status(), header(&base, "docker-distribution-api-version")),
        (StatusCode::OK, "registry/2.0".into())
    );
}
