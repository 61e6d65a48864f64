//! Images made in process: a docker-archive of images with one layer each. Needs no builder and no network.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use appbase_core::Digest;
use serde_json::{Value, json};

use crate::platform::program;

/// Who runs the parts and the artifacts.
pub const USER: u64 = 65_532;

/// One image: a tree and what is run in it.
pub struct Image {
    pub tag: String,
    user: String,
    entrypoint: Vec<String>,
    variables: Vec<String>,
    layer: tar::Builder<Vec<u8>>,
}

impl Image {
    /// What every image of the platform has beside its program; `compose/images.sh` makes the same.
    pub fn of_platform(tag: String, user: &str, entrypoint: &str) -> Self {
        let mut image = Self::new(tag, user, &[entrypoint]);
        image.directory("etc", 0o755, 0, 0);
        image.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/:/sbin/nologin\nplatformer:x:65532:65532::/home:/sbin/nologin\n",
        );
        image.file("etc/group", 0o644, b"root:x:0:\nplatformer:x:65532:\n");
        image.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n");
        image.directory("tmp", 0o1777, 0, 0);
        image.directory("home", 0o755, USER, USER);
        image
    }

    /// An empty one.
    pub fn new(tag: String, user: &str, entrypoint: &[&str]) -> Self {
        let entrypoint = entrypoint.iter().map(|word| (*word).to_owned()).collect();
        let layer = tar::Builder::new(Vec::new());
        Self { tag, user: user.to_owned(), entrypoint, variables: Vec::new(), layer }
    }

    pub fn variable(&mut self, text: &str) {
        self.variables.push(text.to_owned());
    }

    pub fn directory(&mut self, path: &str, mode: u32, user: u64, group: u64) {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        header.set_uid(user);
        header.set_gid(group);
        self.layer.append_data(&mut header, format!("{path}/"), &[][..]).expect("in memory");
    }

    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let mut header = header(tar::EntryType::Regular, mode, bytes.len());
        self.layer.append_data(&mut header, path, bytes).expect("in memory");
    }

    pub fn program(&mut self, path: &str, name: &str) {
        self.file(path, 0o755, &fs::read(program(name)).expect("the program is read"));
    }

    /// A shell and what belongs to it, where this machine has a static one (Debian's busybox-static).
    pub fn shell(&mut self) {
        if !has_static_shell() {
            return;
        }
        self.directory("bin", 0o755, 0, 0);
        self.file("bin/busybox", 0o755, &fs::read(BUSYBOX).expect("busybox is read"));
        let listed = Command::new(BUSYBOX).arg("--list").output().expect("busybox runs").stdout;
        for name in String::from_utf8_lossy(&listed).lines().filter(|name| *name != "busybox") {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            self.layer.append_link(&mut header, format!("bin/{name}"), "busybox").expect("in memory");
        }
    }

    /// Its config, and its layer. `label` is in the config, so that no two platforms share an image.
    fn finish(self, label: (&str, &str)) -> (Value, Vec<u8>, String) {
        let layer = self.layer.into_inner().expect("in memory");
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {
                "User": self.user, "Entrypoint": self.entrypoint, "Env": self.variables,
                "Labels": { (label.0): label.1 },
            },
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] },
            "history": [],
        });
        (config, layer, self.tag)
    }
}

const BUSYBOX: &str = "/bin/busybox";

/// Whether instances of artifacts have a shell.
pub fn has_static_shell() -> bool {
    let linked = Command::new("ldd").arg(BUSYBOX).output();
    Path::new(BUSYBOX).exists() && linked.is_ok_and(|output| !output.status.success())
}

/// All of them in one archive for `docker load`.
pub fn archive(images: Vec<Image>, label: (&str, &str)) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = header(tar::EntryType::Regular, 0o644, bytes.len());
        archive.append_data(&mut header, name, bytes).expect("in memory");
    };
    let mut manifest = Vec::new();
    for (number, image) in images.into_iter().enumerate() {
        let (config, layer, tag) = image.finish(label);
        let config = config.to_string();
        let (name, of_layer) = (format!("{}.json", Digest::of(config.as_bytes()).hex()), format!("{number}/layer.tar"));
        put(&name, config.as_bytes());
        put(&of_layer, &layer);
        manifest.push(json!({ "Config": name, "RepoTags": [tag], "Layers": [of_layer] }));
    }
    put("manifest.json", Value::Array(manifest).to_string().as_bytes());
    archive.into_inner().expect("in memory")
}

/// The files of a directory, owned as the parts' keys are: root's, readable for the group.
pub fn keys(directory: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let bytes = fs::read(entry.path()).expect("a file");
        let mode = entry.metadata().expect("a file").permissions().mode() & 0o777;
        let mut header = header(tar::EntryType::Regular, mode, bytes.len());
        header.set_gid(USER);
        archive.append_data(&mut header, entry.file_name(), bytes.as_slice()).expect("in memory");
    }
    archive.into_inner().expect("in memory")
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
