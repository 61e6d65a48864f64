//! Desired: folding change sets. The only way desired state changes.

use appbase_core::v1::Route;
use appbase_core::{AppName, Digest, EnvironmentName, ProcessName, Version};
use serde_json::Value;

use crate::app_file::{INSTANCES_MAX, check_host, check_value_name};
use crate::v1::state::{ChangeSet, Desired, DesiredApp, Operation, Split};

/// At most this many operations in one change set, and this many bytes of its JSON.
pub const OPERATIONS_MAX: usize = 256;
pub const CHANGE_SET_BYTES_MAX: usize = 1 << 20;
/// Longest value of the process environment.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// Why a change set is refused; nothing of it is applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{reason}")]
pub struct OperationError {
    /// `operation 2 of 3 (app scale): `; nothing when there is only one.
    place: String,
    /// Stable code for scripts.
    pub code: &'static str,
    pub reason: String,
}

impl Desired {
    /// All operations in order, or none.
    pub fn apply(&self, change: &ChangeSet) -> Result<Self, OperationError> {
        let mut next = self.clone();
        let count = change.operations.len();
        for (index, operation) in change.operations.iter().enumerate() {
            next.apply_one(operation).map_err(|(code, reason)| OperationError {
                place: match count {
                    1 => String::new(),
                    _ => format!("operation {} of {count} ({} {}): ", index + 1, operation.group, operation.command),
                },
                code,
                reason,
            })?;
        }
        Ok(next)
    }

    pub fn app(&self, environment: &EnvironmentName, app: &AppName) -> Option<&DesiredApp> {
        self.environments.get(environment)?.get(app)
    }

    /// Digest of the canonical JSON.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("text keys and plain values"))
    }

    fn apply_one(&mut self, operation: &Operation) -> Result<(), (&'static str, String)> {
        let params = Params(&operation.params);
        let environment = match params.optional("environment")? {
            Some(text) => EnvironmentName::parse(text).map_err(|error| ("bad-name", error.to_string()))?,
            None => EnvironmentName::default_name(),
        };
        let name: AppName = params.parsed("app")?;
        let app = self.environments.entry(environment).or_default().entry(name).or_default();
        match (operation.group.as_str(), operation.command.as_str()) {
            ("app", "version") => app.version = Some(params.parsed::<Version>("version")?),
            ("app", "scale") => {
                let count = params.number("instances")?;
                if count > u64::from(INSTANCES_MAX) {
                    return Err(("too-many", format!("at most {INSTANCES_MAX} instances of a process")));
                }
                app.scale.insert(params.parsed::<ProcessName>("process")?, count as u32);
            }
            ("app", "hold") => app.hold = params.truth("hold")?,
            ("app", "maintenance") => {
                let text = params.optional("message")?;
                if text.is_some_and(|text| text.len() > 4096) {
                    return Err(("too-large", "a message has at most 4096 bytes".to_owned()));
                }
                app.maintenance = text.map(str::to_owned);
            }
            ("app", "split") => app.split = params.split()?,
            ("app", "preview") => {
                let secret = params.optional("secret")?;
                let is_secret = |text: &str| lb_core::preview::Key::parse(&format!("{text}-blue")).is_some();
                if secret.is_some_and(|text| !is_secret(text)) {
                    let chars = lb_core::preview::SECRET_CHARS;
                    return Err(("bad-value", format!("a secret has {chars} small letters and digits")));
                }
                app.preview = secret.map(str::to_owned);
            }
            ("app", "notice") => {
                let text = params.optional("text")?;
                lb_core::table::check_notice(text.unwrap_or_default()).map_err(|reason| ("bad-value", reason))?;
                app.notice = text.map(str::to_owned);
            }
            ("config", "set") => {
                let key = params.text("key")?;
                check_value_name(key).map_err(|reason| ("bad-name", reason))?;
                let value = params.text("value")?;
                if value.len() > VALUE_BYTES_MAX || value.contains('\0') {
                    return Err(("bad-value", format!("{key}: at most {VALUE_BYTES_MAX} bytes and no NUL")));
                }
                app.values.insert(key.to_owned(), value.to_owned());
            }
            ("config", "unset") => {
                let key = params.text("key")?;
                if app.values.remove(key).is_none() {
                    return Err((
                        "unknown-key",
                        format!("{key} is not set here; a value of the app file changes with the app file"),
                    ));
                }
            }
            ("route", "add") => {
                let route = params.route()?;
                let same = |known: &&Route| known.is_for_the_same(&route) && **known != route;
                if let Some(known) = app.routes.iter().find(same) {
                    let does = known.does();
                    return Err((
                        "bad-route",
                        format!("these requests have a route already, to {does}: take it back first"),
                    ));
                }
                if !app.routes.contains(&route) {
                    app.routes.push(route);
                    app.routes.sort();
                }
            }
            ("route", "remove") => {
                let route = params.route()?;
                let before = app.routes.len();
                app.routes.retain(|known| !known.is_for_the_same(&route));
                if app.routes.len() == before {
                    return Err((
                        "unknown-route",
                        "no such route was added here; those of the app file change with the app file".to_owned(),
                    ));
                }
            }
            (group, command) => return Err(("unknown-command", format!("there is no command \"{group} {command}\""))),
        }
        Ok(())
    }
}

impl Operation {
    /// For people: what it changes. A value is not shown.
    pub fn in_words(&self) -> String {
        let text = |key: &str| match self.params.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        let what = match (self.group.as_str(), self.command.as_str()) {
            ("app", "version") => text("version"),
            ("app", "scale") => {
                text("process").zip(text("instances")).map(|(process, count)| format!("{process}={count}"))
            }
            ("app", "hold") => text("hold").map(|on| if on == "true" { "on" } else { "off" }.to_owned()),
            ("app", "maintenance") => Some(if text("message").is_some() { "on" } else { "off" }.to_owned()),
            ("app", "split") => text("percent").map(|percent| format!("{percent}%")),
            ("app", "preview") => Some(if text("secret").is_some() { "on" } else { "off" }.to_owned()),
            ("app", "notice") => Some(if text("text").is_some() { "on" } else { "off" }.to_owned()),
            ("config", _) => text("key"),
            ("route", _) => Some(Params(&self.params).route().map_or_else(|_| "?".to_owned(), |route| route.wants())),
            _ => None,
        };
        let words = [Some(self.group.clone()).filter(|group| group != "app"), Some(self.command.clone()), what];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// What the commands of routes take, beside app and environment.
const ROUTE_KEYS: [&str; 13] = [
    "host",
    "path",
    "exact",
    "methods",
    "headers",
    "query",
    "process",
    "rewrite",
    "redirect",
    "request_headers",
    "response_headers",
    "compress",
    "guard",
];
/// Of a guard and of what is in it: one that is misspelt would leave a route open.
const GUARD_KEYS: [&str; 7] =
    ["networks", "request_bytes_max", "response_bytes_max", "rate", "cors", "basic", "forward"];
const RATE_KEYS: [&str; 4] = ["requests", "seconds", "burst", "of"];
const BASIC_KEYS: [&str; 2] = ["realm", "users"];
const FORWARD_KEYS: [&str; 5] = ["app", "process", "path", "send", "copy"];
const CORS_KEYS: [&str; 6] = ["origins", "methods", "headers", "expose", "credentials", "seconds"];

const COHORT_KEYS: [&str; 4] = ["path", "headers", "cookies", "networks"];

/// Parameters of one operation, taken out with a reason when they are not what they should be.
struct Params<'a>(&'a Value);

impl<'a> Params<'a> {
    fn optional(&self, key: &str) -> Result<Option<&'a str>, (&'static str, String)> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(("bad-parameter", format!("parameter \"{key}\" must be text"))),
        }
    }

    fn text(&self, key: &str) -> Result<&'a str, (&'static str, String)> {
        self.optional(key)?.ok_or_else(|| ("bad-parameter", format!("parameter \"{key}\" is missing")))
    }

    fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<T, (&'static str, String)>
    where
        T::Err: std::fmt::Display,
    {
        self.text(key)?.parse().map_err(|error: T::Err| ("bad-name", error.to_string()))
    }

    fn number(&self, key: &str) -> Result<u64, (&'static str, String)> {
        let number = self.0.get(key).and_then(Value::as_u64);
        number.ok_or_else(|| ("bad-parameter", format!("parameter \"{key}\" must be a number from 0")))
    }

    fn truth(&self, key: &str) -> Result<bool, (&'static str, String)> {
        let truth = self.0.get(key).and_then(Value::as_bool);
        truth.ok_or_else(|| ("bad-parameter", format!("parameter \"{key}\" must be true or false")))
    }

    /// None: the staged release gets nothing.
    fn split(&self) -> Result<Option<Split>, (&'static str, String)> {
        let bad = |reason: String| ("bad-parameter", reason);
        let mut given = self.0.as_object().cloned().unwrap_or_default();
        given.retain(|key, value| !value.is_null() && key != "environment" && key != "app");
        let cohorts = given.get("cohorts").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
        if let Some(key) = cohorts.flat_map(|cohort| cohort.keys()).find(|key| !COHORT_KEYS.contains(&key.as_str())) {
            return Err(bad(format!("a cohort has no \"{key}\": it has {}", COHORT_KEYS.join(", "))));
        }
        let split: Split = serde_json::from_value(Value::Object(given)).map_err(|error| bad(error.to_string()))?;
        if split.percent > 99 || split.mirror > 100 {
            let reason = "percent is from 0 to 99, mirror from 0 to 100; all of the traffic: platformctl activate";
            return Err(bad(reason.to_owned()));
        }
        if split.cohorts.len() > lb_core::cohort::COHORTS_MAX {
            return Err(bad(format!("at most {} cohorts", lb_core::cohort::COHORTS_MAX)));
        }
        split.cohorts.iter().try_for_each(lb_core::cohort::check).map_err(bad)?;
        Ok((split.percent > 0 || split.mirror > 0 || !split.cohorts.is_empty()).then_some(split))
    }

    fn route(&self) -> Result<Route, (&'static str, String)> {
        let bad = |error: &dyn std::fmt::Display| ("bad-route", error.to_string());
        let mut given = self.0.as_object().cloned().unwrap_or_default();
        given.retain(|key, value| !value.is_null() && key != "environment" && key != "app");
        if let Some(unknown) = given.keys().find(|key| !ROUTE_KEYS.contains(&key.as_str())) {
            return Err(("bad-parameter", format!("a route has no \"{unknown}\"")));
        }
        let guard = given.get("guard").unwrap_or(&Value::Null);
        for (what, value, keys) in [
            ("guard", guard, &GUARD_KEYS[..]),
            ("rate", &guard["rate"], &RATE_KEYS[..]),
            ("cors", &guard["cors"], &CORS_KEYS[..]),
            ("basic", &guard["basic"], &BASIC_KEYS[..]),
            ("forward", &guard["forward"], &FORWARD_KEYS[..]),
        ] {
            let mut names = value.as_object().into_iter().flat_map(|object| object.keys());
            if let Some(unknown) = names.find(|name| !keys.contains(&name.as_str())) {
                return Err(("bad-parameter", format!("a {what} has no \"{unknown}\": it has {}", keys.join(", "))));
            }
        }
        given.entry("path").or_insert_with(|| "/".into());
        given.entry("process").or_insert_with(|| ProcessName::default_name().as_str().into());
        if given.get("host").is_some_and(|host| host == "*") {
            given.remove("host");
        }
        let route: Route = serde_json::from_value(Value::Object(given)).map_err(|error| bad(&error))?;
        lb_core::rule::check(&route).map_err(|error| bad(&error))?;
        if route.path.len() > 1 && route.path.ends_with('/') && !route.exact {
            return Err(bad(&format_args!("write the path as {}", route.path.trim_end_matches('/'))));
        }
        if let Some(host) = &route.host {
            check_host(host).map_err(|message| bad(&message))?;
        }
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(operations: &[(&str, &str, Value)]) -> ChangeSet {
        let operations = operations
            .iter()
            .map(|(group, command, params)| Operation {
                id: String::new(),
                group: (*group).to_owned(),
                command: (*command).to_owned(),
                params: params.clone(),
            })
            .collect();
        ChangeSet { number: 1, unix_ms: 0, author: String::new(), operations }
    }

    #[test]
    fn a_request_goes_to_one_process() {
        let add = |host: &str, process: &str| {
            ("route", "add", json!({"app": "shop", "host": host, "path": "/", "process": process}))
        };
        let once = Desired::default().apply(&change(&[add("*", "web"), add("a.test", "web")])).expect("sound");
        let shop = once.app(&EnvironmentName::default_name(), &AppName::parse("shop").expect("a name"));
        assert_eq!(shop.expect("there").routes[0].host, None, "every host");
        assert_eq!(once.apply(&change(&[add("a.test", "web")])).expect("twice"), once);
        assert_eq!(once.apply(&change(&[add("a.test", "api")])).expect_err("taken").code, "bad-route");
    }

    #[test]
    fn operations_are_said_without_their_values() {
        for (group, command, params, words) in [
            ("app", "version", json!({"version": "3"}), "version 3"),
            ("app", "scale", json!({"process": "web", "instances": 3}), "scale web=3"),
            ("app", "hold", json!({"hold": true}), "hold on"),
            ("app", "maintenance", json!({"message": null}), "maintenance off"),
            ("config", "set", json!({"key": "PASSWORD", "value": "secret"}), "config set PASSWORD"),
            ("route", "add", json!({"host": null, "path": "/api"}), "route add */api"),
            ("route", "remove", json!({"host": "a.test"}), "route remove a.test/"),
        ] {
            let change = change(&[(group, command, params)]);
            assert_eq!(change.operations[0].in_words(), words);
        }
    }

    #[test]
    fn all_or_nothing() {
        let start = Desired::default();
        let good = ("config", "set", json!({"app": "shop", "key": "A", "value": "1"}));
        let next = start.apply(&change(std::slice::from_ref(&good))).expect("sound");
        let app = next.app(&EnvironmentName::default_name(), &AppName::parse("shop").expect("a name"));
        assert_eq!(app.expect("there").values["A"], "1");

        let error =
            start.apply(&change(&[good, ("app", "scale", json!({"app": "shop", "process": "web", "instances": 999}))]));
        assert_eq!(
            error.expect_err("too many").to_string(),
            "operation 2 of 2 (app scale): at most 200 instances of a process"
        );
        assert_eq!(start, Desired::default());
        for (group, command, params, code) in [
            ("app", "fly", json!({"app": "shop"}), "unknown-command"),
            ("config", "set", json!({"app": "shop", "key": "PORT", "value": "1"}), "bad-name"),
            ("config", "set", json!({"app": "shop", "key": "A", "value": 1}), "bad-parameter"),
            ("route", "add", json!({"app": "shop", "guard": {"network": []}}), "bad-parameter"),
            ("route", "add", json!({"app": "shop", "guard": {"rate": {"requests": 1, "per": 1}}}), "bad-parameter"),
            ("route", "add", json!({"app": "shop", "guard": {"basic": {"user": {}}}}), "bad-parameter"),
            ("route", "add", json!({"app": "shop", "guard": {"basic": {"users": {"a": "secret"}}}}), "bad-route"),
            ("config", "unset", json!({"app": "shop", "key": "B"}), "unknown-key"),
            ("app", "hold", json!({"app": "Shop", "hold": true}), "bad-name"),
            ("route", "remove", json!({"app": "shop", "host": "a.b"}), "unknown-route"),
            ("route", "add", json!({"app": "shop", "host": "no host"}), "bad-route"),
            ("route", "add", json!({"app": "shop", "path": "/a//b"}), "bad-route"),
            ("route", "add", json!({"app": "shop", "path": "/a/"}), "bad-route"),
            ("route", "add", json!({"app": "shop", "path": "/a/../b"}), "bad-route"),
        ] {
            assert_eq!(next.apply(&change(&[(group, command, params)])).expect_err(command).code, code);
        }
    }
}
