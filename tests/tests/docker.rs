//! What only containers have: images, users, a shell, restarts by the engine, networks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use tests::docker::archive::{Image, has_static_shell};
use tests::docker::docker;
use tests::platform::eventually;
use tests::{Engine, Load, Part, Platform};

fn platform() -> Option<Platform> {
    Engine::Docker.answers().then(|| Platform::on(Engine::Docker))
}

/// A field of an instance's container, as Docker shows it.
fn inspect(instance: &str, field: &str) -> String {
    docker(&["inspect", "-f", &format!("{{{{{field}}}}}"), instance]).trim().to_owned()
}

/// hello-world as an image of its own: an entrypoint, a user by name, a variable.
fn image(platform: &Platform, version: &str) -> String {
    let tag = platform.docker().image(&format!("hello-{version}"));
    let mut image = Image::new(tag, "app", &["/srv/hello", "--any", "word"]);
    image.directory("etc", 0o755, 0, 0);
    image.file("etc/passwd", 0o644, b"root:x:0:0:::\napp:x:1234:1235:::\n");
    image.file("etc/group", 0o644, b"root:x:0:\napp:x:1235:\n");
    image.directory("srv", 0o755, 0, 0);
    image.program("srv/hello", "hello-world");
    image.variable(&format!("HELLO_VERSION=image {version}"));
    let path = platform.path(&format!("hello-{version}.tar"));
    std::fs::write(&path, platform.docker().archive(image)).expect("the archive is written");
    path.display().to_string()
}

#[test]
fn an_image_is_pushed_and_flips_like_an_artifact() {
    let Some(platform) = platform() else { return };
    let file = platform.path("platform.toml");
    std::fs::write(&file, "port = 8080\nhosts = [\"hello.test\"]\ninstances = 2\n").expect("an app file");
    let file = file.display().to_string();
    for version in ["1", "2"] {
        platform.ctl_ok(&["artifact", "push", "hello", version, &image(&platform, version), "--file", &file]);
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world image 1\n".to_owned())));
    let load = Load::start(platform.lb(), "hello");
    let said = platform.ctl_ok(&["deploy", "hello", "2"]);
    assert!(said.contains(", 0 failed"), "{said}");
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world image 2\n".to_owned())));
    platform.ctl_ok(&["rollback", "hello"]);
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world image 1\n".to_owned())));
    platform.assert_nothing_failed(load);

    let pid = platform.instance_processes()[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("boot runs");
    assert!(status.contains("\nUid:\t1234\t") && status.contains("\nGid:\t1235\t"), "{status}");
    let instance = &platform.docker().instances()[0];
    assert_eq!(inspect(instance, ".HostConfig.CapDrop"), "[NET_RAW]");
}

#[test]
fn an_artifact_runs_hardened_and_a_shell_runs_when_it_is_named() {
    let Some(platform) = platform() else { return };
    platform.push("hello", "1", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let instance = platform.docker().instances().remove(0);
    for (field, expect) in [
        (".HostConfig.ReadonlyRootfs", "true"),
        (".HostConfig.CapDrop", "[ALL]"),
        (".HostConfig.SecurityOpt", "[no-new-privileges]"),
        (".Config.User", "65532:65532"),
    ] {
        assert_eq!(inspect(&instance, field), expect, "{field}");
    }
    assert!(inspect(&instance, ".Config.Image").ends_with("/app-base:test"));
    the_live_form_runs_it_too(&platform);
    if !has_static_shell() {
        println!("SKIPPED: no shell without a static busybox (apt-get install busybox-static)");
        return;
    }
    let found = docker(&["exec", &instance, "busybox", "nslookup", "-type=a", "hello.platform"]);
    let lb = platform.docker().in_production(Part::Lb1);
    assert!(found.contains(&format!("Address: {lb}\n")), "the platform's dns answers lb's place {lb}: {found}");
    platform.push("hello", "2", "command = \"sh -c 'HELLO_VERSION=shell-$((40 + 2)) exec ./hello-world'\"\n");
    platform.ctl_ok(&["deploy", "hello", "2"]);
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world shell-42\n".to_owned())));
}

/// `docker run platformer/app-base APP REPOSITORY`, as the tutorial has it.
fn the_live_form_runs_it_too(platform: &Platform) {
    let name = platform.docker().run_base(&["hello", &platform.address(Part::Repository).to_string()]);
    let at = inspect(&name, "range .NetworkSettings.Networks}}{{.IPAddress}}{{end");
    let at = std::net::SocketAddr::new(at.parse().expect("an address"), 8080);
    eventually("the live release runs", || {
        let answer = tests::platform::http_request(at, "any", "/greeting")?;
        (answer == (200, "hello from hello-world 1\n".to_owned())).then_some(())
    });
    docker(&["rm", "-f", &name]);
}

#[test]
fn a_killed_instance_comes_back_and_the_other_answers_meanwhile() {
    let Some(platform) = platform() else { return };
    platform.push("hello", "1", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let load = Load::start_gets(platform.lb(), "hello");
    let two_up = |but: &[i32]| {
        eventually("two instances are up", || {
            let app = platform.app("hello");
            let up = |i: &&serde_json::Value| i["health"] == "up" && i["phase"] == "running";
            let processes = platform.instance_processes();
            let anew = processes.len() == 2 && processes.iter().all(|pid| !but.contains(pid));
            (app["instances"].as_array()?.iter().filter(up).count() == 2 && anew).then_some(processes)
        })
    };
    let first = two_up(&[]);
    // Docker takes this for somebody's wish and starts nothing again: the controller does.
    docker(&["kill", "-s", "KILL", &platform.docker().instances()[0]]);
    let second = two_up(&first[..1]);
    // An accident: Docker itself starts it again.
    let pid = rustix::process::Pid::from_raw(second[1]).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    two_up(&second[1..]);
    platform.assert_nothing_failed(load);
}

#[test]
fn a_connection_is_held_while_lb_joins_another_network() {
    let Some(platform) = platform() else { return };
    platform.push("hello", "1", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let mut stream = TcpStream::connect(platform.lb()).expect("lb listens");
    stream.set_read_timeout(Some(tests::platform::LIMIT)).expect("set");
    let mut lines = BufReader::new(stream.try_clone().expect("cloned"));
    let mut ask = |path: &str| {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: hello.test\r\n\r\n").expect("sent on the same connection");
    };
    let mut until = |word: &str| loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).expect("the connection stands"), 0, "closed before {word:?}");
        if line.starts_with(word) {
            return;
        }
    };
    // Chunks of a stream; the empty one ends it.
    ask("/stream?n=40&ms=50");
    until("HTTP/1.1 200");
    platform.docker().join_new_network(Part::Lb1, "other");
    until("0\r\n");
    ask("/greeting");
    until("HTTP/1.1 200");
    let networks = inspect(&platform.docker().container(Part::Lb1), "len .NetworkSettings.Networks");
    assert_eq!(networks, "4", "edge, control, production, other");
}
