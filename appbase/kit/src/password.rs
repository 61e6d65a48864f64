//! Password: makes the hash that is kept of one, and checks one against it. Both take time on purpose: neither belongs on a
//! thread that carries requests.

use std::num::NonZeroU32;

use appbase_core::v1::{HashParts, PasswordHash};
use ring::pbkdf2;

/// Of new hashes: what OWASP recommends for this one, a tenth of a second on a small machine.
const ITERATIONS: u32 = 210_000;
const SALT_BYTES: usize = 16;

pub fn hash(password: &[u8]) -> PasswordHash {
    hash_in(ITERATIONS, password)
}

/// With another number of iterations: at least 10,000 are taken anywhere.
pub fn hash_in(iterations: u32, password: &[u8]) -> PasswordHash {
    let (salt, mut hash) = (crate::random::bytes::<SALT_BYTES>().to_vec(), [0; PasswordHash::BYTES]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, rounds(iterations), &salt, password, &mut hash);
    PasswordHash::of(&HashParts { iterations, salt, hash })
}

/// Whether the hash is of this password, in a time that says nothing of either.
pub fn is_of(hash: &PasswordHash, password: &[u8]) -> bool {
    let Some(HashParts { iterations, salt, hash }) = hash.parts() else { return false };
    pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, rounds(iterations), &salt, password, &hash).is_ok()
}

fn rounds(iterations: u32) -> NonZeroU32 {
    NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_password_alone() {
        let (one, two) = (hash_in(10_000, b"correct horse"), hash_in(10_000, b"correct horse"));
        assert_ne!(one, two, "each has its own salt");
        assert!(is_of(&one, b"correct horse") && is_of(&two, b"correct horse"));
        assert!(!is_of(&one, b"correct horsf") && !is_of(&one, b"") && !is_of(&PasswordHash::new("x"), b"x"));
        assert!(hash(b"x").as_str().starts_with("pbkdf2-sha512$210000$"));
    }

    #[test]
    fn hashes_are_what_others_make() {
        // Of hashlib.pbkdf2_hmac("sha512", b"secret", b"saltsaltsaltsalt", 10000).
        let hash = "pbkdf2-sha512$10000$c2FsdHNhbHRzYWx0c2FsdA$f+bBNpDm1dD76HDTg44Z2qO0KWw9xM1beWOT/VyOFnsrrTMYXRqDM2j3OuOtqE6QcICME/YUg8pPtTkNPmH1Yg";
        assert!(is_of(&PasswordHash::new(hash), b"secret"));
    }
}
