//! `.platformignore`: what of a directory is not pushed. A small part of gitignore's rules: `#` comments, `!` takes
//! back, a `/` at the end means directories, a `/` before that anchors at the root, `*`, `?` and `**`.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::Failure;

pub(super) const FILE: &str = ".platformignore";

/// What nobody wants in an artifact; `!` in the file takes it back.
const ALWAYS: [&str; 2] = [".git/", "/.platformignore"];

const RULES_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// One pattern for each part of the path; `**` for any number of them.
    parts: Vec<String>,
    directories_only: bool,
    takes_back: bool,
}

impl Ignore {
    pub(super) fn of(root: &Path) -> Result<Self, Failure> {
        let path = root.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|error| Failure::input(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::parse("").map_err(Failure::input),
            Err(error) => Err(Failure::io("read", &path, &error)),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let rules: Vec<Rule> = ALWAYS.into_iter().chain(text.lines()).filter_map(Rule::parse).collect();
        if rules.len() > RULES_MAX {
            return Err(format!("more than {RULES_MAX} rules"));
        }
        if let Some(rule) = rules.iter().find(|rule| rule.parts.iter().any(|part| part.contains(['[', '\\']))) {
            return Err(format!("\"{}\": only *, ? and ** are understood", rule.parts.join("/")));
        }
        Ok(Self { rules })
    }

    /// Whether `path` (below the root) is left out: the last rule that fits decides.
    pub(super) fn matches(&self, path: &Path, is_directory: bool) -> bool {
        let parts: Vec<String> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let fitting = self
            .rules
            .iter()
            .rev()
            .find(|rule| (is_directory || !rule.directories_only) && path_fits(&rule.parts, &parts));
        fitting.is_some_and(|rule| !rule.takes_back)
    }
}

impl Rule {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (takes_back, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let (directories_only, line) = line.strip_suffix('/').map_or((false, line), |rest| (true, rest));
        let anchored = line.contains('/');
        let mut parts: Vec<String> = line.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if parts.is_empty() {
            return None;
        }
        if !anchored {
            parts.insert(0, "**".to_owned());
        }
        Some(Self { parts, directories_only, takes_back })
    }
}

fn path_fits(pattern: &[String], path: &[&str]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return path.is_empty() };
    if first == "**" {
        // At the end it stands for something; in the middle also for nothing.
        let least = usize::from(rest.is_empty());
        return (least..=path.len()).any(|skip| path_fits(rest, &path[skip..]));
    }
    path.split_first()
        .is_some_and(|(name, below)| name_fits(first.as_bytes(), name.as_bytes()) && path_fits(rest, below))
}

/// `*` is any run of characters, `?` one. Goes back to the last star only: never slow.
fn name_fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match &mut star {
                Some((star_at, taken)) => {
                    *taken += 1;
                    (at, read) = (*star_at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_decides() {
        let ignore =
            Ignore::parse("# comment\n\n*.log\n!keep.log\nnode_modules/\n/build/*.o\ndocs/**/draft-?\n**/tmp/**\n")
                .expect("rules");
        for (path, is_directory, ignored) in [
            ("a.log", false, true),
            ("deep/er/a.log", false, true),
            ("keep.log", false, false),
            ("node_modules", true, true),
            ("web/node_modules", true, true),
            ("node_modules", false, false),
            ("build/a.o", false, true),
            ("web/build/a.o", false, false),
            ("docs/draft-1", false, true),
            ("docs/a/b/draft-2", false, true),
            ("docs/draft-12", false, false),
            ("tmp", true, false),
            ("a/tmp/x", false, true),
            (".git", true, true),
            (".platformignore", false, true),
            ("main", false, false),
        ] {
            assert_eq!(ignore.matches(Path::new(path), is_directory), ignored, "{path}");
        }
        assert!(Ignore::parse("[ab].c").is_err());
    }

    #[test]
    fn stars_do_not_explode() {
        assert!(!name_fits("*a".repeat(40).as_bytes(), "a".repeat(39).as_bytes()));
        assert!(name_fits(b"*-*.tar.??", b"a-b-c.tar.gz"));
    }
}
