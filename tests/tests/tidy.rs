//! The house rules that a compiler does not hold: who may use whom, names, sizes, links. Each test lists every breach.
//!
//! Reads the source tree and `cargo metadata`; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, process};

use serde_json::Value;

/// Who may use whom, of our own crates, in every kind of dependency. `docs/ARCHITECTURE.md` draws it.
const EDGES: &[(&str, &[&str])] = &[
    ("appbase-core", &[]),
    ("kit", &["appbase-core"]),
    ("boot", &["appbase-core", "kit", "repository-core"]),
    ("dns-core", &["appbase-core"]),
    ("dns", &["appbase-core", "dns-core", "kit"]),
    ("lb-core", &["appbase-core"]),
    ("lb", &["appbase-core", "kit", "lb-core"]),
    ("repository-core", &["appbase-core"]),
    ("repository", &["appbase-core", "kit", "repository-core"]),
    ("controller-core", &["appbase-core", "dns-core", "lb-core", "repository-core"]),
    ("node", &["appbase-core", "controller-core", "kit"]),
    // A deviation: it serves documents of these cores (docs/decisions/0007-controller-serves-leaf-documents.md).
    ("controller", &["appbase-core", "controller-core", "dns-core", "kit", "lb-core", "node", "repository-core"]),
    ("platformctl", &["appbase-core", "controller-core", "kit", "repository-core"]),
    ("platformer", &["appbase-core", "controller", "dns", "kit", "lb", "repository"]),
    ("hello-world", &[]),
];
/// Crates that stand at the top and may use every other.
const MAY_USE_ALL: &[&str] = &["tests"];
/// What a pure core may use of others: words and bytes on the wire, digests, errors, the app file's format.
const CORE_CRATES: &[&str] = &[
    "base64",
    "ed25519-dalek",
    "form_urlencoded",
    "httparse",
    "memchr",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "toml",
];
/// Beside those, in a core's tests.
const CORE_TEST_CRATES: &[&str] = &["hickory-proto", "insta", "proptest"];

const LINES_MAX: usize = 600;
/// Files over the limit, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Parts of type names that say nothing.
const EMPTY_WORDS: &[&str] = &["Manager", "Helper", "Util"];
/// Words that belong to some rooms. Only code counts, comments and texts in quotes may use them.
const WORDS: &[(&str, &[&str])] = &[
    ("container", &["controller/node/", "controller/cli/src/commands/login.rs", "compose/", "docs/", "tests/"]),
    ("backend", &["lb/", "docs/", "tests/"]),
    ("upstream", &["lb/", "dns/", "repository/", "docs/", "tests/"]),
];

/// Directories without sources of ours.
const NOT_OURS: &[&str] = &["target", "bin", "data"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_path_buf()
}

/// Every file with one of these endings: path from the root, and text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the tree").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            // The harness's own scratch and tools' directories begin with a dot; .ci and .config hold no Rust.
            if path.is_dir() && !name.starts_with('.') && !(directory == root && NOT_OURS.contains(&name.as_str())) {
                open.push(path);
            } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let short = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.push((short, fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {endings:?} found below {}", root.display());
    found
}

/// The packages of the workspace and what each names as a dependency: (name, kind).
fn packages() -> BTreeMap<String, Vec<(String, String)>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = process::Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
    let dependencies = |package: &Value| {
        let listed = package["dependencies"].as_array().expect("dependencies").iter();
        listed.map(|dependency| (text(&dependency["name"]), text(&dependency["kind"]))).collect()
    };
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages.map(|package| (text(&package["name"]), dependencies(package))).collect()
}

/// A line without its comment and without what stands in quotes.
fn code(line: &str) -> String {
    let (mut kept, mut quoted, mut previous) = (String::new(), false, ' ');
    for next in line.chars() {
        if next == '"' && previous != '\\' && previous != '\'' {
            quoted = !quoted;
        } else if !quoted && next == '/' && previous == '/' {
            kept.pop();
            break;
        } else if !quoted {
            kept.push(next);
        }
        previous = next;
    }
    kept
}

/// The name that a line declares as a type.
fn declared_type(line: &str) -> Option<&str> {
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.find(|word| ["struct", "enum", "trait", "type", "union"].contains(word))?;
    words.next()
}

fn none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn crates_use_only_whom_they_may() {
    let packages = packages();
    let mut breaches = Vec::new();
    for (name, dependencies) in &packages {
        if MAY_USE_ALL.contains(&name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            breaches.push(format!("{name} stands in no line of EDGES"));
            continue;
        };
        let ours = dependencies.iter().filter(|(used, _)| packages.contains_key(used));
        let forbidden = ours.filter(|(used, _)| !allowed.contains(&used.as_str()));
        breaches.extend(forbidden.map(|(used, kind)| format!("{name} uses {used} ({kind})")));
    }
    let gone = EDGES.iter().filter(|(name, _)| !packages.contains_key(*name));
    breaches.extend(gone.map(|(name, _)| format!("EDGES names {name}, which is no crate")));
    none("who may use whom (docs/ARCHITECTURE.md)", &breaches);
}

#[test]
fn cores_stand_on_little() {
    let packages = packages();
    let cores: Vec<_> = packages.iter().filter(|(name, _)| name.ends_with("-core")).collect();
    assert_eq!(cores.len(), 5, "five cores: {cores:?}");
    let mut breaches = Vec::new();
    for (name, dependencies) in cores {
        let foreign = dependencies.iter().filter(|(used, _)| !packages.contains_key(used));
        let forbidden = foreign.filter(|(used, kind)| {
            let in_tests = kind == "dev" && CORE_TEST_CRATES.contains(&used.as_str());
            !CORE_CRATES.contains(&used.as_str()) && !in_tests
        });
        breaches.extend(forbidden.map(|(used, kind)| format!("{name} uses {used} ({kind})")));
    }
    none("a core thinks and needs no more than CORE_CRATES", &breaches);
}

#[test]
fn files_stay_short() {
    let mut breaches = Vec::new();
    let mut long = BTreeSet::new();
    for (path, text) in files(&[".rs"]) {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            long.insert(path.clone());
            if !LONG_FILES.iter().any(|(known, reason)| *known == path && !reason.is_empty()) {
                breaches.push(format!("{path} has {lines} lines"));
            }
        }
    }
    let unneeded = LONG_FILES.iter().filter(|(path, _)| !long.contains(*path));
    breaches.extend(unneeded.map(|(path, _)| format!("LONG_FILES names {path}, which is not long")));
    none("at most 600 lines a file, or a reason in LONG_FILES", &breaches);
}

#[test]
fn names_say_what_they_mean() {
    let mut breaches = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if path.ends_with("mod.rs") && Path::new(&path).file_name().is_some_and(|name| name == "mod.rs") {
            breaches.push(format!("{path}: write noun.rs beside noun/"));
        }
        for (number, line) in text.lines().enumerate() {
            let (line, at) = (code(line), format!("{path}:{}", number + 1));
            let empty = declared_type(&line).filter(|name| EMPTY_WORDS.iter().any(|word| name.contains(word)));
            breaches.extend(empty.map(|name| format!("{at}: {name} says nothing of what it is")));
            let lower = line.to_lowercase();
            let strayed = WORDS
                .iter()
                .filter(|(word, rooms)| lower.contains(word) && !rooms.iter().any(|room| path.starts_with(room)));
            breaches.extend(strayed.map(|(word, rooms)| format!("{at}: \"{word}\" belongs to {rooms:?}")));
        }
    }
    none("names (docs/glossary.md)", &breaches);
}

#[test]
fn an_ignored_test_has_a_reason() {
    let mut breaches = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let bare = text.lines().enumerate().filter(|(_, line)| line.trim() == "#[ignore]");
        breaches.extend(bare.map(|(number, _)| format!("{path}:{}", number + 1)));
    }
    none("write #[ignore = \"why\"]", &breaches);
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut breaches = Vec::new();
    for (path, text) in files(&[".md"]) {
        let place = root().join(&path).parent().expect("a file stands in a directory").to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !link.contains("://") && !place.join(file).exists() {
                breaches.push(format!("{path}: {link}"));
            }
        }
    }
    for (path, text) in files(&[".rs", ".toml", ".sh", ".yaml"]) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"/.-_".contains(c));
        let named = words.filter(|word| word.starts_with("docs/") && word.ends_with(".md"));
        let gone = named.filter(|word| !root().join(word).exists());
        breaches.extend(gone.map(|word| format!("{path}: {word}")));
    }
    none("links to files that are not there", &breaches);
}

/// `docs/capabilities.md` proves each row with tests, written `path/to/file.rs::test_name`.
#[test]
fn capabilities_name_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/capabilities.md")).expect("docs/capabilities.md");
    let is_row = |line: &&str| line.strip_prefix("| ").and_then(|row| row.get(2..3)) == Some("-");
    let rows: Vec<&str> = text.lines().filter(is_row).filter(|line| !line.starts_with("| -")).collect();
    assert!(rows.len() > 10, "the table of capabilities is gone");
    let mut breaches = Vec::new();
    for row in rows {
        let named: Vec<_> = row.split('`').filter_map(|word| word.split_once("::")).collect();
        if named.is_empty() {
            breaches.push(format!("no test: {row}"));
        }
        for (path, test) in named {
            let source = fs::read_to_string(root().join(path)).unwrap_or_default();
            if !source.contains(&format!("fn {test}(")) {
                breaches.push(format!("{path} has no test {test}"));
            }
        }
    }
    none("capabilities without a proof", &breaches);
}
