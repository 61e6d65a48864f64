//! Key: what makes requests equal for a hash policy.

use std::net::IpAddr;

use appbase_core::v1::HashKey;

use crate::http1::Fields;
use crate::pick::hash;
use crate::rule::Ask;

/// The key of a request; none when it lacks what the policy goes by.
pub fn of(key: &HashKey, ask: &Ask<'_>, client: IpAddr) -> Option<u64> {
    Some(match key {
        HashKey::Client => match client.to_canonical() {
            IpAddr::V4(address) => hash(&address.octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        },
        HashKey::Path => hash(ask.path.as_bytes()),
        HashKey::Header(name) => hash(ask.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?.value),
        HashKey::Cookie(name) => hash(cookie(ask.fields, name)?),
        HashKey::Query(name) => {
            let mut pairs = form_urlencoded::parse(ask.query.as_bytes());
            hash(pairs.find(|(key, _)| key == name)?.1.as_bytes())
        }
    })
}

/// The value of the first cookie of this name (RFC 6265, section 4.2.1).
pub fn cookie<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    let lines = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("cookie"));
    lines.flat_map(|line| line.value.split(|byte| *byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::RequestHead;

    #[test]
    fn equal_requests_have_equal_keys() {
        let mut head = RequestHead::default();
        let text = "GET / HTTP/1.1\r\nX-User: ann\r\nCookie: a=1; sid=ann\r\ncookie: sid=bob\r\n\r\n";
        head.read(text.as_bytes()).expect("a head");
        let ask = Ask { host: None, path: "/ann", method: "GET", query: "u=bob&u=ann&v=an%6e", fields: &head.fields };
        let client: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        let key = |policy: HashKey| of(&policy, &ask, client);
        let ann = Some(hash(b"ann"));
        assert_eq!(key(HashKey::Header("x-user".into())), ann);
        assert_eq!(key(HashKey::Cookie("sid".into())), ann);
        assert_eq!(key(HashKey::Query("v".into())), ann);
        assert_eq!(key(HashKey::Query("u".into())), Some(hash(b"bob")), "the first one");
        assert_eq!(key(HashKey::Path), Some(hash(b"/ann")));
        assert_eq!(key(HashKey::Client), Some(hash(&[10, 0, 0, 1])));
        for absent in [HashKey::Header("x".into()), HashKey::Cookie("si".into()), HashKey::Query("w".into())] {
            assert_eq!(key(absent), None);
        }
    }
}
