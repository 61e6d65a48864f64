//! `route ls | test | add | rm`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use appbase_core::v1::{Forward, Guard, HeaderEdits, Rate, RateOf, Redirect, Route};
use appbase_core::{AppName, Prefix, ProcessName};
use clap::{Args, Subcommand};
use controller_core::v1::api::{AppStatus, RouteTest, RouteView};
use controller_core::v1::state::Operation;
use serde_json::json;

use super::config::change;
use super::users;
use crate::api::{encode, operation};
use crate::args::Pair;
use crate::error::{Exit, Failure};
use crate::render::{list, route_test};
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All routes and the apps they belong to
    #[command(alias = "list")]
    Ls {
        /// Only those of one app
        app: Option<AppName>,
    },
    /// Send requests for a host and path to an app; its live version is deployed with it
    Add(Box<Added>),
    /// Take back what `add` gave
    Rm {
        app: AppName,
        #[arg(value_name = "HOST[/PATH]")]
        rule: Rule,
        #[command(flatten)]
        wanted: Wanted,
        #[arg(long, value_name = "NAME", default_value_t = ProcessName::default_name())]
        process: ProcessName,
        /// Only with the next deployment
        #[arg(long)]
        later: bool,
    },
    /// Ask for a password, or read a line of stdin, and print the hash that [guard.basic] and --basic take
    Password,
    /// Which rule and which instances a URL would get, without sending it
    Test {
        // Not `url`: that is the controller's, everywhere.
        #[arg(value_name = "URL")]
        tested: String,
        /// As if it were sent with this method
        #[arg(long, value_name = "METHOD")]
        method: Option<String>,
        /// As if it had this header; may be given more than once
        #[arg(long = "header", value_name = "NAME=VALUE")]
        headers: Vec<Pair>,
    },
}

#[derive(Debug, Args)]
struct Added {
    app: AppName,
    /// `HOST`, `HOST/PATH` or `*/PATH`; `*` is every host, `*.example.org` every name below one
    #[arg(value_name = "HOST[/PATH]")]
    rule: Rule,
    #[command(flatten)]
    wanted: Wanted,
    /// The process that takes them
    #[arg(long, value_name = "NAME", default_value_t = ProcessName::default_name())]
    process: ProcessName,
    #[command(flatten)]
    done: Done,
    #[command(flatten)]
    guarded: Guarded,
    /// Only with the next deployment
    #[arg(long)]
    later: bool,
}

/// What else a rule wants of a request.
#[derive(Debug, Args)]
struct Wanted {
    /// The whole path, not a prefix
    #[arg(long)]
    exact: bool,
    /// One of these methods; may be given more than once
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// A header: its value, `text*` for one that begins so, `*` for any; may be given more than once
    #[arg(long = "header", value_name = "NAME=PATTERN")]
    headers: Vec<Pair>,
    /// A query parameter, as of headers; may be given more than once
    #[arg(long = "query", value_name = "NAME=PATTERN")]
    query: Vec<Pair>,
}

/// What becomes of the requests.
#[derive(Debug, Args)]
struct Done {
    /// What the app sees instead of the rule's path
    #[arg(long, value_name = "PATH")]
    rewrite: Option<String>,
    /// Send the client there instead; may have {host}, {path} and {rest}
    #[arg(long, value_name = "URL", conflicts_with = "rewrite")]
    redirect: Option<String>,
    /// The redirect's status: 301, 302, 303, 307 or 308
    #[arg(long, value_name = "CODE", requires = "redirect", default_value_t = Redirect::permanent())]
    status: u16,
    /// Set a header for the app; may be given more than once
    #[arg(long = "request-header", value_name = "NAME=VALUE")]
    request_headers: Vec<Pair>,
    /// Set a header for the client; may be given more than once
    #[arg(long = "response-header", value_name = "NAME=VALUE")]
    response_headers: Vec<Pair>,
    /// Take a header away before the app sees it; may be given more than once
    #[arg(long = "drop-request-header", value_name = "NAME")]
    drop_request_headers: Vec<String>,
    /// Take a header away before the client sees it; may be given more than once
    #[arg(long = "drop-response-header", value_name = "NAME")]
    drop_response_headers: Vec<String>,
    /// Pack answers (gzip) for clients that take it
    #[arg(long)]
    compress: bool,
}

/// What is asked of the requests before the app gets them.
#[derive(Debug, Args)]
struct Guarded {
    /// Only clients in this network (`10.0.0.0/8`, or one address); may be given more than once
    #[arg(long = "allow", value_name = "NETWORK", value_parser = network)]
    networks: Vec<Prefix>,
    /// A client may ask so often (`100`: each second, `100/60`: each minute)
    #[arg(long, value_name = "REQUESTS[/SECONDS]", value_parser = rate)]
    rate: Option<Rate>,
    /// The most bytes of a request's body
    #[arg(long, value_name = "BYTES")]
    request_max: Option<u64>,
    /// The most bytes of an answer's body
    #[arg(long, value_name = "BYTES")]
    response_max: Option<u64>,
    /// Only who has a name and password of this file, - for stdin: NAME:PASSWORD or NAME:HASH on each line; hashes are sent
    #[arg(long, value_name = "FILE")]
    basic: Option<PathBuf>,
    /// What they are told that they sign in to
    #[arg(long, value_name = "TEXT", requires = "basic")]
    realm: Option<String>,
    /// Another app of the environment is asked first, at this path: what answers 2xx lets a request go on
    #[arg(long, value_name = "APP/PATH", value_parser = asked_app)]
    forward: Option<(AppName, String)>,
    /// A header of the request that it gets, instead of the usual ones; may be given more than once
    #[arg(long, value_name = "NAME", requires = "forward")]
    send: Vec<String>,
    /// A header of its answer that the app behind the route gets; may be given more than once
    #[arg(long, value_name = "NAME", requires = "forward")]
    copy: Vec<String>,
}

impl Guarded {
    fn guard(self) -> Result<Guard, Failure> {
        let mut basic = self.basic.as_deref().map(users::of_file).transpose()?;
        if let (Some(basic), Some(realm)) = (&mut basic, self.realm) {
            basic.realm = realm;
        }
        Ok(Guard {
            networks: self.networks.into_iter().collect(),
            request_bytes_max: self.request_max,
            response_bytes_max: self.response_max,
            rate: self.rate,
            cors: None,
            basic,
            forward: self.forward.map(|(app, path)| Forward {
                app,
                process: ProcessName::default_name(),
                path,
                send: self.send.into_iter().collect(),
                copy: self.copy.into_iter().collect(),
            }),
        })
    }
}

fn asked_app(text: &str) -> Result<(AppName, String), String> {
    let (app, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let app = AppName::parse(app).map_err(|error| error.to_string())?;
    Ok((app, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}

fn network(text: &str) -> Result<Prefix, String> {
    Prefix::try_from(text.to_owned())
}

fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("\"{}\" is no rate: use 100 or 100/60", text.escape_debug());
    let (requests, seconds) = text.split_once('/').unwrap_or((text, "1"));
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(wrong);
    Ok(Rate { requests: number(requests)?, seconds: number(seconds)?, burst: None, of: RateOf::Client })
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let output = session.output;
    match arguments.verb {
        Verb::Ls { app } => {
            let mut routes: Vec<RouteView> = session.controller.get("/v1/routes", ANSWER_LIMIT).await?;
            routes.retain(|route| app.as_ref().is_none_or(|app| route.app == *app));
            if let Some(app) = app.filter(|_| routes.is_empty()) {
                // One that nobody knows is an error, one without routes is not.
                let path = session.in_environment(&format!("/v1/apps/{app}"));
                let _: AppStatus = session.controller.get(&path, ANSWER_LIMIT).await?;
            }
            output.show(&routes, || list::routes(&routes, output.width(), output.paint))?;
        }
        Verb::Add(added) => {
            let Added { app, rule, wanted, process, done, guarded, later } = *added;
            let route = Route { guard: guarded.guard()?, ..done.apply(wanted.route(rule, process)?)? };
            return change(session, &app, vec![operation_of(session, "add", &app, &route)?], later).await;
        }
        Verb::Rm { app, rule, wanted, process, later } => {
            let route = wanted.route(rule, process)?;
            return change(session, &app, vec![operation_of(session, "remove", &app, &route)?], later).await;
        }
        Verb::Password => {
            let hash = users::asked()?;
            output.show(&hash, || format!("{}\n", hash.as_str()))?;
        }
        Verb::Test { tested, method, headers } => {
            let method =
                method.map(|method| format!("&method={}", encode(&method.to_ascii_uppercase()))).unwrap_or_default();
            let lines: Vec<_> = headers.iter().map(|Pair(name, value)| format!("{name}: {value}")).collect();
            let path = format!("/v1/routes/test?url={}{method}&headers={}", encode(&tested), encode(&lines.join("\n")));
            let explained: RouteTest = session.controller.get(&path, ANSWER_LIMIT).await?;
            output.show(&explained, || route_test::text(&explained, output.width(), output.paint))?;
        }
    }
    Ok(Exit::Done)
}

/// What a person writes for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// None: every host.
    host: Option<String>,
    path: String,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("a rule has no scheme: write HOST/PATH".to_owned());
        }
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        if host.is_empty() {
            return Err("a rule begins with a host; * is every host".to_owned());
        }
        let host = (host != "*").then(|| host.to_ascii_lowercase());
        Ok(Self { host, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }
}

impl Wanted {
    fn route(self, rule: Rule, process: ProcessName) -> Result<Route, Failure> {
        let headers = self.headers.into_iter().map(|Pair(name, value)| Pair(name.to_ascii_lowercase(), value));
        Ok(Route {
            exact: self.exact,
            methods: self.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
            headers: named(headers)?,
            query: named(self.query.into_iter())?,
            ..Route::new(rule.host, rule.path, process)
        })
    }
}

impl Done {
    fn apply(self, route: Route) -> Result<Route, Failure> {
        let edits = |set: Vec<Pair>, remove: Vec<String>| -> Result<HeaderEdits, Failure> {
            let set = named(set.into_iter())?;
            Ok(HeaderEdits { set, remove: remove.into_iter().collect(), ..HeaderEdits::default() })
        };
        Ok(Route {
            rewrite: self.rewrite,
            redirect: self.redirect.map(|to| Redirect { to, status: self.status }),
            request_headers: edits(self.request_headers, self.drop_request_headers)?,
            response_headers: edits(self.response_headers, self.drop_response_headers)?,
            compress: self.compress,
            ..route
        })
    }
}

/// By name, each once.
fn named(pairs: impl Iterator<Item = Pair>) -> Result<BTreeMap<String, String>, Failure> {
    let mut named = BTreeMap::new();
    for Pair(name, value) in pairs {
        if named.insert(name.clone(), value).is_some() {
            return Err(Failure::input(format!("{name} is given twice: a route wants one value of it")));
        }
    }
    Ok(named)
}

fn operation_of(session: &Session<'_>, command: &str, app: &AppName, route: &Route) -> Result<Operation, Failure> {
    let mut params = serde_json::to_value(route).map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
    params["environment"] = json!(session.environment);
    params["app"] = json!(app);
    Ok(operation("route", command, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule = |host: Option<&str>, path: &str| Ok(Rule { host: host.map(str::to_owned), path: path.to_owned() });
        assert_eq!("Shop.example.org".parse::<Rule>(), rule(Some("shop.example.org"), "/"));
        assert_eq!("shop.example.org/api/v1".parse::<Rule>(), rule(Some("shop.example.org"), "/api/v1"));
        assert_eq!("*/api".parse::<Rule>(), rule(None, "/api"));
        assert_eq!("*.example.org".parse::<Rule>(), rule(Some("*.example.org"), "/"));
        for bad in ["", "/api", "http://shop.example.org/"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rule_with_all_it_wants_is_one_route() {
        let pair = |text: &str| text.parse::<Pair>().expect("a pair");
        let wanted = Wanted {
            exact: true,
            methods: vec!["get".to_owned()],
            headers: vec![pair("X-Beta=yes")],
            query: vec![pair("user=a=b")],
        };
        let route =
            wanted.route("a.example/x".parse().expect("a rule"), ProcessName::default_name()).expect("each once");
        assert_eq!(route.wants(), "a.example/x exactly GET x-beta:yes ?user=a=b");
        assert!(named([pair("a=1"), pair("a=2")].into_iter()).is_err());
        assert!("=x".parse::<Pair>().is_err() && "x".parse::<Pair>().is_err());
    }
}
