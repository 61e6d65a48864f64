//! Challenge: what lb answers an authority that asks whether a name is led here (ACME's HTTP-01, RFC 8555, section 8.3).
//!
//! A token is answered for the hosts of the sections that have it, whatever paths their routes have: an app for `/api`
//! alone gets its certificate as well.

use crate::table::Table;

/// Before the token.
const PREFIX: &str = "/.well-known/acme-challenge/";

impl Table {
    /// The key authorization for a request of this canonical host and path; none: it is a request like any other.
    pub fn challenge(&self, host: Option<&str>, path: &str) -> Option<&str> {
        if self.challenges.is_empty() {
            return None;
        }
        let (host, token) = (host?, path.strip_prefix(PREFIX)?);
        let section = self.challenges.get(token)?.iter().find(|section| {
            let mut hosts = section.published.routes.iter().map(|route| route.host.as_deref());
            hosts.any(|of_route| is_for(of_route, host))
        })?;
        section.published.tls.challenges.get(token).map(String::as_str)
    }
}

/// Whether a route with this host takes requests for `host`.
fn is_for(of_route: Option<&str>, host: &str) -> bool {
    let Some(of_route) = of_route else { return true };
    match (of_route.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain.eq_ignore_ascii_case(rest),
        (Some(_), None) => false,
        (None, _) => of_route.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::table::tests::section;

    #[test]
    fn a_token_is_answered_for_the_hosts_of_its_section() {
        let (one, mut of_one) = section("one", &[(Some("A.example"), "/api"), (Some("*.b.example"), "/")]);
        of_one.tls.challenges = BTreeMap::from([("t1".to_owned(), "t1.key".to_owned())]);
        let (two, mut of_two) = section("two", &[(None, "/")]);
        of_two.tls.challenges = BTreeMap::from([("t2".to_owned(), "t2.key".to_owned())]);
        let table = Table::new(&BTreeMap::from([(one, of_one), (two, of_two)])).expect("a sound table");
        for (host, path, answer) in [
            (Some("a.example"), "/.well-known/acme-challenge/t1", Some("t1.key")),
            (Some("x.b.example"), "/.well-known/acme-challenge/t1", Some("t1.key")),
            (Some("b.example"), "/.well-known/acme-challenge/t1", None),
            (Some("x.y.b.example"), "/.well-known/acme-challenge/t1", None),
            (Some("c.example"), "/.well-known/acme-challenge/t1", None),
            (None, "/.well-known/acme-challenge/t1", None),
            (Some("a.example"), "/.well-known/acme-challenge/t2", Some("t2.key")),
            (Some("a.example"), "/.well-known/acme-challenge/t3", None),
            (Some("a.example"), "/.well-known/acme-challenge/t1/", None),
            (Some("a.example"), "/.well-known/acme-challenge/", None),
            (Some("a.example"), "/t1", None),
        ] {
            assert_eq!(table.challenge(host, path), answer, "{host:?} {path}");
        }
        assert_eq!(Table::default().challenge(Some("a.example"), "/.well-known/acme-challenge/t1"), None);
    }
}
