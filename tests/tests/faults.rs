//! `kill -9` of every part at every point of a deploy, under load. The process engine, settle time and TTL of 200 ms.
//!
//! The promise, part by part: see "Loss of parts" in `docs/SPECIFICATION.md`.

use std::process::Stdio;

use tests::faults::{NOT_WARM, POINTS, kill_with_boot};
use tests::platform::{eventually, program};
use tests::{Load, Part, Platform};

/// Both versions are pushed, the first is live and the second is deployed next.
fn prepared() -> Platform {
    let platform = Platform::start_faulty();
    platform.push("hello", "1", NOT_WARM);
    platform.push("hello", "2", NOT_WARM);
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.wait_settled("hello", "1", 2);
    platform
}

/// The version that the deploy of this number brings; 1 is live before the first.
fn version(number: usize) -> &'static str {
    ["2", "1"][number % 2]
}

fn assert_all_done(platform: &Platform, deployments: usize) {
    let expect: Vec<_> = (0..deployments)
        .rev()
        .map(version)
        .chain(["1"])
        .map(|version| (version.to_owned(), "done".to_owned()))
        .collect();
    assert_eq!(platform.history("hello"), expect, "one deployment each, and each ended done");
}

/// Deploys once for each point; `fault` happens while the controller waits there, `after` once it goes on.
fn at_each_point(platform: &mut Platform, fault: fn(&mut Platform, &str), after: fn(&mut Platform)) {
    for (number, point) in POINTS.into_iter().enumerate() {
        platform.arm(&format!("{point}=pause"));
        platform.ctl_ok(&["deploy", "hello", version(number), "--detach"]);
        platform.wait_paused(point);
        platform.arm("");
        fault(platform, point);
        platform.go_on(point);
        after(platform);
        platform.wait_settled("hello", version(number), 2);
    }
    assert_all_done(platform, POINTS.len());
}

#[test]
fn the_controller_may_die_at_every_point() {
    let mut platform = prepared();
    let load = Load::start(platform.lb(), "hello");
    for (number, point) in POINTS.into_iter().enumerate() {
        platform.arm(&format!("{point}=kill"));
        let mut deploy = platform.ctl_command(&["deploy", "hello", version(number)]);
        let mut deploy = deploy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("platformctl starts");
        platform.wait_died(Part::Controller);
        platform.arm("");
        platform.start_part(Part::Controller);
        // Who follows the deployment goes on following it when the controller is back. Who got no answer to the very
        // request, although it was sent again, is told that: the deployment goes on all the same.
        let code = deploy.wait().expect("platformctl ends").code();
        let unanswered = code == Some(10) && POINTS[..2].contains(&point);
        assert!(code == Some(0) || unanswered, "{point}: {code:?} {}", platform.logs());
        platform.wait_settled("hello", version(number), 2);
    }
    load.stop().assert_nothing_failed();
    assert_all_done(&platform, POINTS.len());
}

#[test]
fn a_commit_that_fails_is_made_again_and_nothing_is_done_before() {
    let platform = prepared();
    let load = Load::start(platform.lb(), "hello");
    // The first is that of the deployment itself; those after it are the loop's: new instances, publications, the flip.
    for (number, hit) in (1..=6).enumerate() {
        platform.arm(&format!("controller.commit=error@{hit}"));
        let output = platform.ctl(&["deploy", "hello", version(number)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if hit == 1 {
            assert!(said.contains("the change could not be stored; nothing of it is in force"), "{said}");
            platform.wait_settled("hello", "1", 2);
            platform.ctl_ok(&["deploy", "hello", version(number)]);
        } else {
            assert_eq!(output.status.code(), Some(0), "commit {hit}: {said}");
        }
        platform.wait_settled("hello", version(number), 2);
    }
    load.stop().assert_nothing_failed();
    assert_all_done(&platform, 6);
}

#[test]
fn dns_and_the_repository_may_die_at_every_point() {
    let mut platform = prepared();
    let load = Load::start(platform.lb(), "hello");
    let fault: fn(&mut Platform, &str) = |platform, _| {
        platform.kill(Part::Dns);
        platform.kill(Part::Repository);
    };
    at_each_point(&mut platform, fault, |platform| {
        for part in [Part::Dns, Part::Repository] {
            platform.start_part(part);
            platform.wait_ready(part);
        }
    });
    load.stop().assert_nothing_failed();
}

#[test]
fn one_of_two_lbs_may_die_at_every_point() {
    let mut platform = prepared();
    let load = Load::start(platform.lb(), "hello");
    at_each_point(
        &mut platform,
        |platform, _| platform.kill(Part::Lb2),
        |platform| {
            platform.start_part(Part::Lb2);
            platform.wait_ready(Part::Lb2);
            let address = platform.address(Part::Lb2);
            let answer = tests::platform::http_request(address, "hello.test", "/greeting").expect("it answers at once");
            assert_eq!(answer.0, 200, "from its saved table: {}", answer.1);
        },
    );
    load.stop().assert_nothing_failed();
}

/// Nobody can be connected to what does not run; but nobody gets a wrong answer, before, after or in between, and what
/// was carried out is not carried out again.
#[test]
fn every_lb_may_die_at_every_point() {
    let mut platform = prepared();
    let load = Load::start(platform.lb(), "hello");
    at_each_point(
        &mut platform,
        |platform, _| {
            platform.kill(Part::Lb1);
            platform.kill(Part::Lb2);
        },
        |platform| {
            for part in [Part::Lb1, Part::Lb2] {
                platform.start_part(part);
                platform.wait_ready(part);
            }
        },
    );
    let failed = load.failed();
    let good = load.good();
    eventually("all clients are served again", || (load.good() > good + 100).then_some(()));
    assert_eq!(load.failed(), failed, "nothing fails any more");
    load.stop().assert_only_cut();
}

/// Another instance answers what may be sent again. (A POST that the killed one may have carried out is not.)
#[test]
fn an_instance_may_die_at_every_point() {
    let mut platform = prepared();
    let load = Load::start_gets(platform.lb(), "hello");
    let fault: fn(&mut Platform, &str) = |platform, point| {
        let status = platform.app("hello");
        let instances = status["instances"].as_array().cloned().unwrap_or_default();
        let active = instances.iter().find(|instance| instance["state"] == "active").expect("one is active");
        let processes = platform.app_processes();
        let victim = processes.iter().find(|process| active["id"] == process.instance.as_str());
        kill_with_boot(victim.unwrap_or_else(|| panic!("{point}: {active} has no process: {processes:?}")));
    };
    at_each_point(&mut platform, fault, |_| {});
    load.stop().assert_nothing_failed();
}

/// Before the flip, with its boot, so that nobody can say how it ended: the controller starts it again.
#[test]
fn a_new_instance_that_is_killed_is_no_reason_to_give_up() {
    let platform = prepared();
    platform.push("hello", "slow", &format!("[values]\nHELLO_SLOW_START_MS = \"1000\"\n{NOT_WARM}"));
    let load = Load::start(platform.lb(), "hello");
    platform.ctl_ok(&["deploy", "hello", "slow", "--detach"]);
    let new = eventually("a new instance runs", || {
        platform.app_processes().into_iter().find(|process| process.version == "slow")
    });
    kill_with_boot(&new);
    platform.wait_settled("hello", "slow", 2);
    load.stop().assert_nothing_failed();
    assert_eq!(platform.history("hello")[0], ("slow".to_owned(), "done".to_owned()));
}

/// What users have knows nothing of fail points: not even the names of the variables are in it.
#[test]
fn programs_of_users_ignore_faults() {
    let holds = |path: std::path::PathBuf, text: &str| {
        let bytes = std::fs::read(&path).expect("readable");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for name in ["controller", "repository", "lb", "dns", "boot", "platformer", "platformctl"] {
        for variable in ["PLATFORMER_FAULTS", "PLATFORMER_CLOCK_OFFSET_MS"] {
            assert!(!holds(program(name), variable), "{name} knows {variable}");
        }
    }
    assert!(holds(tests::platform::faulty_program("controller"), "PLATFORMER_FAULTS"), "the search finds it");

    let platform = Platform::start_with(&[
        ("PLATFORMER_FAULTS", "controller.intent=kill,controller.created=pause,controller.commit=error"),
        ("PLATFORMER_FAULTS_DIR", "/"),
        ("PLATFORMER_CLOCK_OFFSET_MS", "-3600000"),
    ]);
    platform.push("hello", "1", NOT_WARM);
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.wait_settled("hello", "1", 2);
}
