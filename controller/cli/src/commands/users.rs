//! Users of a route: names and passwords as a person gives them, never as an argument, and the hashes that are sent.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use appbase_core::v1::{Basic, PasswordHash};
use rustix::termios::{self, LocalModes, OptionalActions};

use crate::error::{Exit, Failure};

/// Each user has a line.
const FILE_BYTES_MAX: u64 = 64 << 10;
const PASSWORD_BYTES_MAX: u64 = 1 << 10;

/// The users of a file, `-` for stdin: a `NAME:PASSWORD` or `NAME:HASH` on each line; empty ones and those with `#` say
/// nothing.
pub(crate) fn of_file(path: &Path) -> Result<Basic, Failure> {
    let unreadable = |error: io::Error| Failure::input(format!("cannot read users from {}: {error}", path.display()));
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)),
    };
    if read.map_err(unreadable)? as u64 == FILE_BYTES_MAX {
        return Err(Failure::input(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    let users = users(&text).map_err(|reason| Failure::input(format!("{}, {reason}", path.display())))?;
    Ok(Basic { realm: Basic::usual_realm(), users })
}

/// What is wrong never has a line's text: that is a password.
fn users(text: &str) -> Result<BTreeMap<String, PasswordHash>, String> {
    let mut users = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let pair = line.split_once(':').filter(|(name, password)| !name.is_empty() && !password.is_empty());
        let (name, password) = pair.ok_or_else(|| format!("line {number}: write NAME:PASSWORD or NAME:HASH"))?;
        let hash = match PasswordHash::looks_like_one(password) {
            true => PasswordHash::new(password),
            false => kit::password::hash(password.as_bytes()),
        };
        if hash.parts().is_none() {
            return Err(format!("line {number}: what {name} has is no hash that could be checked"));
        }
        if users.insert(name.to_owned(), hash).is_some() {
            return Err(format!("line {number}: {name} is there twice"));
        }
    }
    Ok(users)
}

/// Reads a password without showing it, or a line of stdin where that is no terminal, and answers its hash.
pub(crate) fn asked() -> Result<PasswordHash, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Unexpected, format!("cannot read a password: {error}"));
    let password = match termios::isatty(io::stdin()) {
        false => line().map_err(failed)?,
        true => {
            let password = unseen("Password: ").map_err(failed)?;
            if unseen("Once more: ").map_err(failed)? != password {
                return Err(Failure::input("these were two different passwords"));
            }
            password
        }
    };
    match password.is_empty() {
        true => Err(Failure::input("an empty password protects nothing")),
        false => Ok(kit::password::hash(password.as_bytes())),
    }
}

fn line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(PASSWORD_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn unseen(prompt: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let before = termios::tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO;
    io::stderr().write_all(prompt.as_bytes())?;
    termios::tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let line = line();
    termios::tcsetattr(&stdin, OptionalActions::Now, &before)?;
    io::stderr().write_all(b"\n")?;
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_become_hashes_and_hashes_stay() {
        let known = kit::password::hash_in(10_000, b"x");
        let users = users(&format!("# staff\nada:a:b\n\nbob:{}\n", known.as_str())).expect("sound");
        assert!(kit::password::is_of(&users["ada"], b"a:b"));
        assert_eq!(users["bob"], known);
    }

    #[test]
    fn a_mistake_is_told_without_the_password() {
        for (text, says) in [
            ("ada:secret\nada:secret", "line 2: ada is there twice"),
            ("secret", "line 1: write NAME:PASSWORD"),
            (":secret", "line 1: write NAME:PASSWORD"),
            ("ada:pbkdf2-sha512$1$secret", "line 1: what ada has is no hash"),
        ] {
            let error = users(text).expect_err(says);
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }
}
