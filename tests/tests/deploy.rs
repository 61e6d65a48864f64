//! Deploy, flip, roll back, abort: under load, nothing is lost. The process engine, every part a process of its own.

use tests::platform::eventually;
use tests::{Load, Part, Platform};

fn live_version(platform: &Platform, app: &str) -> Option<String> {
    let status = platform.status();
    let found = status["apps"].as_array()?.iter().find(|known| known["app"] == app)?;
    found["live"]["version"].as_str().map(str::to_owned)
}

#[test]
fn deploys_and_rollbacks_lose_nothing() {
    let platform = Platform::start();
    platform.push("hello", "1", "");
    let said = platform.ctl_ok(&["deploy", "hello", "1"]);
    assert!(said.contains("live after"), "{said}");
    assert_eq!(platform.get("hello", "/greeting"), Some((200, "hello from hello-world 1\n".to_owned())));
    platform.push("hello", "2", "");

    let load = Load::start(platform.lb(), "hello");
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

#[test]
fn what_does_not_come_up_is_aborted_and_says_why() {
    let platform = Platform::start();
    platform.push("hello", "1", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let load = Load::start(platform.lb(), "hello");
    let cases = [
        ("never", "[values]\nHELLO_NEVER_HEALTHY = \"1\"\n[traffic]\nprobe_deadline = 3\n", "503"),
        ("crash", "[values]\nHELLO_CRASH_AT_ONCE = \"1\"\n", "exit code"),
        ("silent", "[values]\nHELLO_NEVER_LISTEN = \"1\"\n[traffic]\nprobe_deadline = 3\n", "refused"),
    ];
    for (version, extra, reason) in cases {
        platform.push("hello", version, extra);
        let output = platform.ctl(&["deploy", "hello", version]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(7), "{version}: {said}{}", platform.logs());
        assert!(said.contains(reason), "{version} should say {reason:?}: {said}");
        assert_eq!(live_version(&platform, "hello").as_deref(), Some("1"));
    }
    load.stop().assert_nothing_failed();
}

#[test]
fn parts_may_die_one_after_the_other() {
    let mut platform = Platform::start();
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
    load.stop().assert_nothing_failed();

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
    platform.push("hello", "typo", "comand = \"x\"\n");
    check(&["deploy", "hello", "typo"], 3, "line 5, column 1: unknown field `comand`");
}

#[test]
fn a_controller_killed_in_the_middle_of_a_deploy_goes_on() {
    let mut platform = Platform::start();
    for version in ["1", "2", "3", "4"] {
        platform.push("hello", version, "");
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let load = Load::start(platform.lb(), "hello");
    let app = |platform: &Platform| platform.status()["apps"][0].clone();
    let accepted: fn(&serde_json::Value, &str) -> bool = |app, _| app["deployment"].is_object();
    let started: fn(&serde_json::Value, &str) -> bool = |app, version| {
        let instances = app["instances"].as_array().map(Vec::as_slice).unwrap_or_default();
        instances.iter().any(|i| i["version"] == version && i["phase"] == "running")
    };
    let flipped: fn(&serde_json::Value, &str) -> bool = |app, version| app["live"]["version"] == version;
    for (version, reached) in [("2", accepted), ("3", started), ("4", flipped)] {
        platform.ctl_ok(&["deploy", "hello", version, "--detach"]);
        eventually("the deployment is as far", || reached(&app(&platform), version).then_some(()));
        platform.restart(Part::Controller);
        eventually("the deployment ends done", || {
            let app = app(&platform);
            (app["live"]["version"] == version && app["deployment"].is_null()).then_some(())
        });
    }
    load.stop().assert_nothing_failed();
    let history = platform.ctl_ok(&["history", "hello", "--json"]);
    assert_eq!(history.matches("\"state\": \"done\"").count(), 4, "{history}");
}
