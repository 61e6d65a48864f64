//! Changes that act without a deployment, and those that wait for the next one.

use tests::platform::{eventually, http_request};
use tests::{Engine, Part, Platform};

tests::on_both_engines!(
    a_command_ends_when_every_lb_obeys,
    going_back_says_what_the_older_release_lacks,
    no_lb_is_named_where_people_wait,
    a_refused_change_changes_nothing,
    crashes_are_events,
    logs_go_on_with_new_instances,
    what_is_taken_back_later_says_so,
);

fn live(engine: Engine) -> Platform {
    let platform = Platform::on(engine);
    for version in ["1", "2"] {
        platform.push("hello", version, "");
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform
}

fn a_command_ends_when_every_lb_obeys(engine: Engine) {
    let platform = live(engine);
    let lbs = [platform.lb(), platform.address(Part::Lb2)];
    let statuses = || lbs.map(|lb| http_request(lb, "hello.test", "/greeting").map(|(status, _)| status));
    for _ in 0..5 {
        platform.ctl_ok(&["maintenance", "on", "hello"]);
        assert_eq!(statuses(), [Some(503); 2]);
        platform.ctl_ok(&["maintenance", "off", "hello"]);
        assert_eq!(statuses(), [Some(200); 2]);
    }
    platform.ctl_ok(&["hold", "on", "hello"]);
    let waiting = std::thread::spawn(move || http_request(lbs[1], "hello.test", "/greeting"));
    eventually("it waits", || platform.metrics(Part::Lb2).contains("connections_open 1\n").then_some(()));
    assert!(!waiting.is_finished());
    platform.ctl_ok(&["hold", "off", "hello"]);
    assert_eq!(waiting.join().expect("no panic").map(|(status, _)| status), Some(200));
    let counters = eventually("both lbs have told", || {
        let app = platform.app("hello");
        (app["counters"]["requests"].as_u64()? >= 21).then(|| app["counters"].clone())
    });
    assert_eq!((counters["failed"].as_u64(), counters["app_errors"].as_u64()), (Some(0), Some(0)), "{counters}");
    let said = platform.ctl_ok(&["events"]);
    assert!(said.contains("maintenance on") && said.contains("hold off"), "{said}");
}

fn going_back_says_what_the_older_release_lacks(engine: Engine) {
    let platform = live(engine);
    platform.ctl_ok(&["route", "add", "hello", "other.test"]);
    platform.ctl_ok(&["config", "set", "hello", "COLOUR=green", "--later"]);
    assert_eq!(http_request(platform.lb(), "other.test", "/greeting").map(|(status, _)| status), Some(200));
    let output = platform.ctl(&["rollback", "hello"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("made without value COLOUR, route other.test/; the next deploy brings it"), "{said}");
    let routes = platform.ctl_ok(&["route", "ls", "hello"]);
    let other = routes.lines().find(|line| line.contains("other.test")).unwrap_or_default();
    assert!(other.contains("environment (not deployed)"), "{routes}");
    let status = platform.ctl_ok(&["status", "hello"]);
    assert!(status.contains("value COLOUR, route other.test/: in force with the next deploy"), "{status}");
    platform.ctl_ok(&["deploy", "hello", "2"]);
    assert_eq!(http_request(platform.lb(), "other.test", "/greeting").map(|(status, _)| status), Some(200));
    assert!(!platform.ctl_ok(&["status", "hello"]).contains("next deploy"));
}

fn no_lb_is_named_where_people_wait(engine: Engine) {
    let mut platform = live(engine);
    platform.kill(Part::Lb1);
    platform.kill(Part::Lb2);
    platform.ctl_ok(&["deploy", "hello", "2", "--detach"]);
    eventually("status names them", || {
        let waiting = platform.app("hello")["deployment"]["waiting"].to_string();
        waiting.contains("no load balancer is heard").then_some(())
    });
    let output = platform.ctl(&["maintenance", "off", "hello"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("not every load balancer has it yet"), "{said}");
    platform.start_part(Part::Lb1);
    platform.start_part(Part::Lb2);
    platform.until_done("2");
}

fn logs_go_on_with_new_instances(engine: Engine) {
    let platform = live(engine);
    let log = platform.path("followed");
    let file = std::fs::File::create(&log).expect("made");
    let mut follow = platform.ctl_command(&["logs", "-f", "hello"]).stdout(file).spawn().expect("platformctl runs");
    let said = |id: &str| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains(&format!("{id} | ")).then_some(())
    };
    eventually("those that run are followed", || said("hello-v1-r1-web-2"));
    platform.ctl_ok(&["scale", "hello", "3"]);
    eventually("the third speaks", || said("hello-v1-r1-web-3"));
    platform.ctl_ok(&["deploy", "hello", "2"]);
    eventually("the next version speaks", || said("hello-v2-r2-web-1"));
    follow.kill().expect("it runs");
    follow.wait().expect("it ends");
}

fn what_is_taken_back_later_says_so(engine: Engine) {
    let platform = live(engine);
    platform.ctl_ok(&["route", "add", "hello", "extra.test"]);
    platform.ctl_ok(&["config", "set", "hello", "COLOUR=green"]);
    let origins = || {
        let routes = platform.ctl_ok(&["route", "ls", "hello", "--json"]);
        let routes: Vec<serde_json::Value> = serde_json::from_str(&routes).expect("JSON");
        let route = routes.iter().find(|route| route["route"]["host"] == "extra.test").cloned();
        let values = platform.ctl_ok(&["config", "get", "hello", "--json"]);
        let values: Vec<serde_json::Value> = serde_json::from_str(&values).expect("JSON");
        let value = values.iter().find(|value| value["key"] == "COLOUR").cloned();
        [route, value].map(|found| found.and_then(|found| found["origin"].as_str().map(str::to_owned)))
    };
    assert_eq!(origins(), ["environment"; 2].map(|origin| Some(origin.to_owned())));
    platform.ctl_ok(&["route", "rm", "hello", "extra.test", "--later"]);
    platform.ctl_ok(&["config", "unset", "hello", "COLOUR", "--later"]);
    assert_eq!(origins(), ["environment (goes with the next deployment)"; 2].map(|origin| Some(origin.to_owned())));
    platform.ctl_ok(&["deploy", "hello", "1"]);
    assert_eq!(origins(), [None, None]);
}

fn a_refused_change_changes_nothing(engine: Engine) {
    let platform = live(engine);
    platform.push("other", "1", "");
    platform.ctl_ok(&["deploy", "other", "1"]);
    let refused = |words: &[&str], code: i32, says: &str| {
        let output = platform.ctl(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(says), "{words:?} should say {says:?}: {said}");
    };
    refused(&["route", "add", "hello", "other.test"], 6, "belong to production/other already");
    refused(&["route", "add", "hello", "other.test", "--later"], 6, "belong to production/other already");
    refused(&["scale", "hello", "worker=2"], 5, "hello has no process worker");
    refused(&["config", "unset", "hello", "NOPE"], 3, "NOPE is not set here");
    platform.push("hello", "3", "[values]\nHELLO_NEVER_HEALTHY = \"1\"\n[traffic]\nprobe_deadline = 600\n");
    platform.ctl_ok(&["deploy", "hello", "3", "--detach"]);
    refused(&["config", "set", "hello", "COLOUR=green"], 6, "is being deployed already");
    refused(&["route", "add", "hello", "third.test"], 6, "is being deployed already");
    platform.ctl_ok(&["cancel", "hello"]);
    assert!(platform.app("hello")["not_deployed"].as_array().is_some_and(Vec::is_empty), "{}", platform.app("hello"));

    platform.ctl_ok(&["config", "set", "hello", "COLOUR=green", "--later"]);
    platform.ctl_ok(&["config", "unset", "hello", "COLOUR", "--later"]);
    platform.ctl_ok(&["scale", "hello", "3"]);
    let instances = platform.app("hello")["instances"].to_string();
    assert_eq!(instances.matches("\"state\":\"active\"").count(), 3, "it ends when they are there: {instances}");

    platform.ctl_ok(&["scale", "hello", "0"]);
    assert_eq!(platform.app("hello")["summary"], "1 (release 1) scaled to 0");

    let directory = platform.path("bare");
    std::fs::create_dir(&directory).expect("made");
    std::fs::write(directory.join("platform.toml"), "port = 8080\n").expect("written");
    std::fs::write(directory.join("page.html"), "hello").expect("written");
    refused(&["artifact", "push", "hello", "bare", &directory.display().to_string()], 3, "has no command");
}

fn crashes_are_events(engine: Engine) {
    let platform = live(engine);
    tests::faults::kill_process(platform.instance_processes()[0]);
    eventually("it is said", || platform.ctl_ok(&["events"]).contains("is started again").then_some(()));
}
