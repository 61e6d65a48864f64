//! Contexts: which controller, with which token. `context.json` is the current one; `contexts/<name>.json` the ones to
//! choose from. All are 0600: a file with a token that others may read is refused.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

use crate::error::{Exit, Failure};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// None: written by `login`, not chosen among several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

/// `$XDG_CONFIG_HOME/platformctl`; none without a home.
pub(crate) fn home() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("platformctl"))
}

/// The directory of contexts, where there must be one.
pub(crate) fn home_or_failure() -> Result<PathBuf, Failure> {
    home().ok_or_else(|| Failure::input("there is no place for contexts: set HOME or XDG_CONFIG_HOME"))
}

pub(crate) fn current(home: &Path) -> Result<Option<Context>, Failure> {
    read(&home.join("context.json"))
}

pub(crate) fn all(home: &Path) -> Result<Vec<Context>, Failure> {
    let directory = home.join("contexts");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io("read", &directory, &error)),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().filter_map(|path| read(path).transpose()).collect()
}

/// Keeps `context` under its name and makes it the current one.
pub(crate) fn add(home: &Path, name: &str, context: Context) -> Result<(), Failure> {
    check_name(name)?;
    let context = Context { name: Some(name.to_owned()), ..context };
    write(&home.join("contexts").join(format!("{name}.json")), &context)?;
    write(&home.join("context.json"), &context)
}

/// The context kept under a name, if there is one.
pub(crate) fn find(home: &Path, name: &str) -> Result<Option<Context>, Failure> {
    check_name(name)?;
    read(&home.join("contexts").join(format!("{name}.json")))
}

pub(crate) fn choose(home: &Path, name: &str) -> Result<Context, Failure> {
    let Some(context) = find(home, name)? else { return Err(unknown(name)) };
    write(&home.join("context.json"), &context)?;
    Ok(context)
}

/// Takes a context away; when it is the current one, none is. With `url` only if it is of that controller.
pub(crate) fn remove(home: &Path, name: &str, url: Option<&str>) -> Result<Context, Failure> {
    let Some(context) = find(home, name)? else { return Err(unknown(name)) };
    if url.is_some_and(|url| url != context.url) {
        return Err(Failure::new(Exit::Conflict, format!("context {name} is that of {}", context.url)));
    }
    let mut paths = vec![home.join("contexts").join(format!("{name}.json"))];
    if current(home)?.is_some_and(|current| current.name.as_deref() == Some(name)) {
        paths.push(home.join("context.json"));
    }
    for path in paths {
        fs::remove_file(&path).map_err(|error| Failure::io("remove", &path, &error))?;
    }
    Ok(context)
}

fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no context \"{name}\""))
        .hint("try", "platformctl context ls")
        .hint("or", format!("platformctl context add {name} --url URL"))
}

/// The token in a file that people name: its first line. Everybody being able to read it is refused.
pub(crate) fn token_of(path: &Path) -> Result<String, Failure> {
    refuse_mode(path, 0o007, "everybody")?;
    let text = fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() => Ok(token.to_owned()),
        _ => Err(Failure::input(format!("{} holds no token: its first line is empty", path.display()))),
    }
}

fn read(path: &Path) -> Result<Option<Context>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io("read", path, &error)),
    };
    let context: Context = serde_json::from_str(&text)
        .map_err(|error| Failure::input(format!("{} is not a context: {error}", path.display())))?;
    if context.token.is_some() {
        refuse_mode(path, 0o077, "others")?;
    }
    Ok(Some(context))
}

fn refuse_mode(path: &Path, bits: u32, whom: &str) -> Result<(), Failure> {
    let mode = fs::metadata(path).map_err(|error| Failure::io("read", path, &error))?.permissions().mode();
    if mode & bits == 0 {
        return Ok(());
    }
    Err(Failure::input(format!("{} holds a token and {whom} can read it (mode {:o})", path.display(), mode & 0o777))
        .hint("try", format!("chmod 600 {}", path.display())))
}

fn write(path: &Path, context: &Context) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Failure::io("create", directory, &error))?;
    let mut bytes = serde_json::to_vec_pretty(context).expect("a context is three texts");
    bytes.push(b'\n');
    kit::durable::replace(path, &bytes).map_err(|error| Failure::input(kit::problem::chain(&error)))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let fits = (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !name.starts_with('.');
    if fits {
        return Ok(());
    }
    Err(Failure::input(format!(
        "\"{}\" cannot name a context: use letters, digits, '-', '_' and '.'",
        name.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_private_and_chosen_by_name() {
        let home = tempfile::tempdir().expect("a directory");
        let home = home.path().join("platformctl");
        assert_eq!(current(&home).expect("nothing yet"), None);
        let one = Context { name: None, url: "http://one:8081".into(), token: Some("secret".into()) };
        add(&home, "one", one.clone()).expect("added");
        add(&home, "two", Context { url: "http://two:8081".into(), token: None, name: None }).expect("added");
        assert_eq!(current(&home).expect("readable").expect("there").url, "http://two:8081");
        choose(&home, "one").expect("known");
        assert_eq!(current(&home).expect("readable").expect("there").token.as_deref(), Some("secret"));
        assert_eq!(all(&home).expect("readable").len(), 2);
        assert_eq!(choose(&home, "three").expect_err("unknown").exit, Exit::NotFound);
        assert_eq!(choose(&home, "../one").expect_err("no path").exit, Exit::BadInput);

        assert_eq!(remove(&home, "one", Some("http://two:8081")).expect_err("another").exit, Exit::Conflict);
        remove(&home, "two", None).expect("known");
        assert_eq!(current(&home).expect("readable").expect("still").url, "http://one:8081");
        remove(&home, "one", Some("http://one:8081")).expect("known");
        assert_eq!((current(&home).expect("readable"), all(&home).expect("readable").len()), (None, 0));
        add(&home, "one", one).expect("added");

        let file = home.join("context.json");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&home)), (0o600, 0o700));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(current(&home).expect_err("others can read it").message.contains("others can read it"));
    }
}
