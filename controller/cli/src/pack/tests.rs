use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn of(files: &[(&str, &str, u32)]) -> Self {
        let tree = Self(tempfile::tempdir().expect("a directory"));
        for (name, text, mode) in files {
            let path = tree.path(name);
            fs::create_dir_all(path.parent().expect("below the root")).expect("created");
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("set");
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pack(&self) -> Result<Packed, Failure> {
        pack(self.0.path(), None)
    }
}

/// `mode name` or `mode name -> target` of each entry, in order.
fn listing(packed: &mut Packed) -> Vec<String> {
    let bytes = packed.blob.read(0, usize::try_from(packed.blob.bytes).expect("small")).expect("read");
    assert_eq!(Digest::of(&bytes), packed.blob.digest, "the digest is that of the bytes");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let entries = archive.entries().expect("a tar");
    entries
        .map(|entry| {
            let entry = entry.expect("sound");
            let header = entry.header();
            let numbers = [header.mtime(), header.uid(), header.gid()].map(|number| number.expect("a number"));
            assert_eq!(numbers, [0, 0, 0]);
            let link = entry.link_name().expect("sound").map(|link| format!(" -> {}", link.display()));
            let mode = header.mode().expect("a mode");
            format!("{mode:o} {}{}", entry.path().expect("sound").display(), link.unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let files =
        [("b", "2", 0o600), ("a/x", "1", 0o700), ("platform.toml", "port = 80", 0o644), ("notes.log", "", 0o644)];
    let one = Tree::of(&files);
    let mut reversed = files;
    reversed.reverse();
    let two = Tree::of(&reversed);
    for tree in [&one, &two] {
        fs::write(tree.path(".platformignore"), "*.log\n").expect("written");
        symlink("a/x", tree.path("link")).expect("linked");
    }
    fs::set_permissions(two.path("b"), fs::Permissions::from_mode(0o664)).expect("set");
    let (mut one, mut two) = (one.pack().expect("packed"), two.pack().expect("packed"));
    assert_eq!(one.blob.digest, two.blob.digest);
    assert_eq!(one.app_file, "port = 80");
    assert_eq!(listing(&mut one), ["755 a", "755 a/x", "644 b", "777 link -> a/x"]);
    assert_eq!(listing(&mut two), listing(&mut one));
}

#[test]
fn hostile_directories_are_refused_with_the_name() {
    let escape = Tree::of(&[("a/file", "", 0o644)]);
    symlink("../../etc/passwd", escape.path("a/link")).expect("linked");
    let failure = escape.pack().expect_err("it leaves");
    assert!(failure.message.ends_with("a/link is a link that leaves the directory (to ../../etc/passwd)"), "{failure}");
    assert_eq!(failure.hints[0].1, "remove it, or add this line to .platformignore: /a/link");
    fs::write(escape.path(".platformignore"), "/a/link\n").expect("written");
    assert!(escape.pack().is_ok(), "what the hint says helps");

    let socket = Tree::of(&[("file", "", 0o644)]);
    let _listener = std::os::unix::net::UnixListener::bind(socket.path("s")).expect("bound");
    assert!(socket.pack().expect_err("a socket").message.ends_with("s is a socket, which cannot be pushed"));

    assert!(Tree::of(&[]).pack().expect_err("empty").message.contains("there is no file to push"));
    let app_file = Tree::of(&[("main", "#!/bin/sh", 0o755)]);
    symlink("/dev/zero", app_file.path("platform.toml")).expect("linked");
    assert!(app_file.pack().expect_err("endless").message.contains("is not a file"));
}

#[test]
fn a_file_is_what_it_begins_with() {
    let tree = Tree::of(&[("run", "#!/bin/sh\n", 0o644), ("notes", "text", 0o644), ("empty", "", 0o755)]);
    let mut program = pack(&tree.path("run"), None).expect("a script");
    assert_eq!(listing(&mut program), ["755 run"]);
    for not in ["notes", "empty"] {
        assert!(pack(&tree.path(not), None).expect_err(not).message.contains("nothing that can run"));
    }

    let size = usize::try_from(program.blob.bytes).expect("small");
    fs::write(tree.path("app.tgz"), program.blob.read(0, size).expect("read")).expect("written");
    let again = pack(&tree.path("app.tgz"), None).expect("a tar.gz");
    assert_eq!(again.blob.digest, program.blob.digest, "pushed as it is");
    fs::write(tree.path("bad.tgz"), [0x1f, 0x8b, 8, 0, 1, 2, 3]).expect("written");
    assert!(pack(&tree.path("bad.tgz"), None).expect_err("torn").message.contains("not a gzip-compressed tar"));
}

#[test]
fn an_image_is_known_by_its_config() {
    let config = br#"{"architecture":"amd64"}"#;
    let tar_of = |members: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).expect("appended");
        }
        builder.into_inner().expect("finished")
    };
    let manifest: &[u8] = br#"[{"Config":"blobs/sha256/c0","RepoTags":["x:1"],"Layers":[]}]"#;
    let tree = Tree::of(&[]);
    let path = tree.path("image.tar");
    fs::write(&path, tar_of(&[("blobs/sha256/c0", config), ("manifest.json", manifest)])).expect("written");
    let packed = pack(&path, None).expect("an image");
    assert!(matches!(&packed.content, Content::Image(id) if *id == Digest::of(config).to_string()));

    let two: &[u8] = br#"[{"Config":"a"},{"Config":"b"}]"#;
    for (members, why) in [
        (vec![("x", config.as_slice())], "without manifest.json"),
        (vec![("manifest.json", manifest)], "does not hold the config"),
        (vec![("manifest.json", two)], "holds 2 images"),
        (vec![("manifest.json", b"{}".as_slice())], "cannot be read"),
    ] {
        fs::write(&path, tar_of(&members)).expect("written");
        let failure = pack(&path, None).expect_err(why);
        assert!(failure.message.contains(why), "{failure}");
    }
}
