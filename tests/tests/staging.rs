//! A version that waits beside the live one, and what it gets before it is made live.

use tests::platform::{eventually, http_request_with};
use tests::{Engine, Load, Part, Platform};

tests::on_both_engines!(a_staged_version_is_tried_out_and_made_live, what_is_staged_can_be_given_up);

fn staged(engine: Engine) -> Platform {
    let platform = Platform::on(engine);
    for version in ["1", "2", "3"] {
        platform.push("hello", version, "");
    }
    let refused = platform.ctl(&["deploy", "hello", "1", "--stage"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("without --stage"), "{said}");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let said = platform.ctl_ok(&["deploy", "hello", "2", "--stage"]);
    assert!(said.contains("staged; traffic stays until you activate it"), "{said}");
    platform
}

/// The version that answers, at an lb.
fn version(platform: &Platform, lb: Part, host: &str, lines: &str) -> Option<String> {
    let (_, body) = http_request_with(platform.address(lb), host, "/greeting", lines)?;
    Some(body.trim_end().rsplit(' ').next()?.to_owned())
}

/// At both lbs.
fn versions(platform: &Platform, host: &str, lines: &str) -> [String; 2] {
    [Part::Lb1, Part::Lb2].map(|lb| version(platform, lb, host, lines).unwrap_or_default())
}

fn a_staged_version_is_tried_out_and_made_live(engine: Engine) {
    let platform = staged(engine);
    let load = Load::start_on(&[platform.lb(), platform.address(Part::Lb2)], "hello");
    assert_eq!(versions(&platform, "hello.test", ""), ["1", "1"]);
    assert!(platform.ctl_ok(&["status", "hello"]).contains("2 (release 2, green): no traffic"));
    let again = platform.ctl_ok(&["deploy", "hello", "2", "--stage"]);
    assert!(again.contains("staged already"), "{again}");

    let shown = platform.ctl_ok(&["preview", "hello"]);
    assert!(shown.contains("green  (2, staged)"), "{shown}");
    let header = shown.lines().find(|line| line.contains("-green'")).expect("a line");
    let label = header.trim_end_matches('\'').rsplit(' ').next().expect("a label").to_owned();
    // Whatever domain leads to lb.
    let host = format!("{label}.any.test");
    assert_eq!(versions(&platform, &host, ""), ["2", "2"]);
    assert_eq!(versions(&platform, "hello.test", &format!("X-Platform-Preview: {label}\r\n")), ["2", "2"]);
    assert_eq!(platform.ctl_ok(&["preview", "hello"]), shown, "the same secret");
    platform.ctl_ok(&["preview", "hello", "--new"]);
    assert_eq!(versions(&platform, "hello.test", &format!("X-Platform-Preview: {label}\r\n")), ["1", "1"]);

    platform.ctl_ok(&["split", "hello", "0", "--header", "x-beta=yes", "--path", "/greeting/new"]);
    assert_eq!(versions(&platform, "hello.test", "X-Beta: yes\r\n"), ["2", "2"]);
    assert_eq!(versions(&platform, "hello.test", ""), ["1", "1"]);
    let said = platform.ctl_ok(&["split", "hello", "50"]);
    assert!(said.contains("2 gets 50 % of the clients"), "{said}");
    for (place, expect) in [("0000", "2"), ("7000", "2"), ("9000", "1"), ("ffff", "1")] {
        let cookie = format!("Cookie: platformer-place={place}\r\n");
        assert_eq!(versions(&platform, "hello.test", &cookie), [expect, expect], "{place}");
    }
    eventually("the staged one has answered", || {
        (platform.app("hello")["staged"]["counters"]["requests"].as_u64()? > 0).then_some(())
    });

    let said = platform.ctl_ok(&["activate", "hello"]);
    assert!(said.contains("live after") && said.contains(", 0 failed"), "{said}");
    assert_eq!(versions(&platform, "hello.test", "Cookie: platformer-place=ffff\r\n"), ["2", "2"]);
    assert!(platform.app("hello")["staged"].is_null());
    assert!(!platform.ctl(&["activate", "hello"]).status.success(), "nothing is staged any more");
    platform.ctl_ok(&["rollback", "hello"]);
    assert_eq!(versions(&platform, "hello.test", ""), ["1", "1"]);
    platform.assert_nothing_failed(load);
}

fn what_is_staged_can_be_given_up(engine: Engine) {
    let platform = staged(engine);
    let load = Load::start(platform.lb(), "hello");
    platform.ctl_ok(&["split", "hello", "30"]);
    // Another one takes its place, and gets nothing of what was for the one before.
    platform.ctl_ok(&["deploy", "hello", "3", "--stage"]);
    assert_eq!(versions(&platform, "hello.test", "Cookie: platformer-place=0000\r\n"), ["1", "1"]);
    assert!(platform.ctl_ok(&["status", "hello"]).contains("3 (release 3, green): no traffic"));
    platform.ctl_ok(&["split", "hello", "30"]);
    let said = platform.ctl_ok(&["cancel", "hello"]);
    assert!(said.contains("hello 3 is given up"), "{said}");
    eventually("only the live one is left", || {
        let instances = platform.app("hello")["instances"].as_array()?.clone();
        instances.iter().all(|instance| instance["version"] == "1").then_some(())
    });
    // Staged again, it begins with nothing.
    platform.ctl_ok(&["deploy", "hello", "3", "--stage"]);
    assert_eq!(versions(&platform, "hello.test", "Cookie: platformer-place=0000\r\n"), ["1", "1"]);
    // What would throw it away is refused, and changes nothing.
    for words in [["deploy", "hello", "2"].as_slice(), &["config", "set", "hello", "COLOUR=green"]] {
        let refused = platform.ctl(words);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(6) && said.contains("another version of hello is staged"), "{said}");
    }
    assert!(!platform.ctl_ok(&["config", "get", "hello"]).contains("COLOUR"));
    platform.ctl_ok(&["cancel", "hello"]);
    let refused = platform.ctl(&["split", "hello", "10"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing of hello is staged"));
    assert_eq!(versions(&platform, "hello.test", "Cookie: platformer-place=0000\r\n"), ["1", "1"]);
    platform.assert_nothing_failed(load);
}
