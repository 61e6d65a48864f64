use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// One tar entry written by hand: the tar crate's builder refuses to write what must be refused here.
struct Item<'a> {
    name: &'a str,
    kind: u8,
    link: &'a str,
    mode: u32,
    body: &'a [u8],
}

fn file<'a>(name: &'a str, body: &'a [u8]) -> Item<'a> {
    Item { name, kind: b'0', link: "", mode: 0o644, body }
}

fn special<'a>(name: &'a str, kind: u8, link: &'a str) -> Item<'a> {
    Item { name, kind, link, mode: 0o644, body: b"" }
}

fn archive(items: &[Item]) -> Vec<u8> {
    let mut plain = Vec::new();
    for item in items {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..item.name.len()].copy_from_slice(item.name.as_bytes());
        old.linkname[..item.link.len()].copy_from_slice(item.link.as_bytes());
        header.set_entry_type(EntryType::new(item.kind));
        header.set_mode(item.mode);
        header.set_mtime(1_000_000);
        header.set_size(item.body.len() as u64);
        header.set_cksum();
        plain.extend_from_slice(header.as_bytes());
        plain.extend_from_slice(item.body);
        plain.resize(plain.len().next_multiple_of(512), 0);
    }
    plain.resize(plain.len() + 1024, 0);
    compressed(&plain)
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Unpacks into `<temporary>/app`; the temporary directory around it must stay otherwise empty.
fn unpacked(layers: &[Vec<u8>], mut budget: Budget) -> (tempfile::TempDir, Result<(), UnpackError>) {
    let around = tempfile::tempdir().unwrap();
    let root = around.path().join("app");
    fs::create_dir(&root).unwrap();
    let result = layers.iter().try_for_each(|layer| unpack(layer.as_slice(), &root, &mut budget));
    assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1, "something was written outside");
    (around, result)
}

fn refused(items: &[Item], budget: Budget) -> String {
    let (_around, result) = unpacked(&[archive(items)], budget);
    result.expect_err("must be refused").to_string()
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let long = "a".repeat(300);
    let deep = format!("{}x", "d/".repeat(3000));
    let long_name = |name: &'static str, body| Item { name, kind: b'L', link: "", mode: 0, body };
    let cases: Vec<(&str, Vec<Item>)> = vec![
        ("\"../evil\" leaves", vec![file("../evil", b"x")]),
        ("\"a/../../evil\" leaves", vec![file("a/../../evil", b"x")]),
        ("\"/etc/evil\" has an absolute", vec![file("/etc/evil", b"x")]),
        ("\"..\" leaves", vec![special("..", b'5', "")]),
        ("\"l\" is a link out", vec![special("l", b'2', "/etc/passwd")]),
        ("\"l\" is a link out", vec![special("l", b'2', "../x")]),
        ("\"d/l\" is a link out", vec![special("d/l", b'2', "../../x")]),
        ("\"l\" is a link with", vec![special("l", b'2', "a/../../x")]),
        ("\"l\" is a link to nothing", vec![special("l", b'2', "")]),
        ("\"l/x\" lies below \"l\"", vec![special("d", b'5', ""), special("l", b'2', "d"), file("l/x", b"x")]),
        ("\"d/t\" is a link with", vec![special("d/s", b'2', ".."), special("d/t", b'2', "s/../x")]),
        ("\"h\" is a hard link to", vec![special("h", b'1', "nowhere")]),
        ("\"h\" leaves", vec![special("h", b'1', "../x")]),
        ("\"h\" has an absolute", vec![special("h", b'1', "/etc/passwd")]),
        ("\"h\" is a hard link to", vec![file("f", b""), special("l", b'2', "f"), special("h", b'1', "l")]),
        ("\"h\" is a hard link to", vec![special("d", b'5', ""), special("h", b'1', "d")]),
        ("\"c\" is a device", vec![special("c", b'3', "")]),
        ("\"b\" is a device", vec![special("b", b'4', "")]),
        ("\"p\" is a FIFO", vec![special("p", b'6', "")]),
        ("\"s\" is a sparse", vec![special("s", b'S', "")]),
        ("\"q\" is of unknown kind", vec![special("q", b'Q', "")]),
        ("has no name", vec![file("./", b""), special(".", b'2', "x")]),
        ("\"d\" is a file where", vec![special("d", b'5', ""), file("d", b"x")]),
        ("\"f\" is a directory where", vec![file("f", b"x"), special("f", b'5', "")]),
        ("longer than 255", vec![long_name("l", long.as_bytes()), file("x", b"x")]),
        ("longer than 4095", vec![long_name("l", deep.as_bytes()), file("x", b"x")]),
        ("leaves", vec![long_name("l", b"../../evil\0"), file("x", b"x")]),
        ("damaged PAX", vec![Item { name: "p", kind: b'x', link: "", mode: 0, body: b"99 path=x\n" }, file("x", b"")]),
        ("leaves", vec![Item { name: "p", kind: b'x', link: "", mode: 0, body: b"15 path=../evl\n" }, file("x", b"")]),
        ("two sizes", vec![Item { name: "p", kind: b'x', link: "", mode: 0, body: b"9 size=1\n" }, file("x", b"")]),
    ];
    for (expect, items) in cases {
        let error = refused(&items, Budget::default());
        assert!(error.contains(expect), "expected {expect}, got: {error}");
    }
}

#[test]
fn long_records_are_bounded() {
    let huge = vec![b'a'; 300 << 10];
    for kind in *b"LKxg" {
        let error = refused(&[Item { name: "l", kind, link: "", mode: 0, body: &huge }], Budget::default());
        assert!(error.contains("longer than 256 KiB"), "{error}");
    }
}

#[test]
fn bombs_stop_at_the_limits() {
    let error = refused(&[file("a", b""), file("b", b""), file("c", b"")], Budget::new(2, 1 << 20));
    assert!(error.contains("\"c\" is one more than the 2"), "{error}");

    let zeros = vec![0; 4 << 20];
    let error = refused(&[file("small", b"x"), file("zeros", &zeros)], Budget::new(10, 1 << 20));
    assert!(error.contains("\"zeros\" makes it unpack to more than the 1048576"), "{error}");

    // Layers share one budget.
    let half = vec![1; 600 << 10];
    let layers = [archive(&[file("a", &half)]), archive(&[file("b", &half)])];
    let (_around, result) = unpacked(&layers, Budget::new(10, 1 << 20));
    assert!(result.expect_err("must be refused").to_string().contains("\"b\" makes it"));
}

#[test]
fn damage_is_an_error() {
    let sound = archive(&[file("a", b"hello"), file("b", &[7; 5000])]);
    let (_around, cut) = unpacked(&[sound[..sound.len() - 20].to_vec()], Budget::default());
    assert!(matches!(cut, Err(UnpackError::Damaged { .. })), "{cut:?}");
    let (_around, plain) = unpacked(&[b"not gzip at all".to_vec()], Budget::default());
    assert!(matches!(plain, Err(UnpackError::Damaged { .. })), "{plain:?}");
    let (_around, noise) = unpacked(&[compressed(&[9; 2048])], Budget::default());
    assert!(matches!(noise, Err(UnpackError::Damaged { .. })), "{noise:?}");
}

#[test]
fn sound_layers_lie_over_each_other() {
    let first = archive(&[
        file("./bin/run", b"one"),
        Item { name: "bin/setuid", kind: b'0', link: "", mode: 0o6755, body: b"s" },
        Item { name: "locked", kind: b'5', link: "", mode: 0o1555, body: b"" },
        file("locked/inside", b"i"),
        special("current", b'2', "bin"),
        special("bin/up", b'2', "../locked/inside"),
        special("hard", b'1', "bin/run"),
        Item { name: "l", kind: b'L', link: "", mode: 0, body: b"a/long/name\0" },
        file("short", b"long"),
        Item { name: "p", kind: b'x', link: "", mode: 0, body: b"19 path=from/pax\x0ab\n" },
        file("x", b"pax"),
    ]);
    let second = archive(&[file("bin/run", b"two")]);
    let (around, result) = unpacked(&[first, second], Budget::default());
    result.expect("sound");
    let root = around.path().join("app");
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((text("bin/run"), text("hard")), ("two".to_owned(), "one".to_owned()), "a link keeps what it linked");
    assert_eq!((text("current/setuid"), text("bin/up")), ("s".to_owned(), "i".to_owned()));
    assert_eq!((text("a/long/name"), text("from/pax\nb")), ("long".to_owned(), "pax".to_owned()));
    assert_eq!((mode("bin/setuid"), mode("locked"), mode("bin/run")), (0o755, 0o755, 0o644));
    let changed = fs::metadata(root.join("bin/run")).unwrap().modified().unwrap();
    assert_eq!(changed, UNIX_EPOCH + Duration::from_secs(1_000_000));
}
