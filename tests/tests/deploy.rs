//! Deploy, flip, roll back, abort: under load, nothing is lost. On both engines, every part alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use tests::platform::eventually;
use tests::{Engine, Load, Part, Platform};

tests::on_both_engines!(
    deploys_and_rollbacks_lose_nothing,
    what_does_not_come_up_is_aborted_and_says_why,
    parts_may_die_one_after_the_other,
    a_deploy_that_was_refused_stands_in_nobodys_way,
    a_controller_killed_in_the_middle_of_a_deploy_goes_on,
    going_back_waits_for_no_drain,
);

fn live_version(platform: &Platform, app: &str) -> Option<String> {
    let status = platform.status();
    let found = status["apps"].as_array()?.iter().find(|known| known["app"] == app)?;
    found["live"]["version"].as_str().map(str::to_owned)
}

fn deploys_and_rollbacks_lose_nothing(engine: Engine) {
    let platform = Platform::on(engine);
    platform.push("hello", "1", "");
    let said = platform.ctl_ok(&["deploy", "hello", "1"]);
    assert!(said.contains("live after"), "{said}");
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world 1\n".to_owned())));
    platform.push("hello", "2", "");

    let load = Load::start_on(&[platform.lb(), platform.address(Part::Lb2)], "hello");
    let said = platform.ctl_ok(&["deploy", "hello", "2"]);
    assert!(said.contains(", 0 failed"), "{said}");
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world 2\n".to_owned())));
    platform.ctl_ok(&["rollback", "hello"]);
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world 1\n".to_owned())));
    platform.ctl_ok(&["deploy", "hello", "2"]);
    platform.ctl_ok(&["scale", "hello", "3"]);
    eventually("three instances take traffic", || {
        let status = platform.status();
        let instances = status["apps"][0]["instances"].as_array()?.clone();
        (instances.iter().filter(|i| i["state"] == "active" && i["health"] == "up").count() == 3).then_some(())
    });
    let tally = load.stop();
    tally.assert_nothing_failed();
    assert!(tally.posts > 10, "{tally:?}");
    assert_eq!(platform.ctl(&["deploy", "hello", "2"]).status.code(), Some(0), "already live is no failure");
}

fn what_does_not_come_up_is_aborted_and_says_why(engine: Engine) {
    let platform = Platform::on(engine);
    platform.push("hello", "1", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let load = Load::start(platform.lb(), "hello");
    let cases = [
        ("never", "[values]\nHELLO_NEVER_HEALTHY = \"1\"\n[traffic]\nprobe_deadline = 3\n", "503"),
        ("crash", "[values]\nHELLO_CRASH_AT_ONCE = \"1\"\n", "exit code"),
        ("silent", "[values]\nHELLO_NEVER_LISTEN = \"1\"\n[traffic]\nprobe_deadline = 10\n", "refused"),
    ];
    for (version, extra, reason) in cases {
        platform.push("hello", version, extra);
        let output = platform.ctl(&["deploy", "hello", version]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(7), "{version}: {said}{}", platform.logs());
        assert!(said.contains(reason), "{version} should say {reason:?}: {said}");
        assert_eq!(live_version(&platform, "hello").as_deref(), Some("1"));
    }
    platform.assert_nothing_failed(load);
}

fn parts_may_die_one_after_the_other(engine: Engine) {
    let mut platform = Platform::on(engine);
    platform.push("hello", "1", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.push("hello", "2", "");
    let load = Load::start(platform.lb(), "hello");
    let before = platform.instance_processes();
    for part in [Part::Controller, Part::Repository, Part::Dns, Part::Lb2] {
        platform.restart(part);
    }
    assert_eq!(platform.instance_processes(), before, "instances are adopted, not started again");
    platform.ctl_ok(&["deploy", "hello", "2"]);
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world 2\n".to_owned())));
    platform.assert_nothing_failed(load);

    platform.kill(Part::Controller);
    platform.kill(Part::Repository);
    platform.restart(Part::Lb1);
    let answer =
        eventually("lb serves its saved table alone", || platform.get("hello", "/greeting").filter(|a| a.0 == 200));
    assert_eq!(answer.1, "hello from hello-world 2\n");
}

#[test]
fn wrong_requests_get_their_exit_code_and_a_reason() {
    let platform = Platform::start();
    platform.push("hello", "1", "");
    let check = |arguments: &[&str], code: i32, says: &str| {
        let output = platform.ctl(arguments);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?} should say {says:?}: {said}");
    };
    check(&["deploy", "hello", "9"], 5, "hello has no version 9");
    check(&["deploy", "nothing", "1"], 5, "nothing has no version 1");
    check(&["rollback", "nothing"], 5, "there is no app nothing");
    let directory = platform.path("hello-1");
    std::fs::write(directory.join("version"), "other").expect("a version file");
    check(
        &["artifact", "push", "hello", "1", &directory.display().to_string()],
        6,
        "is there already with other content",
    );
    std::fs::write(directory.join("platform.toml"), "\ncomand = \"x\"\n").expect("an app file");
    check(
        &["artifact", "push", "hello", "typo", &directory.display().to_string()],
        3,
        "line 2, column 1: unknown field `comand`",
    );
}

/// A stream holds the old instances for longer than a bad version may serve.
fn going_back_waits_for_no_drain(engine: Engine) {
    let platform = Platform::on(engine);
    for version in ["1", "2", "3"] {
        platform.push("hello", version, "[traffic]\nstream_drain = 600\n");
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let mut stream = TcpStream::connect(platform.lb()).expect("lb is there");
    let request = "GET /stream?n=100000&ms=50 HTTP/1.1\r\nHost: hello.test\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("it has begun");
    assert_eq!(&first, b"HTTP/1.1 200");

    let load = Load::start_on(&[platform.lb(), platform.address(Part::Lb2)], "hello");
    platform.ctl_ok(&["deploy", "hello", "2", "--detach"]);
    eventually("2 is live", || (live_version(&platform, "hello")? == "2").then_some(()));
    let output = platform.ctl(&["deploy", "hello", "3", "--detach"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("platformctl rollback hello"), "{said}");
    platform.ctl_ok(&["rollback", "hello"]);
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world 1\n".to_owned())));
    let history = platform.ctl_ok(&["history", "hello"]);
    assert!(history.contains("goes back before the old instances have drained"), "{history}");
    stream.read_exact(&mut first).expect("the stream lives on with its instance");
    platform.ctl_ok(&["deploy", "hello", "3", "--detach"]);
    eventually("3 is live", || (live_version(&platform, "hello")? == "3").then_some(()));
    platform.assert_nothing_failed(load);

    // The stream is the only thing that is waited for, and its end lets the next one in.
    let mut command = platform.ctl_command(&["config", "set", "hello", "COLOUR=green"]);
    let mut waiting = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("platformctl runs");
    let mut said = String::new();
    let mut stderr = BufReader::new(waiting.stderr.take().expect("piped"));
    stderr.read_line(&mut said).expect("it says why it waits");
    assert!(said.contains("whose old instances drain"), "{said}");
    drop(stream);
    stderr.read_to_string(&mut said).expect("it goes on");
    assert!(waiting.wait().expect("it ends").success(), "{said}");
}

/// Its document is in the repository already, under the number that it would have had.
fn a_deploy_that_was_refused_stands_in_nobodys_way(engine: Engine) {
    let platform = Platform::on(engine);
    for (version, extra) in [("1", ""), ("2", "[values]\nHELLO_SLOW_START_MS = \"1500\"\n"), ("3", ""), ("4", "")] {
        platform.push("hello", version, extra);
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.ctl_ok(&["deploy", "hello", "2", "--detach"]);
    let output = platform.ctl(&["deploy", "hello", "3"]);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("2 is live", || (live_version(&platform, "hello")? == "2").then_some(()));
    eventually("it is over", || platform.app("hello")["deployment"].is_null().then_some(()));
    // What every lb would refuse, with all other apps in the same table, is refused before it is wanted.
    platform.push("other", "1", "path = \"/a//b\"\n");
    let output = platform.ctl(&["deploy", "other", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("write it as /a/b"), "{said}");
    platform.ctl_ok(&["deploy", "hello", "4"]);
    assert_eq!(live_version(&platform, "hello").as_deref(), Some("4"));
}

fn a_controller_killed_in_the_middle_of_a_deploy_goes_on(engine: Engine) {
    let mut platform = Platform::on(engine);
    for version in ["1", "2", "3", "4"] {
        platform.push("hello", version, "");
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let load = Load::start(platform.lb(), "hello");
    let accepted: fn(&serde_json::Value, &str) -> bool = |app, _| app["deployment"].is_object();
    let started: fn(&serde_json::Value, &str) -> bool = |app, version| {
        let instances = app["instances"].as_array().map(Vec::as_slice).unwrap_or_default();
        instances.iter().any(|i| i["version"] == version && i["phase"] == "running")
    };
    let flipped: fn(&serde_json::Value, &str) -> bool = |app, version| app["live"]["version"] == version;
    for (version, reached) in [("2", accepted), ("3", started), ("4", flipped)] {
        platform.ctl_ok(&["deploy", "hello", version, "--detach"]);
        eventually("the deployment is as far", || reached(&platform.app("hello"), version).then_some(()));
        platform.restart(Part::Controller);
        platform.until_done(version);
    }
    platform.assert_nothing_failed(load);
    let history = platform.ctl_ok(&["history", "hello", "--json"]);
    assert_eq!(history.matches("\"state\": \"done\"").count(), 4, "{history}");
}
