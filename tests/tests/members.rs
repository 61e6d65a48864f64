//! Two lbs, one of them away in the middle of a deploy: the flip asks who can be asked, SIGTERM waits for all.

use tests::platform::eventually;
use tests::{Engine, Load, Part, Platform};

tests::on_both_engines!(an_lb_that_was_killed_is_waited_for, an_lb_that_stands_still_is_waited_for);

/// Old instances stop as soon as they may; between the start of the new ones and the flip there is time to end an lb.
const NOT_WARM: &str = "[traffic]\nrollback_window = 0\nsettle = 2\n";

/// hello 1 live, and 2 pushed.
fn with_versions(engine: Engine) -> Platform {
    let platform = Platform::on(engine);
    for version in ["1", "2"] {
        platform.push("hello", version, NOT_WARM);
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform
}

/// Deploys while lb-2 goes away once the new instances run. Answers when traffic moved, with the old ones still alive.
fn deploy_without_lb2(platform: &mut Platform, version: &str, away: impl FnOnce(&mut Platform)) {
    platform.ctl_ok(&["deploy", "hello", version, "--detach"]);
    eventually("the new instances run", || {
        let instances = platform.app("hello")["instances"].as_array()?.clone();
        instances.iter().any(|i| i["version"] == version && i["phase"] == "running").then_some(())
    });
    away(platform);
    eventually("traffic moved", || (platform.app("hello")["live"]["version"] == version).then_some(()));
    eventually("it says who is missing", || {
        let app = platform.app("hello");
        assert!(app["deployment"].is_object(), "it ended although lb-2 may still use the old ones: {app}");
        app["deployment"]["waiting"].to_string().contains("cannot stop: not heard of lb-2").then_some(())
    });
    assert_eq!(running(platform), 4, "old and new run: {}", platform.app("hello"));
}

fn running(platform: &Platform) -> usize {
    let app = platform.app("hello");
    app["instances"].as_array().map_or(0, |all| all.iter().filter(|i| i["phase"] == "running").count())
}

fn until_old_ones_are_gone(platform: &Platform) {
    eventually("the old instances are gone", || {
        (platform.app("hello")["instances"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
}

fn an_lb_that_was_killed_is_waited_for(engine: Engine) {
    let mut platform = with_versions(engine);
    let load = Load::start(platform.lb(), "hello");
    deploy_without_lb2(&mut platform, "2", |platform| platform.kill(Part::Lb2));
    platform.start_part(Part::Lb2);
    platform.until_done("2");
    until_old_ones_are_gone(&platform);
    platform.assert_nothing_failed(load);
}

#[test]
fn an_lb_that_is_forgotten_is_waited_for_no_longer() {
    let mut platform = with_versions(Engine::Process);
    let load = Load::start(platform.lb(), "hello");
    deploy_without_lb2(&mut platform, "2", |platform| platform.kill(Part::Lb2));
    platform.ctl_ok(&["member", "forget", "lb-2"]);
    platform.until_done("2");
    until_old_ones_are_gone(&platform);
    platform.assert_nothing_failed(load);
}

fn an_lb_that_stands_still_is_waited_for(engine: Engine) {
    let mut platform = with_versions(engine);
    let load = Load::start(platform.lb(), "hello");
    deploy_without_lb2(&mut platform, "2", |platform| platform.pause(Part::Lb2));
    platform.resume(Part::Lb2);
    platform.until_done("2");
    until_old_ones_are_gone(&platform);
    platform.assert_nothing_failed(load);
    let lb2 = platform.address(Part::Lb2);
    let answer = tests::platform::http_request(lb2, "hello.test", "/greeting");
    assert_eq!(answer, Some((200, "hello from hello-world 2\n".to_owned())), "it has caught up");
}

#[test]
fn an_lb_that_hears_nothing_serves_on_and_is_waited_for() {
    if !Engine::Docker.answers() {
        return;
    }
    let mut platform = with_versions(Engine::Docker);
    let (lb1, lb2) = (platform.lb(), platform.address(Part::Lb2));
    let greeting = |lb| tests::platform::http_request(lb, "hello.test", "/greeting").map(|(_, text)| text);
    let load = Load::start_on(&[lb1, lb2], "hello");
    platform.docker().part_off(Part::Lb2);
    deploy_without_lb2(&mut platform, "2", |_| {});
    assert_eq!(greeting(lb1).as_deref(), Some("hello from hello-world 2\n"));
    assert_eq!(greeting(lb2).as_deref(), Some("hello from hello-world 1\n"), "its last good table serves");
    platform.docker().join(Part::Lb2);
    platform.until_done("2");
    assert_eq!(greeting(lb2).as_deref(), Some("hello from hello-world 2\n"));
    until_old_ones_are_gone(&platform);
    platform.assert_nothing_failed(load);
}
