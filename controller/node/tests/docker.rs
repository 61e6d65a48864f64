//! The Docker engine against a real one. Each test is a cluster of its own and takes away all that carries its label.
//!
//! Without Docker these tests print that they were skipped; `PLATFORMER_TEST_DOCKER=require` makes that a failure.

#[path = "docker/place.rs"]
mod place;
#[path = "docker/relay.rs"]
mod relay;

use std::time::Duration;

use appbase_core::Digest;
use appbase_core::v1::Source;
use controller_core::v1::compute::InstancePhase;
use futures_util::StreamExt;
use node::docker::{Config, DockerEngine};
use node::{Compute, ComputeError, LogRequest};
use place::{Place, archive};

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_artifact_lives_its_life() {
    let Some(place) = Place::open(0).await else { return };
    let engine = &place.engine;
    let request = place.request("life", 0);
    let mut hints = engine.hints();
    engine.create(&request).await.expect("created");
    engine.create(&request).await.expect("adopted");
    let seen = place.seen(&request.id).await.expect("seen");
    assert_eq!((seen.phase, seen.labels.clone()), (InstancePhase::Created, request.labels.clone()));
    assert_eq!(seen.last_exit, None);

    engine.start(&request.id).await.expect("started");
    engine.start(&request.id).await.expect("started twice");
    tokio::time::timeout(Duration::from_secs(5), hints.changed()).await.expect("a hint").expect("an engine");
    let log = place.log_until(&request.id, "resolver").await;
    for expect in [
        "arguments run --config /platformer/instance/instance.json",
        "user 65532",
        "config 600 65532 ",
        "volume writable",
        "root read-only",
        "tmp writable",
        "PORT=8080",
    ] {
        assert!(log.contains(expect), "{expect} in\n{log}");
    }
    assert!(!log.contains("OTHER=") && !log.contains("secret"), "{log}");
    let seen = place.wait(&request.id, |seen| seen.phase == InstancePhase::Running && seen.running_for_ms > 0).await;
    assert!(seen.running_for_ms < 60_000 && seen.restarts == 0, "{seen:?}");
    let inspected = place.docker(&["inspect", "-f", &inspect(&place.network("life")), &place.name(&request.id)]);
    assert_eq!(inspected.trim(), "10.208.0.16 256 134217728 [ALL] [no-new-privileges] unless-stopped json-file");

    engine.stop(&request.id, GRACE).await.expect("stopped");
    engine.stop(&request.id, GRACE).await.expect("stopped twice");
    let seen = place.seen(&request.id).await.expect("seen");
    assert_eq!((seen.phase, seen.last_exit.map(|exit| exit.code)), (InstancePhase::Ended, Some(Some(0))));
    assert!(place.log_until(&request.id, "asked").await.contains("asked to stop"));
    engine.start(&request.id).await.expect("an ended one starts again");
    engine.remove(&request.id).await.expect("removed while running");
    engine.remove(&request.id).await.expect("removed twice");
    assert_eq!(place.seen(&request.id).await, None);
    assert_eq!(place.docker(&["volume", "ls", "-q", "-f", &format!("name={}", place.name(&request.id))]), "");
    assert!(matches!(engine.start(&request.id).await, Err(ComputeError::Unknown(_))));
    let none = engine.logs(&request.id, LogRequest { tail: 1, follow: false }).await.map(|_| ());
    assert!(matches!(none, Err(ComputeError::Unknown(_))));
}

fn inspect(network: &str) -> String {
    let of_host = ["PidsLimit", "Memory", "CapDrop", "SecurityOpt", "RestartPolicy.Name", "LogConfig.Type"];
    let of_host = of_host.map(|field| format!("{{{{.HostConfig.{field}}}}}")).join(" ");
    format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}} {of_host}")
}

#[tokio::test]
async fn an_image_runs_its_own_words_as_its_own_user() {
    let Some(place) = Place::open(1).await else { return };
    let engine = &place.engine;
    let (bytes, image) = archive(&place.tag("own"), "app", &["/app", "serve"], "root:x:0:0:::\napp:x:1234:1235:::\n");
    assert!(!engine.has_image(&image).await.expect("asked"));
    engine.load_image(place::stream(bytes.clone()), &image).await.expect("loaded");
    engine.load_image(place::stream(bytes), &image).await.expect("loaded twice");
    assert!(engine.has_image(&image).await.expect("asked"));
    let mut request = place.request("image", 0);
    request.source = Source::Image { archive: Digest::of(b"archive"), image };
    engine.create(&request).await.expect("created");
    engine.start(&request.id).await.expect("started");
    let log = place.log_until(&request.id, "resolver").await;
    for expect in ["instance.json -- /app serve", "user 1234", "config 600 1234 ", "volume writable", "OF_IMAGE=kept"] {
        assert!(log.contains(expect), "{expect} in\n{log}");
    }
    engine.remove(&request.id).await.expect("removed");
}

#[tokio::test]
async fn an_artifact_in_another_base_owns_its_volume() {
    let Some(place) = Place::open(2).await else { return };
    let tag = place.tag("other");
    let (bytes, image) = archive(&tag, "", &["/app"], "");
    place.engine.load_image(place::stream(bytes), &image).await.expect("loaded");
    let mut request = place.request("base", 0);
    request.base = Some(tag);
    place.engine.create(&request).await.expect("created");
    place.engine.start(&request.id).await.expect("started");
    let log = place.log_until(&request.id, "resolver").await;
    for expect in ["user 65532", "config 600 65532 ", "volume writable", "root read-only"] {
        assert!(log.contains(expect), "{expect} in\n{log}");
    }
}

#[tokio::test]
async fn a_crash_is_counted_and_a_deaf_one_is_killed() {
    let Some(place) = Place::open(3).await else { return };
    let mut crash = place.request("crash", 0);
    crash.config.environment_variables.insert("PLATFORM_STUB".to_owned(), "crash".to_owned());
    let mut deaf = place.request("crash", 1);
    deaf.config.environment_variables.insert("PLATFORM_STUB".to_owned(), "deaf".to_owned());
    for request in [&crash, &deaf] {
        place.engine.create(request).await.expect("created");
        place.engine.start(&request.id).await.expect("started");
    }
    let seen = place.wait(&crash.id, |seen| seen.restarts >= 2 && seen.last_exit.is_some()).await;
    assert_eq!(seen.phase, InstancePhase::Running, "something will start it again");
    assert_eq!(seen.last_exit.and_then(|exit| exit.code), Some(3));
    place.log_until(&deaf.id, "resolver").await;
    place.engine.stop(&deaf.id, Duration::from_millis(300)).await.expect("killed");
    let seen = place.seen(&deaf.id).await.expect("seen");
    assert_eq!(seen.last_exit.and_then(|exit| exit.signal), Some(9));
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let Some(place) = Place::open(4).await else { return };
    let mut request = place.request("foreign", 0);
    let image = place.base_image();
    place.docker(&["create", "--name", &place.name(&request.id), "--label", &place.mark(), &image]);
    let refused = |answer: Result<(), ComputeError>| {
        assert!(matches!(&answer, Err(ComputeError::Refused { .. })), "{answer:?}");
    };
    refused(place.engine.create(&request).await);
    refused(place.engine.start(&request.id).await);
    refused(place.engine.stop(&request.id, GRACE).await);
    refused(place.engine.remove(&request.id).await);
    assert_eq!(place.seen(&request.id).await, None);
    place.docker(&["rm", &place.name(&request.id)]);

    place.engine.create(&request).await.expect("created");
    request.labels.release = 2;
    refused(place.engine.create(&request).await);
    let mut foreign = request.clone();
    foreign.labels.cluster = appbase_core::ClusterId::parse("another1").expect("a name");
    refused(place.engine.create(&foreign).await);
}

#[tokio::test]
async fn parts_are_joined_at_their_places_also_when_made_anew() {
    let Some(place) = Place::open(5).await else { return };
    let image = place.base_image();
    let cluster = format!("io.platformer.cluster={}", place.cluster);
    let name = |part: &str| format!("{}-{part}", place.cluster);
    for part in ["lb", "dns"] {
        let label = format!("io.platformer.part={part}");
        place.docker(&[
            "run",
            "-d",
            "--name",
            &name(part),
            "--label",
            &cluster,
            "--label",
            &label,
            &image,
            "run",
            "",
            "",
        ]);
    }
    let request = place.request("parts", 0);
    place.engine.create(&request).await.expect("created");
    let at = |part: &str| {
        let form = "{{range $n, $e := .NetworkSettings.Networks}}{{$n}}={{$e.IPAddress}} {{end}}";
        place.docker(&["inspect", "-f", form, &name(part)])
    };
    let (base, network) = (place.range_text(), place.network("parts"));
    assert!(at("lb").contains(&format!("{network}={base}.2 ")), "{}", at("lb"));
    assert!(at("dns").contains(&format!("{network}={base}.3 ")), "{}", at("dns"));
    let dns = place.docker(&["inspect", "-f", "{{.HostConfig.Dns}}", &place.name(&request.id)]);
    assert_eq!(dns.trim(), format!("[{base}.3]"));

    place.docker(&["rm", "-f", &name("lb")]);
    let label = "io.platformer.part=lb";
    place.docker(&["run", "-d", "--name", &name("lb"), "--label", &cluster, "--label", label, &image, "run", "", ""]);
    place.until("the new lb is joined", || at("lb").contains(&format!("{network}={base}.2 "))).await;
}

/// Of a controller that was killed after it had made a volume, or taken a container away.
#[tokio::test]
async fn volumes_that_no_instance_has_go_at_the_start() {
    let Some(place) = Place::open(11).await else { return };
    let kept = place.request("kept", 0);
    place.engine.create(&kept).await.expect("created");
    let (own, other) =
        (format!("io.platformer.cluster={}", place.cluster), "io.platformer.cluster=another1".to_owned());
    let server = "io.platformer.server=".to_owned() + kept.labels.server.as_str();
    let project = format!("io.platformer.project={}", place.cluster);
    let part = "io.platformer.volume=instance";
    for (name, cluster) in [("left", own), ("foreign", other)] {
        let name = format!("{}-{name}", place.cluster);
        let labels = ["--label", &cluster, "--label", &server, "--label", &project, "--label", part];
        place.docker(&[["volume", "create"].as_slice(), &labels, &[&name]].concat());
    }
    let _anew = place.engine_over("/var/run/docker.sock".as_ref()).await.expect("connected");
    let volumes = place.docker(&["volume", "ls", "-q", "-f", &format!("name={}", place.cluster)]);
    let volumes: Vec<&str> = volumes.lines().collect();
    place.docker(&["volume", "rm", &format!("{}-foreign", place.cluster)]);
    assert_eq!(volumes, [format!("{}-foreign", place.cluster), place.name(&kept.id)]);
}

#[tokio::test]
async fn two_platforms_on_one_engine_run_the_same_app() {
    let Some(one) = Place::open(8).await else { return };
    let Some(other) = Place::open(9).await else { return };
    let (project, part) = (format!("io.platformer.project={}", one.cluster), "io.platformer.part=lb");
    let lb = format!("{}-lb", one.cluster);
    one.docker(&["run", "-d", "--name", &lb, "--label", &project, "--label", part, &one.base_image(), "run", "", ""]);
    let mut requests = [one.request("same", 0), other.request("same", 0)];
    requests[1].id = requests[0].id.clone();
    for (place, request) in [(&one, &requests[0]), (&other, &requests[1])] {
        place.engine.create(request).await.expect("created");
        place.engine.start(&request.id).await.expect("started");
    }
    let networks = one.docker(&["inspect", "-f", "{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{end}}", &lb]);
    assert!(networks.contains(&one.network("same")), "a part belongs to its project: {networks}");
    assert!(!networks.contains(&other.network("same")), "and to no other: {networks}");
    one.engine.remove(&requests[0].id).await.expect("removed");
    assert_eq!(one.seen(&requests[0].id).await, None);
    let seen = other.seen(&requests[1].id).await.expect("the other's is untouched");
    assert_eq!((seen.phase, seen.labels), (InstancePhase::Running, requests[1].labels.clone()));
}

#[tokio::test]
async fn an_address_that_cannot_be_is_said_clearly() {
    let Some(place) = Place::open(6).await else { return };
    let mut request = place.request("address", 0);
    let said = |answer: Result<(), ComputeError>| answer.expect_err("refused").to_string();
    request.ip = Some("10.99.0.1".parse().expect("an address"));
    let text = said(place.engine.create(&request).await);
    assert!(text.contains("outside the cluster's range"), "{text}");
    request.ip = place.request("address", 0).ip;
    place.engine.create(&request).await.expect("created");
    let mut other = place.request("address2", 1);
    let text = said(place.engine.create(&other).await);
    assert!(text.contains("overlaps") && text.contains("another range"), "{text}");
    other.source = Source::Image { archive: Digest::of(b"a"), image: Digest::of(b"nothing").to_string() };
    let text = said(place.engine.create(&other).await);
    assert!(text.contains("not on this server"), "{text}");
    let text = said(place.engine.load_image(place::stream(b"no archive".to_vec()), "sha256:00").await);
    assert!(text.contains("load image"), "{text}");
}

#[tokio::test]
async fn no_docker_says_what_to_do() {
    let directory = std::env::temp_dir().join(format!("node-docker-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let connect = async |socket: &str| {
        let mut config = Config::new(place::cluster("none"), place::server(), "test");
        config.socket = directory.join(socket);
        let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
        let failed = DockerEngine::connect(config, kit::Clock::start(), &tasks, &shutdown).await.map(|_| ());
        assert!(matches!(&failed, Err(ComputeError::Unreachable { .. })), "{failed:?}");
        failed.expect_err("unreachable").to_string()
    };
    assert!(connect("missing.sock").await.contains("there is no socket"));
    drop(std::os::unix::net::UnixListener::bind(directory.join("dead.sock")).expect("bound"));
    let text = connect("dead.sock").await;
    assert!(text.contains("nothing listens"), "{text}");
    let rude = tokio::net::UnixListener::bind(directory.join("rude.sock")).expect("bound");
    let (text, _) = tokio::join!(connect("rude.sock"), async { drop(rude.accept().await) });
    assert!(text.contains("broke"), "{text}");
    std::fs::remove_dir_all(&directory).expect("removed");
}

/// A gap is an error, never an empty list: who takes it for one would make everything anew.
#[tokio::test]
async fn docker_may_be_gone_in_the_middle() {
    let Some(place) = Place::open(8).await else { return };
    let directory = std::env::temp_dir().join(format!("node-relay-{}", place.cluster));
    std::fs::create_dir_all(&directory).expect("a directory");
    let mut relay = relay::Relay::new(&directory);
    let engine = place.engine_over(&relay.socket).await.expect("connected");
    let request = place.request("gone", 0);
    engine.create(&request).await.expect("created");
    engine.start(&request.id).await.expect("started");
    let before = place.seen(&request.id).await.expect("seen");
    let mut hints = engine.hints();
    relay.take_away();
    for outcome in [
        engine.observe().await.map(|_| ()),
        engine.create(&place.request("gone", 1)).await,
        engine.stop(&request.id, GRACE).await,
        engine.remove(&request.id).await,
    ] {
        assert!(matches!(&outcome, Err(ComputeError::Unreachable { .. })), "{outcome:?}");
    }
    assert_eq!(place.seen(&request.id).await.map(|seen| seen.phase), Some(InstancePhase::Running));
    hints.mark_unchanged();
    relay.put_back();
    let seen = engine.observe().await.expect("it is back").instances;
    assert_eq!(seen.iter().map(|seen| (&seen.id, seen.restarts)).collect::<Vec<_>>(), [(&before.id, 0)]);
    // Its events are followed again: what happened meanwhile is looked at.
    tokio::time::timeout(Duration::from_secs(15), hints.changed()).await.expect("a hint").expect("an engine");
    engine.stop(&request.id, GRACE).await.expect("stopped");
    engine.remove(&request.id).await.expect("removed");
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[tokio::test]
async fn a_followed_log_goes_on_until_the_end() {
    let Some(place) = Place::open(7).await else { return };
    let request = place.request("follow", 0);
    place.engine.create(&request).await.expect("created");
    place.engine.start(&request.id).await.expect("started");
    place.log_until(&request.id, "resolver").await;
    let mut log = place.engine.logs(&request.id, LogRequest { tail: 1, follow: true }).await.expect("a log");
    let first = log.next().await.expect("a line").expect("readable");
    assert!(first.text.starts_with("resolver"), "{first:?}");
    place.engine.stop(&request.id, GRACE).await.expect("stopped");
    let rest: Vec<String> = log.map(|line| line.expect("readable").text).collect().await;
    assert_eq!(rest, ["asked to stop"]);
}
