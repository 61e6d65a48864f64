//! Cohort: requests that get one release whatever the weights say.

use std::net::IpAddr;

use crate::rule::{Ask, check_value, fits, is_field_name};
use crate::v1::Conditions;
use crate::{key, path};

pub const COHORTS_MAX: usize = 16;
const CONDITIONS_MAX: usize = 64;

/// Whether a request is one of it.
pub fn takes(conditions: &Conditions, ask: &Ask<'_>, client: IpAddr) -> bool {
    let has_header = |(name, pattern): (&String, &String)| {
        ask.fields.iter().any(|field| field.name.eq_ignore_ascii_case(name) && fits(pattern, field.value))
    };
    let has_cookie =
        |(name, pattern): (&String, &String)| key::cookie(ask.fields, name).is_some_and(|value| fits(pattern, value));
    conditions.path.as_ref().is_none_or(|prefix| path::covers(prefix, ask.path))
        && conditions.headers.iter().all(has_header)
        && conditions.cookies.iter().all(has_cookie)
        && (conditions.networks.is_empty() || conditions.networks.iter().any(|network| network.contains(client)))
}

/// Why it cannot be used.
pub fn check(conditions: &Conditions) -> Result<(), String> {
    let Conditions { path, headers, cookies, networks } = conditions;
    let count = usize::from(path.is_some()) + headers.len() + cookies.len() + networks.len();
    if count == 0 {
        return Err("it has no condition: weights are for a share of all requests".to_owned());
    }
    if count > CONDITIONS_MAX {
        return Err(format!("at most {CONDITIONS_MAX} headers, cookies and networks"));
    }
    if let Some(path) = path {
        match path::canonical(path) {
            Ok(canonical) if canonical == path.as_str() => {}
            Ok(canonical) => return Err(format!("path {path}: write it as {canonical}")),
            Err(error) => return Err(format!("path {path}: {error}")),
        }
    }
    for (name, pattern) in headers.iter().chain(cookies) {
        if !is_field_name(name) {
            return Err(format!("\"{name}\" is no name of a header or cookie"));
        }
        check_value(name, pattern)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use appbase_core::Prefix;

    use super::*;
    use crate::http1::RequestHead;

    #[test]
    fn everything_that_is_given_must_fit() {
        let mut head = RequestHead::default();
        head.read(b"GET / HTTP/1.1\r\nX-Tier: gold-1\r\nCookie: beta=yes; sid=1\r\n\r\n").expect("a head");
        let ask = Ask { host: None, path: "/shop/cart", method: "GET", query: "", fields: &head.fields };
        let client: IpAddr = "10.1.2.3".parse().expect("an address");
        let map = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        let networks = |text: &str| [Prefix::parse(text).expect("a range")].into();
        let gold = Conditions { headers: map("x-tier", "gold*"), ..Conditions::default() };
        let beta = Conditions { cookies: map("beta", "yes"), networks: networks("10.0.0.0/8"), ..gold.clone() };
        let all = Conditions { path: Some("/shop".into()), ..beta.clone() };
        for (cohort, expect) in [
            (&gold, true),
            (&beta, true),
            (&all, true),
            (&Conditions { path: Some("/shop/c".into()), ..all.clone() }, false),
            (&Conditions { networks: networks("10.2.0.0/16"), ..all.clone() }, false),
            (&Conditions { cookies: map("beta", "no"), ..all.clone() }, false),
            (&Conditions { headers: map("x-tier", "gold"), ..all.clone() }, false),
        ] {
            assert_eq!(takes(cohort, &ask, client), expect, "{cohort:?}");
            assert_eq!(check(cohort), Ok(()));
        }
        assert!(check(&Conditions::default()).is_err());
        assert!(check(&Conditions { path: Some("/a/../b".into()), ..Conditions::default() }).is_err());
        assert!(check(&Conditions { cookies: map("a b", "1"), ..Conditions::default() }).is_err());
    }
}
