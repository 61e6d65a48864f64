//! Basic: the name and the password that a request gives (RFC 7617), and which users a route may have. Whether a password is
//! the right one takes time to say, which is the daemon's business.

use appbase_core::v1::Basic;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::http1::Fields;

/// Of one route: each route of an app has a copy of them.
const USERS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;
/// With or without padding: there are clients of both kinds.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The header field that they come in.
pub const FIELD: &str = "authorization";

/// Has no debug form: it is a secret.
#[derive(PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: Vec<u8>,
}

impl Credentials {
    /// None: it gives none, or more than one could be meant.
    pub fn of(fields: &Fields) -> Option<Self> {
        let mut lines = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(FIELD));
        let (line, None) = (lines.next()?, lines.next()) else { return None };
        let (scheme, token) = line.value.split_at(line.value.iter().position(|byte| *byte == b' ')?);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let pair = BASE64.decode(token.trim_ascii()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let user = String::from_utf8(pair[..colon].to_vec()).ok()?;
        Some(Self { user, password: pair[colon + 1..].to_vec() })
    }
}

/// Why it cannot be used.
pub(crate) fn check(basic: &Basic) -> Result<(), String> {
    let Basic { realm, users } = basic;
    let is_plain = |text: &str| text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) && text.trim() == text;
    if realm.is_empty() || realm.len() > NAME_BYTES_MAX || !is_plain(realm) || realm.contains(['"', '\\']) {
        return Err(format!("basic: a realm has 1 to {NAME_BYTES_MAX} characters of ASCII, without quotes"));
    }
    if users.is_empty() || users.len() > USERS_MAX {
        return Err(format!("basic: from 1 to {USERS_MAX} users"));
    }
    let is_name =
        |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && is_plain(name) && !name.contains(':');
    if let Some(name) = users.keys().find(|name| !is_name(name)) {
        let name = name.escape_debug();
        return Err(format!("basic: \"{name}\" is no user: 1 to {NAME_BYTES_MAX} characters of ASCII, without ':'"));
    }
    match users.iter().find(|(_, hash)| hash.parts().is_none()) {
        Some((name, _)) => {
            Err(format!("basic: what {name} has is no hash of a password: platformctl route password makes one"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use appbase_core::v1::{HashParts, PasswordHash};

    use super::*;
    use crate::http1::RequestHead;

    fn given(lines: &str) -> Option<(String, String)> {
        let mut head = RequestHead::default();
        head.read(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes()).expect("a head");
        let Credentials { user, password } = Credentials::of(&head.fields)?;
        Some((user, String::from_utf8_lossy(&password).into_owned()))
    }

    #[test]
    fn credentials_are_read_in_one_way_or_not_at_all() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (lines, expect) in [
            ("Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n", pair("Aladdin", "open sesame")),
            ("authorization: bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ\r\n", pair("Aladdin", "open sesame")),
            ("Authorization: Basic dGVzdDoxMjPCow==\r\n", pair("test", "123£")),
            ("Authorization: Basic YTpiOmM=\r\n", pair("a", "b:c")),
            ("Authorization: Basic YTo=\r\n", pair("a", "")),
            ("", None),
            ("Authorization: Bearer YTpi\r\n", None),
            ("Authorization: Basic\r\n", None),
            ("Authorization: Basic YQ==\r\n", None),
            ("Authorization: Basic !!!!\r\n", None),
            ("Authorization: Basic YTpi\r\nAuthorization: Basic YTpi\r\n", None),
        ] {
            assert_eq!(given(lines), expect, "{lines}");
        }
    }

    #[test]
    fn users_and_realms_that_cannot_be_said_are_refused() {
        let hash = PasswordHash::of(&HashParts { iterations: 10_000, salt: vec![0; 16], hash: [0; 64] });
        let basic = |realm: &str, names: &[&str], hash: &PasswordHash| Basic {
            realm: realm.to_owned(),
            users: names.iter().map(|name| ((*name).to_owned(), hash.clone())).collect(),
        };
        assert_eq!(check(&basic("the staff's", &["ada", "b.c@d"], &hash)), Ok(()));
        for (wrong, says) in [
            (basic("", &["a"], &hash), "a realm has"),
            (basic("a\"b", &["a"], &hash), "a realm has"),
            (basic("a", &[], &hash), "from 1 to 64"),
            (basic("a", &["a:b"], &hash), "is no user"),
            (basic("a", &["ä"], &hash), "is no user"),
            (basic("a", &[" a"], &hash), "is no user"),
            (basic("a", &["a"], &PasswordHash::new("secret")), "is no hash"),
        ] {
            let error = check(&wrong).expect_err(says);
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }
}
