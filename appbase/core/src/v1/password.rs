//! Password: what is kept of one: never itself, but a hash that takes time to try.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

/// As text `pbkdf2-sha512$ITERATIONS$SALT$HASH` (RFC 8018, section 5.2), salt and hash in base64 without padding. Its debug
/// form is a word.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

/// What a hash is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct HashParts {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub hash: [u8; PasswordHash::BYTES],
}

impl PasswordHash {
    pub const BYTES: usize = 64;
    const SCHEME: &str = "pbkdf2-sha512";
    /// Fewer protect nothing.
    const ITERATIONS_MIN: u32 = 10_000;
    /// More take seconds of whoever checks one.
    const ITERATIONS_MAX: u32 = 1_000_000;
    const SALT_BYTES_MIN: usize = 8;
    const SALT_BYTES_MAX: usize = 64;
    /// What people are shown instead.
    const HIDDEN: &str = "(hash)";

    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn of(parts: &HashParts) -> Self {
        let HashParts { iterations, salt, hash } = parts;
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
        Self(format!("{}${iterations}${salt}${hash}", Self::SCHEME))
    }

    /// Whether a text is meant as a hash, sound or not.
    pub fn looks_like_one(text: &str) -> bool {
        text.strip_prefix(Self::SCHEME).is_some_and(|rest| rest.starts_with('$'))
    }

    /// None: it is none that could be checked.
    pub fn parts(&self) -> Option<HashParts> {
        let mut words = self.0.split('$');
        if words.next()? != Self::SCHEME {
            return None;
        }
        let iterations = words.next()?.parse().ok()?;
        let salt = STANDARD_NO_PAD.decode(words.next()?).ok()?;
        let hash = STANDARD_NO_PAD.decode(words.next()?).ok()?.try_into().ok()?;
        let sound = (Self::ITERATIONS_MIN..=Self::ITERATIONS_MAX).contains(&iterations)
            && (Self::SALT_BYTES_MIN..=Self::SALT_BYTES_MAX).contains(&salt.len())
            && words.next().is_none();
        sound.then_some(HashParts { iterations, salt, hash })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn hidden() -> Self {
        Self(Self::HIDDEN.to_owned())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_that_can_be_checked_have_parts() {
        let parts = HashParts { iterations: 10_000, salt: vec![7; 16], hash: [1; 64] };
        let sound = PasswordHash::of(&parts);
        assert!(sound.parts() == Some(parts) && PasswordHash::looks_like_one(sound.as_str()));
        assert_eq!(format!("{sound:?}"), "(hash)");
        let text = sound.as_str();
        for wrong in [
            "",
            "secret",
            &text.replace("sha512", "sha1"),
            &text.replace("$10000$", "$9999$"),
            &text.replace("$10000$", "$1000001$"),
            &text[..text.len() - 2],
            &format!("{text}$x"),
        ] {
            assert!(PasswordHash::new(wrong).parts().is_none(), "{wrong}");
        }
        assert!(!PasswordHash::looks_like_one("pbkdf2-sha512") && !PasswordHash::looks_like_one("secret"));
    }
}
