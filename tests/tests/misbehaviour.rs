//! Apps that do what they should not, and clocks that jump: the version that serves goes on.

use tests::faults::NOT_WARM;
use tests::platform::eventually;
use tests::{Load, Part, Platform};

fn serving(platform: Platform) -> Platform {
    platform.push("hello", "1", NOT_WARM);
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.wait_settled("hello", "1", 2);
    platform
}

/// One that exits at once, never listens or is never healthy: see `deploy.rs`.
#[test]
fn apps_that_misbehave_are_told_apart() {
    let platform = serving(Platform::start());
    let load = Load::start(platform.lb(), "hello");
    let refused = [
        ("answers-500", "health = \"/greeting\"\n[values]\nHELLO_STATUS_500 = \"1\"\n", "500"),
        ("too-slow", "health = \"/slow?ms=5000\"\n", "in time"),
        ("no-program", "command = \"./nothing\"\n", "nothing"),
    ];
    for (version, extra, reason) in refused {
        let traffic = "[traffic]\nprobe_deadline = 2\nprobe_timeout = 0.3\nrollback_window = 0\n";
        platform.push("hello", version, &format!("{extra}{traffic}"));
        let output = platform.ctl(&["deploy", "hello", version]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(7), "{version}: {said}");
        assert!(said.contains(reason), "{version} should say {reason:?}: {said}");
        platform.wait_settled("hello", "1", 2);
    }
    // Slow to start is no fault, and one that will not stop is made to.
    let deaf = "stop_grace = 0.5\n[values]\nHELLO_IGNORE_SIGTERM = \"1\"\nHELLO_SLOW_START_MS = \"700\"\n[traffic]\nrollback_window = 0\n";
    platform.push("hello", "deaf", deaf);
    for version in ["deaf", "1"] {
        platform.ctl_ok(&["deploy", "hello", version]);
        platform.wait_settled("hello", version, 2);
    }
    load.stop().assert_nothing_failed();
}

/// A port that another program has is given to nobody: its answers are not the app's.
#[test]
fn ports_of_others_are_left_alone() {
    let taken: Vec<_> =
        (20_000..20_004).filter_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok()).collect();
    let platform = serving(Platform::start());
    let status = platform.app("hello");
    let addresses: Vec<_> =
        status["instances"].as_array().into_iter().flatten().map(|i| i["address"].to_string()).collect();
    for listener in &taken {
        let port = listener.local_addr().expect("bound").port();
        assert!(
            addresses.iter().all(|address| !address.contains(&format!(":{port}"))),
            "{port} is given: {addresses:?}"
        );
    }
}

/// Clients that send a change and are gone: the controller ends what it began, and its memory is what its store says.
#[test]
fn clients_may_go_away_in_the_middle_of_a_change() {
    use std::io::Write;
    let platform = serving(Platform::start_faulty());
    let token = std::fs::read_to_string(platform.path("owner.token")).expect("the owner's token");
    for number in 0..60_u64 {
        let body = format!(
            r#"{{"operations": [{{"group": "config", "command": "set", "params": {{"app": "hello", "key": "N", "value": "{number}"}}}}]}}"#
        );
        let mut stream = std::net::TcpStream::connect(platform.address(Part::Controller)).expect("connected");
        write!(
            stream,
            "POST /v1/change-sets HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("sent");
        // A little later each time: somewhere in there is the commit.
        std::thread::sleep(std::time::Duration::from_micros(number * 50));
    }
    // What nobody waits for may still be carried out after this; it is not lost, and not in the way.
    eventually("the last word counts", || {
        platform.ctl_ok(&["config", "set", "hello", "N=last"]);
        platform.wait_settled("hello", "1", 2);
        platform.ctl_ok(&["config", "get", "hello"]).contains("last").then_some(())
    });
}

/// An hour forth and back in the middle of deploys: limits are times that pass, not times of day.
#[test]
fn clocks_may_jump() {
    const HOUR_MS: i64 = 3_600_000;
    let platform = serving(Platform::start_faulty());
    // Longer than the start takes, and far shorter than the jump.
    let slow = "[values]\nHELLO_SLOW_START_MS = \"1500\"\n[traffic]\nprobe_deadline = 30\nrollback_window = 0\n";
    let never = "[values]\nHELLO_NEVER_HEALTHY = \"1\"\n[traffic]\nprobe_deadline = 2\nrollback_window = 0\n";
    platform.push("hello", "slow", slow);
    platform.push("hello", "never", never);
    let load = Load::start(platform.lb(), "hello");
    for jump in [HOUR_MS, -HOUR_MS] {
        for (point, version) in [("controller.standby.published", "slow"), ("controller.flip.published", "1")] {
            platform.arm(&format!("{point}=pause"));
            platform.ctl_ok(&["deploy", "hello", version, "--detach"]);
            platform.wait_paused(point);
            platform.set_clock_offset_ms(jump);
            platform.go_on(point);
            platform.wait_settled("hello", version, 2);
            platform.set_clock_offset_ms(0);
        }
        platform.arm("controller.standby.published=pause");
        platform.ctl_ok(&["deploy", "hello", "never", "--detach"]);
        platform.wait_paused("controller.standby.published");
        platform.set_clock_offset_ms(jump);
        platform.go_on("controller.standby.published");
        eventually("its deadline comes all the same", || platform.app("hello")["deployment"].is_null().then_some(()));
        platform.wait_settled("hello", "1", 2);
        platform.set_clock_offset_ms(0);
        platform.arm("");
    }
    load.stop().assert_nothing_failed();
    let mut ends: Vec<_> = platform.history("hello").into_iter().map(|(_, end)| end).collect();
    ends.sort();
    assert_eq!(ends, ["aborted", "aborted", "done", "done", "done", "done", "done"]);
}
