//! Bytes of strangers, made of bytes that were once something: a corpus, cut, spliced and bent. Nothing panics, and what is
//! taken means one thing, however it is cut and however often it is read.
//!
//! A seed makes a run, and is printed with what broke. An input that broke something goes into `corpus/`, in the directory
//! of its reader, and is tried first from then on.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use appbase_core::SectionKey;
use lb_core::http1::framing::{self, BodyLength};
use lb_core::http1::{Chunked, Fields, HeadScan, RequestHead, ResponseHead, chunked};
use lb_core::pick::Seeds;
use lb_core::rule::Ask;
use lb_core::v1::{RouteSection, TableFile};
use lb_core::{Table, host, path, preview, route};

/// One reader of bytes, with what it promises.
struct Reader {
    /// Its directory in the corpus.
    name: &'static str,
    holds: fn(&[u8]),
    /// Tries beside the corpus itself, in a test that everybody runs; a second or so.
    tries: u64,
}

const READERS: [Reader; 6] = [
    Reader { name: "requests", holds: request, tries: 60_000 },
    Reader { name: "answers", holds: answer, tries: 60_000 },
    Reader { name: "chunks", holds: chunks, tries: 60_000 },
    Reader { name: "hosts", holds: hosts, tries: 100_000 },
    Reader { name: "paths", holds: paths, tries: 100_000 },
    Reader { name: "tables", holds: tables, tries: 8_000 },
];

/// What programs have been found to read in two ways.
const ODD: [&[u8]; 28] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b":",
    b";",
    b",",
    b"%2f",
    b"%2e%2e",
    b"%00",
    b"..",
    b"//",
    b"\\",
    b"#",
    b"?",
    b"@",
    b"[::1]",
    b"chunked",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"-1",
];
/// Longer inputs show nothing that shorter ones do not.
const BYTES_MAX: usize = 8 << 10;

fn corpus(reader: &Reader) -> Vec<Vec<u8>> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(reader.name);
    let mut files: Vec<_> = fs::read_dir(place).expect("a corpus").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("readable")).collect()
}

/// One input made of others.
fn bent(corpus: &[Vec<u8>], seeds: &mut Seeds) -> Vec<u8> {
    let mut below = |limit: usize| seeds.draw() as usize % limit.max(1);
    let mut bytes = corpus[below(corpus.len())].clone();
    for _ in 0..=below(4) {
        let (at, to) = (below(bytes.len() + 1), below(bytes.len() + 1));
        let (from, upto) = (at.min(to), at.max(to));
        match below(7) {
            0 if at < bytes.len() => bytes[at] = below(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << below(8),
            2 => drop(bytes.drain(from..upto.min(from + 8))),
            3 => drop(bytes.splice(at..at, ODD[below(ODD.len())].iter().copied())),
            4 => {
                let twice = bytes[from..upto.min(from + 64)].to_vec();
                bytes.splice(at..at, twice);
            }
            5 => {
                let other = &corpus[below(corpus.len())];
                let cut = below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[cut..]);
            }
            _ => bytes.truncate(upto),
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn check(reader: &Reader, bytes: &[u8], seed: u64) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (reader.holds)(bytes))) {
        let text = bytes.escape_ascii();
        panic!("{} (seed {seed}) broke on b\"{text}\": {panic:?}", reader.name);
    }
}

fn run(seed: u64, times: u64) {
    for reader in &READERS {
        let corpus = corpus(reader);
        corpus.iter().for_each(|bytes| check(reader, bytes, seed));
        let mut seeds = Seeds(seed);
        for _ in 0..reader.tries * times {
            check(reader, &bent(&corpus, &mut seeds), seed);
        }
    }
}

#[test]
fn readers_hold_what_they_promise() {
    run(1, 1);
}

/// `make soak` runs it, each time with another seed.
#[test]
#[ignore = "minutes"]
fn readers_hold_for_minutes() {
    let seed = u64::from(std::process::id()) << 20;
    println!("fuzz: seed {seed}");
    run(seed, 200);
}

/// Whatever way the bytes come in, the head ends at one place.
fn place_of(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let whole = HeadScan::default().find(bytes);
    let mut scan = HeadScan::default();
    let mut cut = Ok(None);
    for upto in (1..=bytes.len()).step_by(1 + bytes.len() / 64).chain([bytes.len()]) {
        cut = scan.find(&bytes[..upto]);
        if !matches!(cut, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole.clone().ok(), cut.ok(), "a cut moves the end of a head");
    whole.ok().flatten()
}

fn no_line_ends(fields: &Fields) {
    for field in fields.iter() {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!field.name.is_empty() && field.name.bytes().all(token), "name {:?}", field.name);
        assert!(!field.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "value {:?}", field.value);
    }
}

fn request(bytes: &[u8]) {
    let Some(place) = place_of(bytes) else { return };
    let mut head = RequestHead::default();
    if head.read(&bytes[place]).is_err() {
        return;
    }
    no_line_ends(&head.fields);
    assert!(!head.target().bytes().any(|byte| byte <= b' ' || byte == 0x7f), "target {:?}", head.target());
    let (Ok(framed), Ok((host, target))) = (framing::of_request(&head), framing::target(&head)) else { return };
    let named = |name: &str| head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    match framed.body {
        BodyLength::None => assert_eq!(named("content-length") + named("transfer-encoding"), 0),
        BodyLength::Bytes(_) => assert_eq!((named("content-length"), named("transfer-encoding")), (1, 0)),
        BodyLength::Chunked => assert_eq!((named("content-length"), named("transfer-encoding")), (0, 1)),
        BodyLength::UntilClose => panic!("a request has no end by its connection"),
    }
    assert!(named("host") <= 1 && (head.is_http10() || host.is_some()));
    let _ = (host.map(host::canonical), path::canonical(target));
}

fn answer(bytes: &[u8]) {
    let Some(place) = place_of(bytes) else { return };
    let mut head = ResponseHead::default();
    if head.read(&bytes[place]).is_err() {
        return;
    }
    no_line_ends(&head.fields);
    assert!((100..1000).contains(&head.status()));
    assert!(!head.reason().contains(['\r', '\n']), "reason {:?}", head.reason());
    let framed = framing::of_response(&head, "GET");
    if let (Ok(framed), Ok(of_head)) = (framed, framing::of_response(&head, "HEAD")) {
        assert_eq!(of_head.body, BodyLength::None);
        assert!(framed.body != BodyLength::UntilClose || !framed.keep_alive);
    }
}

/// The data, and how many bytes were chunks; none when they are not whole, or no chunks.
fn unchunked(bytes: &[u8], piece: usize) -> Option<(Vec<u8>, usize)> {
    let (mut reader, mut data, mut at, mut seen) = (Chunked::default(), Vec::new(), 0, 0);
    loop {
        let step = reader.step(&bytes[at..seen]).ok()?;
        at += step.skip;
        if step.over {
            return Some((data, at));
        }
        if step.data > 0 {
            data.extend_from_slice(&bytes[at..at + step.data]);
            reader.took(step.data);
            at += step.data;
        } else if seen == bytes.len() {
            return None;
        } else {
            seen = (seen + piece).min(bytes.len());
        }
    }
}

fn chunks(bytes: &[u8]) {
    let whole = unchunked(bytes, bytes.len().max(1));
    assert_eq!(whole, unchunked(bytes, 1), "a cut changes what chunks are");
    assert_eq!(whole, unchunked(bytes, 3), "a cut changes what chunks are");
    let Some((data, _)) = whole else { return };
    let mut anew = Vec::new();
    if !data.is_empty() {
        chunked::size_line(data.len(), &mut anew);
        anew.extend_from_slice(&data);
        anew.extend_from_slice(chunked::DATA_END);
    }
    anew.extend_from_slice(chunked::LAST);
    assert_eq!(unchunked(&anew, 7), Some((data, anew.len())), "what is written anew is the same");
}

fn hosts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(canonical) = host::canonical(text) else { return };
    assert_eq!(host::canonical(&canonical), Ok(canonical.clone()), "a host has one form");
    assert!(!canonical.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || byte >= 0x7f || byte == b'@'));
    if let Some(domain) = host::wildcard_of(&canonical) {
        assert!(canonical.ends_with(domain) && domain.len() < canonical.len());
    }
    assert!(!preview::masked(&canonical).is_empty());
}

fn paths(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(canonical) = path::canonical(text) else { return };
    assert_eq!(path::canonical(&canonical).as_deref(), Ok(&*canonical), "a path has one form");
    assert!(canonical.starts_with('/') && !canonical.contains("//") && !canonical.contains('\\'));
    assert!(!canonical.split('/').any(|segment| segment == "." || segment == ".."));
    assert!(canonical.bytes().all(|byte| byte > b' ' && byte < 0x7f));
}

fn tables(bytes: &[u8]) {
    let Ok(file) = serde_json::from_slice::<TableFile>(bytes) else { return };
    let key = |section: &RouteSection| SectionKey::app(&section.environment, &section.app);
    let sections: BTreeMap<_, _> = file.sections.into_iter().map(|section| (key(&section), section)).collect();
    let Ok(table) = Table::new(&sections) else { return };
    let head = RequestHead::default();
    for (asked, path) in
        [(Some("shop.example"), "/old"), (Some("a.shop.example"), "/api/x"), (None, "/"), (Some("x"), "/")]
    {
        let ask = Ask { host: asked, path, method: "GET", query: "a=b", fields: &head.fields };
        let found = route::find(&table, &ask);
        let considered = route::considered(&table, &ask);
        assert_eq!(found, considered.iter().find(|(_, takes)| takes.is_ok()).map(|(rule, _)| *rule));
        if let Some(rule) = found {
            assert!(path.starts_with(rule.route.path.trim_end_matches('/')), "{} for {path}", rule.route.path);
            let _ = rule.route.redirect.as_ref().map(|redirect| rule.location(redirect, &ask));
        }
        let _ = preview::find(&table, &ask);
    }
    // What was taken is taken again, as it is written.
    let again = serde_json::to_vec(&sections).expect("written");
    let read: BTreeMap<SectionKey, RouteSection> = serde_json::from_slice(&again).expect("read");
    assert!(Table::new(&read).is_ok());
}
