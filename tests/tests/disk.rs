//! A full disk: refused clearly, nothing half done, and all is well once there is room. A small tmpfs is the disk; that
//! needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::faults::NOT_WARM;
use tests::{Load, Part, Platform};

/// A file system of its own at a path, taken away at the end.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// None where this user may not mount.
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self { path });
        }
        #[expect(clippy::print_stdout, reason = "a skipped test must be seen")]
        {
            println!("SKIPPED: mounting a small disk needs root");
        }
        None
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        for piece in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// A platform with one part's data on a disk of its own. What stands first in a pattern goes last: the disk.
fn platform_on(part: &str, size: &str) -> Option<(Disk, Platform)> {
    let mut disk = None;
    let platform = Platform::start_prepared(|directory: &Path| disk = Disk::mount(directory.join(part), size));
    Some((disk?, platform))
}

#[test]
fn a_full_disk_of_the_repository() {
    let Some((disk, platform)) = platform_on("repository", "24m") else { return };
    platform.push("hello", "1", NOT_WARM);
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let load = Load::start(platform.lb(), "hello");
    disk.fill();
    let directory = platform.write_version("hello", "2", NOT_WARM);
    let output = platform.ctl(&["artifact", "push", "hello", "2", &directory.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the repository's disk is full: nothing was stored"), "{said}");
    // Nothing of it is there, and what was there is whole.
    assert_eq!(platform.ctl(&["deploy", "hello", "2"]).status.code(), Some(5));
    assert!(platform.ctl_ok(&["artifact", "ls", "hello"]).contains('1'));
    disk.make_room();
    platform.ctl_ok(&["artifact", "push", "hello", "2", &directory.display().to_string()]);
    platform.ctl_ok(&["deploy", "hello", "2"]);
    platform.wait_settled("hello", "2", 2);
    load.stop().assert_nothing_failed();
}

#[test]
fn a_full_disk_of_the_controller() {
    let Some((disk, mut platform)) = platform_on("controller", "64m") else { return };
    platform.push("hello", "1", NOT_WARM);
    platform.push("hello", "2", NOT_WARM);
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.wait_settled("hello", "1", 2);
    let load = Load::start(platform.lb(), "hello");
    disk.fill();
    let output = platform.ctl(&["deploy", "hello", "2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing of it is in force") && said.contains("disk of the controller is full"), "{said}");
    platform.wait_settled("hello", "1", 2);
    disk.make_room();
    platform.ctl_ok(&["deploy", "hello", "2"]);
    platform.wait_settled("hello", "2", 2);

    // Full in the middle: the deployment was accepted, then nothing fits any more.
    platform.ctl_ok(&["deploy", "hello", "1", "--detach"]);
    disk.fill();
    tests::platform::eventually("some time passes under it", || (load.good() > 200).then_some(()));
    disk.make_room();
    platform.restart(Part::Controller);
    tests::platform::eventually("it ended, one way or the other", || {
        platform.app("hello")["deployment"].is_null().then_some(())
    });
    let live = platform.app("hello")["live"]["version"].as_str().map(str::to_owned).expect("one is live");
    platform.wait_settled("hello", &live, 2);
    load.stop().assert_nothing_failed();
}
