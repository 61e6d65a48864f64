//! Rule: a route in its checked form: what it wants of a request, how special it is, and what it does to one.

use std::fmt;
use std::sync::Arc;

use appbase_core::ProcessName;
use appbase_core::v1::{HeaderEdits, Redirect, Route};

use crate::http1::field::is_name;
use crate::http1::{Fields, Known};
use crate::path;
use crate::table::Section;
use crate::{guard, pick};

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Canonical; none: it came without.
    pub host: Option<&'a str>,
    /// Canonical.
    pub path: &'a str,
    pub method: &'a str,
    /// Behind `?`, as it came.
    pub query: &'a str,
    pub fields: &'a Fields,
}

/// Where it stands in a table is among the rules of its host, the most special first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub route: Route,
    pub section: Arc<Section>,
    /// The same as long as it wants the same, from table to table.
    pub id: u64,
    /// What is asked of each request, so that a plain rule costs one look.
    changes_messages: bool,
    is_guarded: bool,
}

/// Why a rule does not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss<'a> {
    Path,
    Method,
    Header(&'a str),
    Query(&'a str),
}

impl fmt::Display for Miss<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => write!(out, "another path"),
            Self::Method => write!(out, "another method"),
            Self::Header(name) => write!(out, "header {name} does not fit"),
            Self::Query(name) => write!(out, "query parameter {name} does not fit"),
        }
    }
}

impl Rule {
    pub(crate) fn new(route: Route, section: &Arc<Section>) -> Self {
        let id = pick::hash(format!("{} {}", section.key, route.wants()).as_bytes());
        let Route { rewrite, request_headers, response_headers, compress, guard, .. } = &route;
        let edits = !request_headers.is_empty() || !response_headers.is_empty();
        let changes_messages = rewrite.is_some() || guard.cors.is_some() || edits || *compress;
        let is_guarded = !guard.is_empty();
        Self { section: Arc::clone(section), id, changes_messages, is_guarded, route }
    }

    pub fn process(&self) -> &ProcessName {
        &self.route.process
    }

    /// It does more than say where a request goes.
    pub fn changes_messages(&self) -> bool {
        self.changes_messages
    }

    /// It asks something of a request before the app gets it.
    pub fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// It asks who a request is from.
    pub fn asks_who(&self) -> bool {
        self.is_guarded && (self.route.guard.basic.is_some() || self.route.guard.forward.is_some())
    }

    /// Whether a request is its own, the host left aside.
    pub fn takes(&self, ask: &Ask<'_>) -> Result<(), Miss<'_>> {
        let Route { path: wanted, exact, methods, headers, query, .. } = &self.route;
        if if *exact { wanted != ask.path } else { !path::covers(wanted, ask.path) } {
            return Err(Miss::Path);
        }
        if !methods.is_empty() && !methods.contains(ask.method) {
            return Err(Miss::Method);
        }
        for (name, pattern) in headers {
            let mut lines = ask.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            if !lines.any(|field| fits(pattern, field.value)) {
                return Err(Miss::Header(name));
            }
        }
        for (name, pattern) in query {
            let mut pairs = form_urlencoded::parse(ask.query.as_bytes()).filter(|(key, _)| key == name);
            if !pairs.any(|(_, value)| fits(pattern, value.as_bytes())) {
                return Err(Miss::Query(name));
            }
        }
        Ok(())
    }

    /// The path and query that the app gets. `target` is what came, `canonical` its path in the form that was matched.
    pub fn rewritten(&self, target: &str, canonical: &str) -> Option<String> {
        let rewrite = self.route.rewrite.as_ref().filter(|_| target.starts_with('/'))?;
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        // As it came where that is possible: an app may tell %41 from A.
        let rest = self.rest(path).or_else(|| self.rest(canonical)).unwrap_or_default();
        let below = rest.trim_start_matches('/');
        Some(match rest.is_empty() {
            true => format!("{rewrite}{query}"),
            // Never with // at its beginning, which would name a host.
            false => format!("{}/{below}{query}", rewrite.trim_end_matches('/')),
        })
    }

    /// Where a redirect leads; none when it needs a host and the request has none.
    pub fn location(&self, redirect: &Redirect, ask: &Ask<'_>) -> Option<String> {
        let (mut location, mut left) =
            (String::with_capacity(redirect.to.len() + ask.path.len()), redirect.to.as_str());
        // In one pass: what a request brings is never looked through for words.
        while let Some((at, word)) = WORDS.iter().filter_map(|word| Some((left.find(word)?, *word))).min() {
            location.push_str(&left[..at]);
            left = &left[at + word.len()..];
            // Of the canonical path: what came may begin with //, which would be another host.
            let (text, query) = match word {
                HOST => (ask.host?, ""),
                PATH => (ask.path, ask.query),
                _ => (self.rest(ask.path).unwrap_or_default(), ask.query),
            };
            location.push_str(text);
            if !query.is_empty() {
                location.extend(["?", query]);
            }
        }
        location.push_str(left);
        Some(if location.is_empty() { "/".to_owned() } else { location })
    }

    /// What of a path is behind the rule's own, with its `/`; none when it is not below it.
    fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.route.path.as_str() {
            "/" if !self.route.exact => Some(path),
            own => path.strip_prefix(own).filter(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// Lower comes first. The longest path, exact before prefix; then whoever wants more of a request.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let Route { path, exact, methods, headers, query, .. } = self.route.clone();
        // Fewer methods are more special; none is every method.
        let methods_count = if methods.is_empty() { usize::MAX } else { methods.len() };
        let wants = (Reverse(headers.len()), Reverse(query.len()), methods_count);
        (Reverse(path.len()), !exact, wants, path, headers, query, methods)
    }
}

const HOST: &str = "{host}";
const PATH: &str = "{path}";
const REST: &str = "{rest}";
/// What a redirect may have of the request, each once.
const WORDS: [&str; 3] = [HOST, PATH, REST];

/// `text*` fits what begins so, everything else itself alone.
pub(crate) fn fits(pattern: &str, value: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => value.starts_with(start.as_bytes()),
        None => value == pattern.as_bytes(),
    }
}

/// Fields that say how long a message is or where its connection ends, and those that lb itself sets.
pub(crate) const NOT_EDITED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
const CONDITIONS_MAX: usize = 16;
const EDITS_MAX: usize = 32;
const VALUE_BYTES_MAX: usize = 4 << 10;
const NAME_BYTES_MAX: usize = 128;
const PATH_BYTES_MAX: usize = 1 << 10;

/// Everything of a route but its host: why it cannot be used.
pub fn check(route: &Route) -> Result<(), String> {
    let canonical = path::canonical(&route.path).map_err(|error| format!("path {}: {error}", route.path))?;
    if canonical != route.path.as_str() {
        return Err(format!("path {}: write it as {canonical}", route.path));
    }
    if route.path.len() > PATH_BYTES_MAX {
        return Err(format!("a path has at most {PATH_BYTES_MAX} bytes"));
    }
    check_conditions(route)?;
    guard::check_guard(&route.guard)?;
    if let Some(rewrite) = &route.rewrite {
        match path::canonical(rewrite) {
            Ok(canonical) if canonical == rewrite.as_str() && rewrite.len() <= PATH_BYTES_MAX => {}
            Ok(canonical) if canonical != rewrite.as_str() => {
                return Err(format!("rewrite {rewrite}: write it as {canonical}"));
            }
            Ok(_) => return Err(format!("a rewrite has at most {PATH_BYTES_MAX} bytes")),
            Err(error) => return Err(format!("rewrite {rewrite}: {error}")),
        }
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(redirect)?;
        if route.rewrite.is_some() || !route.request_headers.is_empty() {
            return Err("a redirect asks no app: it has no rewrite and no request headers".to_owned());
        }
    }
    check_edits(&route.request_headers, "host")?;
    check_edits(&route.response_headers, "")
}

fn check_conditions(route: &Route) -> Result<(), String> {
    let Route { methods, headers, query, .. } = route;
    if methods.len() + headers.len() + query.len() > CONDITIONS_MAX {
        return Err(format!("at most {CONDITIONS_MAX} methods, headers and query parameters"));
    }
    let is_method = |name: &&String| is_field_name(name) && !name.bytes().any(|byte| byte.is_ascii_lowercase());
    if let Some(method) = methods.iter().find(|method| !is_method(method)) {
        return Err(format!("method {method}: write it in capital letters"));
    }
    for name in headers.keys() {
        if !is_field_name(name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("header {name}: a name in small letters"));
        }
        if !matches!(Known::of(name), Known::Accept | Known::ContentType | Known::IdempotencyKey | Known::Other) {
            return Err(format!(
                "header {name}: what a client says there is not believed, or says nothing of the request"
            ));
        }
    }
    if query.keys().any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err(format!("a query parameter has a name of at most {NAME_BYTES_MAX} bytes"));
    }
    headers.iter().chain(query).try_for_each(|(name, pattern)| check_value(name, pattern))
}

fn check_redirect(redirect: &Redirect) -> Result<(), String> {
    let Redirect { to, status } = redirect;
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Err(format!("redirect status {status}: it is one of 301, 302, 303, 307 and 308"));
    }
    // Where the host stands must be a host, and a path must not begin with two slashes: both would lead wherever a
    // request likes.
    let authority = ["http://", "https://"].iter().find_map(|scheme| to.strip_prefix(scheme));
    let leads = match (authority, to.strip_prefix('/')) {
        (Some(host), _) => host.starts_with(HOST) || host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['),
        (None, Some(rest)) => !rest.starts_with(['/', '{', '\\']),
        (None, None) => to.starts_with(PATH) || to.starts_with(REST),
    };
    if !leads || to.len() > VALUE_BYTES_MAX {
        return Err(format!("redirect to {to}: it is a URL with its host, or a path"));
    }
    let plain = WORDS.iter().fold(to.clone(), |text, word| text.replacen(word, "", 1));
    if plain.contains(['{', '}']) || plain.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        return Err(format!("redirect to {to}: it may have {{host}}, {{path}} and {{rest}}, each once, and no blanks"));
    }
    Ok(())
}

fn check_edits(edits: &HeaderEdits, may: &str) -> Result<(), String> {
    let HeaderEdits { set, add, remove } = edits;
    if set.len() + add.len() + remove.len() > EDITS_MAX {
        return Err(format!("at most {EDITS_MAX} header edits"));
    }
    for name in set.keys().chain(add.keys()).chain(remove) {
        let lower = name.to_ascii_lowercase();
        let is_lbs = NOT_EDITED.contains(&lower.as_str())
            || lower.starts_with("x-forwarded-")
            || lower.starts_with("x-platform-");
        if !is_field_name(name) {
            return Err(format!("header {name}: that is no header's name"));
        }
        if is_lbs || (lower == "host" && (may != "host" || !set.contains_key(name))) {
            return Err(format!("header {name}: that is lb's own, it cannot be changed"));
        }
    }
    let mut names: Vec<_> = set.keys().map(|name| name.to_ascii_lowercase()).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("header {} is set twice", twice[0]));
    }
    set.iter().chain(add).try_for_each(|(name, value)| check_value(name, value))
}

pub(crate) fn check_value(name: &str, value: &str) -> Result<(), String> {
    let odd = value.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f);
    if odd || value.len() > VALUE_BYTES_MAX || value.trim() != value {
        return Err(format!("value of {name}: at most {VALUE_BYTES_MAX} visible characters, no blanks around them"));
    }
    Ok(())
}

pub(crate) fn is_field_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && is_name(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::section;

    fn rule(path: &str, change: impl FnOnce(&mut Route)) -> Rule {
        let (key, published) = section("one", &[]);
        let mut route = Route::new(None, path, ProcessName::default_name());
        change(&mut route);
        assert_eq!(check(&route), Ok(()));
        Rule::new(route, &Arc::new(Section::new(&key, &published)))
    }

    #[test]
    fn paths_are_rewritten_below_the_rule() {
        for (path, rewrite, target, canonical, expect) in [
            ("/api", "/", "/api/x?y", "/api/x", "/x?y"),
            ("/api", "/", "/api", "/api", "/"),
            ("/api", "/", "/api/", "/api/", "/"),
            ("/api", "/v2/", "/api/x/", "/api/x/", "/v2/x/"),
            ("/api", "/v2", "/api?q", "/api", "/v2?q"),
            ("/", "/v2", "/x?y", "/x", "/v2/x?y"),
            ("/api", "/", "/%61pi/%41", "/api/A", "/A"),
            ("/api", "/", "/api/%41", "/api/A", "/%41"),
            ("/api", "/", "//api//x", "/api/x", "/x"),
            ("/api", "/", "/api//evil.example", "/api/evil.example", "/evil.example"),
            ("/", "/v2", "//x", "/x", "/v2/x"),
        ] {
            let rule = rule(path, |route| route.rewrite = Some(rewrite.to_owned()));
            assert_eq!(rule.rewritten(target, canonical).as_deref(), Some(expect), "{path} {rewrite} {target}");
        }
        assert_eq!(rule("/api", |_| {}).rewritten("/api", "/api"), None);
        assert_eq!(rule("/", |route| route.rewrite = Some("/v2".into())).rewritten("*", "/"), None);
    }

    #[test]
    fn redirects_lead_where_they_say_and_never_to_a_host_that_the_path_names() {
        for (path, to, ask_path, query, expect) in [
            ("/old", "https://{host}/new{rest}", "/old/x", "y=z", "https://a.example/new/x?y=z"),
            ("/old", "/new{rest}", "/old", "", "/new"),
            ("/", "https://b.example{path}", "/x", "", "https://b.example/x"),
            ("/", "{rest}", "/evil.example/x", "", "/evil.example/x"),
            ("/old", "{rest}", "/old", "", "/"),
            ("/old", "/new{rest}", "/old/{path}{rest}", "{host}", "/new/{path}{rest}?{host}"),
        ] {
            let redirect = Redirect { to: to.to_owned(), status: 308 };
            let rule = rule(path, |route| route.redirect = Some(redirect.clone()));
            let fields = Fields::default();
            let ask = Ask { host: Some("a.example"), path: ask_path, method: "GET", query, fields: &fields };
            assert_eq!(rule.location(&redirect, &ask).as_deref(), Some(expect));
            let hostless = rule.location(&redirect, &Ask { host: None, ..ask });
            assert_eq!(hostless.is_none(), to.contains(HOST), "{to}");
        }
    }

    #[test]
    fn unsound_routes_are_refused_with_what_is_wrong() {
        let refused = |change: fn(&mut Route), word: &str| {
            let mut route = Route::new(None, "/", ProcessName::default_name());
            change(&mut route);
            let error = check(&route).expect_err(word);
            assert!(error.contains(word), "{error}");
        };
        refused(|route| route.path = "/a/../b".into(), "segment");
        refused(|route| route.methods = ["get".to_owned()].into(), "capital");
        refused(|route| drop(route.headers.insert("X-A".into(), "b".into())), "small letters");
        refused(|route| drop(route.headers.insert("x a".into(), "b".into())), "small letters");
        refused(|route| drop(route.headers.insert("x-a".into(), "b\r\nc".into())), "visible");
        refused(|route| drop(route.headers.insert("x-forwarded-for".into(), "10.*".into())), "not believed");
        refused(|route| drop(route.headers.insert("x_real_ip".into(), "10.*".into())), "not believed");
        refused(|route| route.methods = [String::new()].into(), "capital");
        refused(|route| route.path = "/a b".into(), "write it as /a%20b");
        refused(|route| route.path = "/\u{fc}".into(), "write it as /%C3%BC");
        refused(|route| route.path = format!("/{}", "x".repeat(2000)), "1024 bytes");
        refused(|route| drop(route.query.insert(String::new(), "b".into())), "name");
        refused(|route| route.rewrite = Some("x".into()), "rewrite x");
        refused(|route| route.redirect = Some(Redirect { to: "/".into(), status: 200 }), "status 200");
        refused(|route| route.redirect = Some(Redirect { to: "//evil.example".into(), status: 308 }), "or a path");
        refused(|route| route.redirect = Some(Redirect { to: "ftp://a".into(), status: 308 }), "or a path");
        for to in ["/{rest}", "/{path}", "https://{path}", "https:///x", "/\\evil.example", "{host}/x"] {
            let redirect = Redirect { to: to.to_owned(), status: 308 };
            let route = Route { redirect: Some(redirect), ..Route::new(None, "/", ProcessName::default_name()) };
            assert!(check(&route).expect_err(to).contains("or a path"), "{to}");
        }
        refused(|route| route.redirect = Some(Redirect { to: "/x{path}{path}".into(), status: 308 }), "each once");
        refused(|route| route.redirect = Some(Redirect { to: "/x{what}".into(), status: 308 }), "{rest}");
        refused(|route| drop(route.request_headers.set.insert("Content-Length".into(), "1".into())), "lb's own");
        refused(|route| route.request_headers.remove = ["host".to_owned()].into(), "lb's own");
        refused(|route| drop(route.response_headers.set.insert("X-Forwarded-For".into(), "1".into())), "lb's own");
        refused(|route| drop(route.response_headers.add.insert("a b".into(), "1".into())), "no header's name");
        refused(|route| drop(route.response_headers.add.insert("a".into(), "1\n".into())), "visible");
    }
}
