//! Manifests and tags.

use appbase_core::Digest;
use appbase_core::v1::media;
use reqwest::{Method, StatusCode};

use crate::world::{World, files, header, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_version_goes_in_and_out_exactly() {
    let mut world = World::start().await;
    let bytes = world.manifest("hello", media::VERSION, b"{}", &[b"layer"]).await;
    let digest = Digest::of(&bytes);
    let response = world.put_manifest("hello", "2.4.1", &bytes).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
    assert_eq!(header(&response, "location"), "/v2/hello/manifests/2.4.1");
    world.restart().await;
    for reference in ["2.4.1", &digest.to_string()] {
        let path = format!("/v2/hello/manifests/{reference}");
        let head = world.send(Method::HEAD, &path, "").await;
        assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, bytes.len().to_string()));
        let response = world.get(&path).await;
        assert_eq!(header(&response, "content-type"), media::MANIFEST);
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
        assert_eq!(response.bytes().await.expect("a body"), bytes);
    }
    refused(world.get(&format!("/v2/other/manifests/{digest}")).await, 404, "MANIFEST_UNKNOWN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_never_overwritten_and_live_moves() {
    let world = World::start().await;
    let one = world.manifest("a", media::VERSION, b"1", &[]).await;
    let two = world.manifest("a", media::VERSION, b"2", &[]).await;
    for tag in ["1", "production-r7"] {
        assert_eq!(world.put_manifest("a", tag, &one).await.status(), StatusCode::CREATED);
        assert_eq!(world.put_manifest("a", tag, &one).await.status(), StatusCode::CREATED, "the same once more");
        let problem = refused(world.put_manifest("a", tag, &two).await, 409, "DENIED").await;
        assert_eq!(problem.code, "version-exists");
        assert!(problem.title.contains("version exists with other bytes"), "{}", problem.title);
        let response = world.get(&format!("/v2/a/manifests/{tag}")).await;
        assert_eq!(response.bytes().await.expect("a body"), one);
    }
    assert_eq!(
        files(&world.data().join("blobs/sha256")).len(),
        3,
        "two configs and one manifest: of the refused one nothing was kept"
    );
    for manifest in [&one, &two] {
        assert_eq!(world.put_manifest("a", "production-live", manifest).await.status(), StatusCode::CREATED);
        let response = world.get("/v2/a/manifests/production-live").await;
        assert_eq!(&response.bytes().await.expect("a body"), manifest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_pushes_of_one_version_have_one_winner() {
    let world = World::start().await;
    let mut manifests = Vec::new();
    for n in 0..8u8 {
        manifests.push(world.manifest("a", media::VERSION, &[n], &[]).await);
    }
    let pushes = manifests.iter().map(|bytes| world.put_manifest("a", "1", bytes));
    let answers = futures_util::future::join_all(pushes).await;
    let won: Vec<usize> = (0..answers.len()).filter(|index| answers[*index].status() == StatusCode::CREATED).collect();
    assert_eq!(won.len(), 1);
    let response = world.get("/v2/a/manifests/1").await;
    assert_eq!(response.bytes().await.expect("a body"), manifests[won[0]]);
    let report = repository::fsck::check(&world.data()).expect("checked");
    assert!(report.is_sound() && report.strays.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_is_refused() {
    let world = World::start().await;
    let good = world.manifest("a", media::VERSION, b"{}", &[b"layer"]).await;
    // Its blobs are in "a", not in "b".
    let problem = refused(world.put_manifest("b", "1", &good).await, 404, "MANIFEST_BLOB_UNKNOWN").await;
    assert!(problem.title.contains("sha256:"), "says which one: {}", problem.title);
    let config = Digest::of(b"{}");
    let lying = repository_core::manifest::manifest(media::VERSION, config, 3, &[]);
    refused(world.put_manifest("a", "1", &lying).await, 400, "MANIFEST_INVALID").await;
    refused(world.put_manifest("a", "1", b"{").await, 400, "MANIFEST_INVALID").await;
    refused(world.put_manifest("a", "-1", &good).await, 400, "MANIFEST_INVALID").await;
    refused(world.put_manifest("a", &config.to_string(), &good).await, 400, "DIGEST_INVALID").await;

    let large = vec![b' '; (4 << 20) + 1];
    refused(world.put_manifest("a", "1", &large).await, 413, "SIZE_INVALID").await;
    let chunked = futures_util::stream::iter([Ok::<_, std::io::Error>(large)]);
    let response = world.send(Method::PUT, "/v2/a/manifests/1", reqwest::Body::wrap_stream(chunked)).await;
    refused(response, 413, "SIZE_INVALID").await;
    refused(world.get("/v2/a/manifests/1").await, 404, "MANIFEST_UNKNOWN").await;

    let mut padded = good.clone();
    padded.resize(4 << 20, b' ');
    assert_eq!(world.put_manifest("a", "1", &padded).await.status(), StatusCode::CREATED, "exactly the limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_come_in_order_and_in_pages() {
    let world = World::start().await;
    let bytes = world.manifest("a/b", media::VERSION, b"{}", &[]).await;
    let list = async |path: String| {
        let response = world.get(&path).await;
        let link = response.headers().get("link").map(|link| link.to_str().expect("text").to_owned());
        let list: repository_core::v1::TagList = response.json().await.expect("a list");
        assert_eq!(list.name, "a/b");
        (list.tags, link)
    };
    assert_eq!(list("/v2/a/b/tags/list".to_owned()).await, (vec![], None));
    for tag in ["b", "a", "10", "B", "2"] {
        world.put_manifest("a/b", tag, &bytes).await;
    }
    assert_eq!(list("/v2/a/b/tags/list".to_owned()).await.0, ["10", "2", "B", "a", "b"]);
    let mut path = "/v2/a/b/tags/list?n=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let (tags, link) = list(path).await;
        pages.push(tags.join(" "));
        let Some(link) = link else { break };
        path = link.split(['<', '>']).nth(1).expect("a link").to_owned();
    }
    assert_eq!(pages, ["10 2", "B a", "b"]);
    assert_eq!(list("/v2/a/b/tags/list?n=0".to_owned()).await.0, [""; 0]);
    refused(world.get("/v2/a/b/tags/list?n=x").await, 400, "UNSUPPORTED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tools_find_the_tags_in_the_layout() {
    let mut world = World::start().await;
    let bytes = world.manifest("a", media::VERSION, b"{}", &[b"layer"]).await;
    world.put_manifest("a", "1", &bytes).await;
    world.stop().await;
    let read = |name: &str| std::fs::read_to_string(world.data().join(name)).expect("readable");
    assert!(read("oci-layout").contains("imageLayoutVersion"));
    let index: serde_json::Value = serde_json::from_str(&read("index.json")).expect("JSON");
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], Digest::of(&bytes).to_string());
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "a:1");
    assert_eq!(std::fs::read(world.data().join("blobs/sha256").join(Digest::of(&bytes).hex())).expect("there"), bytes);
}
