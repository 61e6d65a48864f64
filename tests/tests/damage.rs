//! Damaged, torn, full, taken or put back: said clearly, and nothing that serves is lost.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tests::faults::NOT_WARM;
use tests::platform::{eventually, http_request};
use tests::{Load, Part, Platform};

/// Version 1 is live.
fn serving(platform: Platform, versions: &[&str]) -> Platform {
    for version in versions {
        platform.push("hello", version, NOT_WARM);
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.wait_settled("hello", "1", 2);
    platform
}

fn greeting(platform: &Platform) -> Option<String> {
    platform.get("hello", "/greeting").filter(|(status, _)| *status == 200).map(|(_, text)| text)
}

/// All parts and all instances with their boots, in the middle of a deploy: as when the machine loses its power.
#[test]
fn everything_may_die_at_once() {
    let mut platform = serving(Platform::start_faulty(), &["1", "2"]);
    for (point, version) in [("controller.started", "2"), ("controller.flip.written", "1")] {
        platform.arm(&format!("{point}=pause"));
        platform.ctl_ok(&["deploy", "hello", version, "--detach"]);
        platform.wait_paused(point);
        platform.arm("");
        platform.kill_everything();
        assert_eq!(platform.app_processes(), []);
        platform.start_parts();
        platform.wait_settled("hello", version, 2);
        assert_eq!(greeting(&platform), Some(format!("hello from hello-world {version}\n")));
    }
    let ends: Vec<_> = platform.history("hello").into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, ["done", "done", "done"]);
}

#[test]
fn without_controller_and_repository_everything_goes_on() {
    let mut platform = serving(Platform::start(), &["1"]);
    platform.kill(Part::Controller);
    platform.kill(Part::Repository);
    // boot starts an app again that was killed, from what it unpacked.
    for process in platform.app_processes() {
        tests::faults::kill_process(process.pid);
        eventually("boot has started it again", || {
            let again = platform.app_processes();
            again.iter().any(|other| other.instance == process.instance && other.pid != process.pid).then_some(())
        });
        eventually("it serves", || greeting(&platform));
    }
    let load = Load::start(platform.lb(), "hello");
    for part in [Part::Lb2, Part::Dns] {
        platform.restart(part);
    }
    assert!(tests::faults::dns_knows(platform.address(Part::Dns), "hello.platform"));
    let answer = http_request(platform.address(Part::Lb2), "hello.test", "/greeting");
    assert_eq!(answer.map(|(status, _)| status), Some(200));
    eventually("requests were served", || (load.good() > 100).then_some(()));
    load.stop().assert_nothing_failed();
}

#[test]
fn a_damaged_controller_says_so_and_traffic_goes_on() {
    let mut platform = serving(Platform::start(), &["1", "2"]);
    let load = Load::start(platform.lb(), "hello");
    platform.kill(Part::Controller);
    let state = platform.path("controller/state.db");
    let copy = platform.path("controller.copy");
    copy_directory(&platform.path("controller"), &copy, "node");
    // The last commits stand beside the file until they are folded in, and whole pages with them.
    for path in [&state, &platform.path("controller/state.db-wal")] {
        let length = fs::metadata(path).map_or(0, |data| data.len());
        fs::write(path, vec![0x5a; usize::try_from(length).expect("small")]).expect("damaged");
    }
    let said = platform.refuses_to_start(Part::Controller);
    assert!(said.contains("it is damaged") && said.contains("restore it from a backup"), "{said}");
    fs::write(&state, b"").expect("torn to nothing");
    let _ = fs::remove_file(platform.path("controller/state.db-wal"));
    let _ = fs::remove_file(platform.path("controller/state.db-shm"));
    // An empty file is a new store that knows of nothing. Members have seen later tables of this cluster.
    let before = platform.app_processes();
    platform.start_part(Part::Controller);
    eventually("it notices", || {
        let problems = platform.status()["problems"].to_string();
        problems.contains("this state is older than the platform").then_some(())
    });
    let output = platform.ctl(&["deploy", "hello", "2"]);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(platform.app_processes(), before, "nothing was stopped or removed");
    platform.kill(Part::Controller);
    copy_directory(&copy, &platform.path("controller"), "node");
    platform.start_part(Part::Controller);
    platform.wait_ready(Part::Controller);
    platform.ctl_ok(&["deploy", "hello", "2"]);
    platform.wait_settled("hello", "2", 2);
    load.stop().assert_nothing_failed();
}

/// The saved table is needed only while there is no controller.
#[test]
fn a_damaged_table_yields_to_the_copy_before_it_or_is_refused() {
    let mut platform = serving(Platform::start(), &["1", "2"]);
    platform.ctl_ok(&["deploy", "hello", "2"]);
    platform.wait_settled("hello", "2", 2);
    platform.kill(Part::Controller);
    for (part, name) in [(Part::Lb2, "lb-2/route-table"), (Part::Dns, "dns/names.table")] {
        let (table, before) = (platform.path(name), platform.path(&format!("{name}.previous")));
        assert!(table.exists() && before.exists(), "{name}: {:?}", platform.path(name));
        platform.kill(part);
        let whole = fs::read(&table).expect("readable");
        fs::write(&table, &whole[..whole.len() / 2]).expect("torn");
        platform.start_part(part);
        platform.wait_ready(part);
        match part {
            Part::Dns => assert!(tests::faults::dns_knows(platform.address(part), "hello.platform")),
            _ => eventually("it serves", || {
                http_request(platform.address(part), "hello.test", "/greeting").filter(|(status, _)| *status == 200)
            })
            .1
            .clear(),
        }
        assert!(platform.log(part).contains("the copy before it serves"), "{}", platform.logs());
        platform.kill(part);
        fs::write(&table, b"x").expect("damaged");
        fs::write(&before, b"y").expect("damaged");
        let said = platform.refuses_to_start(part);
        assert!(said.contains("is damaged") && said.contains("remove both to start without"), "{said}");
        fs::remove_file(&table).and_then(|()| fs::remove_file(&before)).expect("removed");
        platform.start_part(part);
    }
    platform.start_part(Part::Controller);
    for part in [Part::Controller, Part::Lb2, Part::Dns] {
        platform.wait_ready(part);
    }
}

#[test]
fn damaged_bytes_of_a_version_are_never_run() {
    let platform = serving(Platform::start(), &["1", "2"]);
    let load = Load::start(platform.lb(), "hello");
    // The largest blobs are the layers, of version 1 and 2; the damage keeps the length.
    let blobs = fs::read_dir(platform.path("repository/blobs/sha256")).expect("blobs").flatten();
    for blob in blobs.filter(|blob| blob.metadata().is_ok_and(|data| data.len() > 100_000)) {
        let file = fs::File::options().write(true).open(blob.path()).expect("opens");
        file.write_all_at(b"flipped", 50_000).expect("damaged");
    }
    let output = platform.ctl(&["deploy", "hello", "2"]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("sha256:") && said.contains("digest"), "{said}");
    platform.wait_settled("hello", "1", 2);

    // What is not whole by its length is sent again by a push of the same version.
    let blobs = fs::read_dir(platform.path("repository/blobs/sha256")).expect("blobs").flatten();
    for blob in blobs.filter(|blob| blob.metadata().is_ok_and(|data| data.len() > 100_000)) {
        fs::File::options().write(true).open(blob.path()).and_then(|file| file.set_len(10)).expect("cut");
    }
    let said = platform.push("hello", "2", NOT_WARM);
    assert!(said.contains("hello 2"), "{said}");
    platform.ctl_ok(&["deploy", "hello", "2"]);
    load.stop().assert_nothing_failed();
}

#[test]
fn whoever_comes_second_is_told_who_was_first() {
    let mut platform = serving(Platform::start(), &["1"]);
    let holder = platform.pid(Part::Controller).to_string();
    let said = platform.second(Part::Controller, &[("PLATFORMER_CONTROLLER_LISTEN", "127.0.0.1:0")]);
    assert!(said.contains("another controller holds") && said.contains(&holder), "{said}");

    let (taken, holder) = (platform.address(Part::Lb1).to_string(), platform.pid(Part::Lb1));
    let says = format!("is taken by lb (pid {holder})");
    for (part, variable) in [
        (Part::Controller, "PLATFORMER_CONTROLLER_LISTEN"),
        (Part::Repository, "PLATFORMER_REPOSITORY_LISTEN"),
        (Part::Lb2, "PLATFORMER_LB_HTTP"),
        (Part::Dns, "PLATFORMER_DNS_LISTEN"),
    ] {
        platform.kill(part);
        let said = platform.second(part, &[(variable, &taken)]);
        assert!(said.contains(&says), "{part:?}: {said}");
        platform.start_part(part);
        platform.wait_ready(part);
    }
    platform.wait_settled("hello", "1", 2);
}

/// Without the directory `except`.
fn copy_directory(from: &Path, to: &Path, except: &str) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_name() == except {
        } else if entry.path().is_dir() {
            copy_directory(&entry.path(), &target, except);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Its state may be an older one: until the members were heard, or silent for too long, nothing goes out.
#[test]
fn a_change_right_after_a_start_waits_for_the_members() {
    let mut platform = serving(Platform::start(), &["1"]);
    platform.kill(Part::Controller);
    let members = [Part::Lb1, Part::Lb2, Part::Dns];
    members.iter().for_each(|part| platform.pause(*part));
    platform.start_part(Part::Controller);
    platform.wait_ready(Part::Controller);
    let generation = || platform.status()["generation"]["number"].as_u64();
    let before = generation();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| platform.ctl_ok(&["maintenance", "on", "hello"]));
        eventually("it is stored", || platform.ctl_ok(&["events"]).contains("maintenance on").then_some(()));
        assert_eq!(generation(), before, "published before anybody was heard");
        members.iter().for_each(|part| platform.resume(*part));
        change.join().expect("no panic");
    });
    assert!(generation() > before);
    assert_eq!(tests::platform::http_request(platform.lb(), "hello.test", "/").map(|(status, _)| status), Some(503));
}

/// What happened since the copy is not in it. Members know better, and the controller learns it from them.
#[test]
fn an_older_state_that_was_put_back_changes_nothing_until_the_epoch_is_raised() {
    let mut platform = serving(Platform::start(), &["1", "2", "3"]);
    platform.kill(Part::Controller);
    let copy = platform.path("controller.copy");
    copy_directory(&platform.path("controller"), &copy, "node");
    platform.start_part(Part::Controller);
    platform.wait_ready(Part::Controller);
    platform.ctl_ok(&["deploy", "hello", "2"]);
    platform.wait_settled("hello", "2", 2);
    platform.push("later", "1", "");
    platform.ctl_ok(&["deploy", "later", "1"]);
    let load = Load::start(platform.lb(), "hello");
    let before = platform.app_processes();
    assert_eq!(before.len(), 4, "two apps of two instances");

    platform.kill(Part::Controller);
    for part in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(platform.path("controller").join(part));
    }
    copy_directory(&copy, &platform.path("controller"), "node");
    platform.start_part(Part::Controller);
    let says_so = |status: &serde_json::Value| status.to_string().contains("this state is older than the platform");
    eventually("the controller notices", || says_so(&platform.status()).then_some(()));
    eventually("members refuse its tables", || {
        let listed = platform.ctl_ok(&["member", "ls", "--json"]);
        (listed.matches("raise the epoch").count() == 3).then_some(())
    });
    let output = platform.ctl(&["deploy", "hello", "3"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("nothing was changed") && said.contains("controller raise-epoch"), "{said}");
    assert_eq!(platform.app_processes(), before, "nothing was started, stopped or removed");
    assert_eq!(greeting(&platform).as_deref(), Some("hello from hello-world 2\n"));

    let said = platform.second(Part::Controller, &[("subcommand", "raise-epoch")]);
    assert!(said.contains("another controller holds"), "not beside a running one: {said}");
    load.stop().assert_nothing_failed();
    platform.kill(Part::Controller);
    let said = platform.second(Part::Controller, &[("subcommand", "raise-epoch")]);
    assert!(said.contains("\"epoch\":2"), "{said}");
    platform.start_part(Part::Controller);
    platform.wait_ready(Part::Controller);
    // The copy's version is the truth now; what it knows nothing of goes, also an app it never heard of.
    platform.wait_settled("hello", "1", 2);
    platform.ctl_ok(&["deploy", "hello", "3"]);
    platform.wait_settled("hello", "3", 2);
    assert!(platform.ctl_ok(&["member", "ls", "--json"]).matches("\"epoch\": 2").count() >= 3);
}
