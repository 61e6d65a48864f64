//! A full disk, a killed process, flipped bytes, two processes on one directory.

use std::fs;
use std::os::unix::fs::symlink;

use appbase_core::Digest;
use appbase_core::v1::media;
use reqwest::{Method, StatusCode};

use crate::world::{World, files, header, refused};

/// The kernel's own "no space left": the upload's file is one that takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let world = World::start().await;
    let upload = world.begin_upload("a").await;
    let id = upload.rsplit('/').next().expect("an id");
    let data = world.data().join("uploads").join(id).join("data");
    fs::remove_file(&data).expect("removed");
    symlink("/dev/full", &data).expect("linked");
    let problem = refused(world.patch(&upload, "0-4", b"bytes").await, 507, "UNAVAILABLE").await;
    assert_eq!(problem.code, "disk-full");
    assert!(!problem.hint.is_empty());
    refused(world.get(&upload).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    assert!(files(&world.data().join("uploads")).is_empty(), "the disk gets its space back");
    world.push_blob("a", b"room again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_is_a_normal_start() {
    let mut world = World::start().await;
    let upload = world.begin_upload("a").await;
    world.patch(&upload, "0-4", b"first").await;
    let gone = world.begin_upload("a").await;
    world.stop().await;

    let uploads = world.data().join("uploads");
    let id = |path: &str| path.rsplit('/').next().expect("an id").to_owned();
    // Written but never acknowledged: a torn chunk, an upload without a row, a row without a file, a staged manifest.
    let mut torn = fs::OpenOptions::new().append(true).open(uploads.join(id(&upload)).join("data")).expect("there");
    std::io::Write::write_all(&mut torn, b"\0\0\0torn").expect("written");
    fs::create_dir(uploads.join("0".repeat(32))).expect("made");
    fs::remove_dir_all(uploads.join(id(&gone))).expect("removed");
    fs::write(uploads.join("manifest-1"), b"{").expect("written");
    fs::write(world.data().join("blobs/sha256").join(Digest::of(b"stray").hex()), b"stray").expect("written");

    world.begin().await;
    assert_eq!(files(&uploads), [id(&upload)]);
    refused(world.get(&gone).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    assert_eq!(header(&world.get(&upload).await, "range"), "0-4");
    world.patch(&upload, "5-10", b"second").await;
    let response = world.send(Method::PUT, &format!("{upload}?digest={}", Digest::of(b"firstsecond")), "").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    // A file that was placed and never committed is not served, and does not stand in the way.
    let stray = Digest::of(b"stray");
    refused(world.get(&format!("/v2/a/blobs/{stray}")).await, 404, "BLOB_UNKNOWN").await;
    assert_eq!(repository::fsck::check(&world.data()).expect("checked").strays, [stray.hex()]);
    world.push_blob("a", b"stray").await;
    assert!(repository::fsck::check(&world.data()).expect("checked").strays.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_finds_what_changed_on_disk() {
    let world = World::start().await;
    let bytes = world.manifest("a", media::VERSION, b"{}", &[b"flipped", b"short", b"lost", b"good"]).await;
    world.put_manifest("a", "1", &bytes).await;
    let report = repository::fsck::check(&world.data()).expect("checked");
    assert!(report.is_sound() && report.blobs == 6, "{report}");

    let file = |bytes: &[u8]| world.data().join("blobs/sha256").join(Digest::of(bytes).hex());
    fs::write(file(b"flipped"), b"flopped").expect("written");
    fs::write(file(b"short"), b"shor").expect("written");
    fs::remove_file(file(b"lost")).expect("removed");
    let report = repository::fsck::check(&world.data()).expect("checked");
    assert_eq!(report.problems.len(), 3, "{report}");
    for bytes in [&b"flipped"[..], b"short", b"lost"] {
        let digest = Digest::of(bytes).to_string();
        assert!(report.problems.iter().any(|problem| problem.contains(&digest)), "{report}");
    }
    refused(world.get(&format!("/v2/a/blobs/{}", Digest::of(b"short"))).await, 500, "UNAVAILABLE").await;
    // Pushing the same bytes again repairs.
    for bytes in [&b"flipped"[..], b"short", b"lost"] {
        world.push_blob("a", bytes).await;
    }
    assert!(repository::fsck::check(&world.data()).expect("checked").is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_who_has_the_directory() {
    let mut world = World::start().await;
    let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
    let config = repository::Config::on_free_ports(world.data());
    let error = repository::run(config.clone(), &tasks, &shutdown).await.expect_err("refused");
    let text = kit::problem::chain(&error);
    assert!(
        text.contains("is in use by another repository") && text.contains(&std::process::id().to_string()),
        "{text}"
    );
    world.stop().await;
    let handle = repository::run(config, &tasks, &shutdown).await.expect("free again");
    shutdown.ask();
    handle.finished(std::time::Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_or_broken_catalogue_is_refused() {
    let mut world = World::start().await;
    world.stop().await;
    let catalogue = world.data().join("catalogue.db");
    let start = async || {
        let config = repository::Config::on_free_ports(world.data());
        let error = repository::run(config, &kit::Tasks::new(), &kit::Shutdown::new()).await.expect_err("refused");
        kit::problem::chain(&error)
    };
    let connection = rusqlite::Connection::open(&catalogue).expect("opens");
    connection.pragma_update(None, "user_version", 99).expect("set");
    drop(connection);
    let text = start().await;
    assert!(text.contains("schema 99"), "{text}");
    fs::write(&catalogue, b"not a database at all, but long enough to be taken for one".repeat(100)).expect("written");
    let text = start().await;
    assert!(text.contains("cannot open the data directory"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_answers() {
    let world = World::start().await;
    let admin = world.handle().admin;
    kit::admin::healthcheck(admin).await.expect("ready");
    world.get("/v2/").await;
    assert_eq!(world.metric("platform_repository_requests_total{code=\"2xx\"}").await, 1);
    assert!(world.metric("platform_repository_disk_free_bytes").await > 0);
}
