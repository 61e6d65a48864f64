//! Engines that cannot be reached: said with what to do, and what cannot be seen is left as it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;

use tests::faults::NOT_WARM;
use tests::platform::program;
use tests::{Load, Part, Platform};

#[test]
fn what_cannot_be_seen_is_left_as_it_is() {
    let platform = Platform::start();
    platform.push("hello", "1", NOT_WARM);
    platform.push("hello", "2", NOT_WARM);
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.wait_settled("hello", "1", 2);
    let load = Load::start(platform.lb(), "hello");
    let before = platform.app_processes();
    let (instances, away) = (platform.path("controller/node/instances"), platform.path("away"));
    fs::rename(&instances, &away).expect("moved away");
    platform.ctl_ok(&["deploy", "hello", "2", "--detach"]);
    platform.eventually("the gap is told", || {
        let problems = platform.status()["problems"].to_string();
        problems.contains("server server-1 cannot be seen").then_some(())
    });
    let good = load.good();
    platform.eventually("traffic goes on", || (load.good() > good + 200).then_some(()));
    assert!(platform.app("hello")["deployment"].is_object(), "it waits");
    for process in &before {
        assert!(kit::process::stat(process.pid).is_some_and(|stat| !stat.zombie), "{process:?} was ended");
    }
    assert!(!instances.exists(), "nothing was made where nothing can be seen");
    fs::rename(&away, &instances).expect("moved back");
    platform.wait_settled("hello", "2", 2);
    load.stop().assert_nothing_failed();
}

/// The controller ends with a word that says what to do; whatever starts it tries again.
#[test]
fn a_docker_socket_that_is_missing_or_denied() {
    let platform = Platform::start();
    let directory = platform.path("docker");
    fs::create_dir(&directory).expect("a directory");
    let setting = |name: &str| directory.join(name).display().to_string();
    let docker = [
        ("PLATFORMER_CONTROLLER_ENGINE", "docker"),
        ("PLATFORMER_CONTROLLER_LISTEN", "127.0.0.1:0"),
        ("PLATFORMER_CONTROLLER_DATA", &setting("data")),
        ("PLATFORMER_DOCKER_SOCKET", &setting("none.sock")),
    ];
    let said = platform.second(Part::Controller, &docker);
    assert!(said.contains("there is no socket") && said.contains("use the process engine"), "{said}");

    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run it as somebody who is denied");
        return;
    }
    // As in an image without the right to the socket: user 65532, in a place that it can reach.
    let listener = UnixListener::bind(directory.join("own.sock")).expect("bound");
    for (path, mode) in [("", 0o755), ("docker", 0o755), ("docker/own.sock", 0o600)] {
        fs::set_permissions(platform.path(path), fs::Permissions::from_mode(mode)).expect("opened");
    }
    fs::copy(program("controller"), directory.join("controller")).expect("copied");
    fs::create_dir_all(directory.join("denied")).expect("a directory");
    chown(directory.join("denied"), Some(65_532), Some(65_532)).expect("given");
    let mut command = std::process::Command::new(directory.join("controller"));
    command.env_clear().envs(docker).env("PLATFORMER_CONTROLLER_DATA", setting("denied"));
    let output = command.env("PLATFORMER_DOCKER_SOCKET", setting("own.sock")).uid(65_532).gid(65_532).output();
    let output = output.expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is denied") && said.contains("group docker"), "{said}");
    drop(listener);
}
