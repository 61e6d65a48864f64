//! Routes: which requests are an app's, and what is done to them on their way.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ProcessName;
use crate::v1::Guard;

/// One rule. A request is its own when everything that is given here fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Exact host, or `*.domain` for exactly one more label, or none for every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path prefix on segment boundaries; `/` is everything.
    pub path: String,
    /// The whole path, not a prefix.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// One of these, upper case; empty: every method.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub methods: BTreeSet<String>,
    /// By name, lower case. A value as it is, `text*` for one that begins so, `*` for any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Query parameters, decoded; values as of headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    pub process: ProcessName,
    /// What the app sees instead of `path`, the rest of the path behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
    /// The client is sent elsewhere, and no instance is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// What the app gets changed.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub request_headers: HeaderEdits,
    /// What the client gets changed.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub response_headers: HeaderEdits,
    /// Answers go out packed (gzip) to clients that take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// What is asked of a request before the app gets it.
    #[serde(default, skip_serializing_if = "Guard::is_empty")]
    pub guard: Guard,
}

/// `to` is a whole URL or a path; `{host}`, `{path}` (whole, with its query) and `{rest}` (behind the route's path, with
/// the query) stand for those of the request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Redirect {
    pub to: String,
    /// 301, 302, 303, 307 or 308. The last two keep the method (RFC 9110, section 15.4).
    #[serde(default = "Redirect::permanent")]
    pub status: u16,
}

impl Redirect {
    pub fn permanent() -> u16 {
        308
    }
}

/// First `remove`, then `set`, then `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeaderEdits {
    /// Instead of what is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Beside what is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<String>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

impl Route {
    /// All requests below a path go to a process.
    pub fn new(host: Option<String>, path: impl Into<String>, process: ProcessName) -> Self {
        Self {
            host,
            path: path.into(),
            exact: false,
            methods: BTreeSet::new(),
            headers: BTreeMap::new(),
            query: BTreeMap::new(),
            process,
            rewrite: None,
            redirect: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            compress: false,
            guard: Guard::default(),
        }
    }

    /// As people are shown it.
    pub fn shown(&self) -> Self {
        Self { guard: self.guard.shown(), ..self.clone() }
    }

    /// Which requests: `HOST/PATH`, and what else is wanted of them.
    pub fn wants(&self) -> String {
        let mut text = format!("{}{}", self.host.as_deref().unwrap_or("*"), self.path);
        if self.exact {
            text.push_str(" exactly");
        }
        if !self.methods.is_empty() {
            let methods: Vec<_> = self.methods.iter().map(String::as_str).collect();
            text.push_str(&format!(" {}", methods.join(",")));
        }
        for (name, pattern) in &self.headers {
            text.push_str(&format!(" {name}:{pattern}"));
        }
        for (name, pattern) in &self.query {
            text.push_str(&format!(" ?{name}={pattern}"));
        }
        text
    }

    /// What becomes of them: the process, or where they are sent instead, and what is changed.
    pub fn does(&self) -> String {
        if let Some(redirect) = &self.redirect {
            return format!("{} to {}", redirect.status, redirect.to);
        }
        let mut text = self.process.to_string();
        if let Some(rewrite) = &self.rewrite {
            text.push_str(&format!(" as {rewrite}"));
        }
        if !self.request_headers.is_empty() || !self.response_headers.is_empty() {
            text.push_str(", headers changed");
        }
        if self.compress {
            text.push_str(", compressed");
        }
        if !self.guard.is_empty() {
            text.push_str(", guarded");
        }
        text
    }

    /// Both are for exactly the same requests.
    pub fn is_for_the_same(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (Some(one), Some(two)) => one.eq_ignore_ascii_case(two),
            (one, two) => one.is_none() && two.is_none(),
        };
        let (one, two) = (self, other);
        host && (one.exact, &one.path, &one.methods, &one.headers, &one.query)
            == (two.exact, &two.path, &two.methods, &two.headers, &two.query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_route_is_written_as_before_there_were_others() {
        let route = Route::new(Some("a.example".to_owned()), "/x", ProcessName::default_name());
        let text = serde_json::to_string(&route).expect("serialises");
        assert_eq!(text, r#"{"host":"a.example","path":"/x","process":"web"}"#);
        assert_eq!(serde_json::from_str::<Route>(&text).expect("reads"), route);
        assert_eq!((route.wants().as_str(), route.does().as_str()), ("a.example/x", "web"));
    }

    #[test]
    fn routes_say_what_they_want_and_do() {
        let text = r#"{"path":"/x","exact":true,"methods":["POST","GET"],"headers":{"x-beta":"yes"},"query":{"user":"*"},
            "process":"web","rewrite":"/v2","request_headers":{"set":{"A":"b"}}}"#;
        let route: Route = serde_json::from_str(text).expect("reads");
        assert_eq!(route.wants(), "*/x exactly GET,POST x-beta:yes ?user=*");
        assert_eq!(route.does(), "web as /v2, headers changed");
        let other = Route { rewrite: None, process: ProcessName::parse("api").expect("a name"), ..route.clone() };
        assert!(route.is_for_the_same(&other) && !route.is_for_the_same(&Route { exact: false, ..route.clone() }));
        let redirect: Route =
            serde_json::from_str(r#"{"path":"/","process":"web","redirect":{"to":"https://b.example{path}"}}"#)
                .expect("reads");
        assert_eq!(redirect.does(), "308 to https://b.example{path}");
    }
}
