//! Resolve: a pushed version, its app file and the environment's overlay become one release, every value with its
//! origin. Order: overlay > app file > platform default.

use std::collections::{BTreeMap, BTreeSet};

use appbase_core::v1::{
    Balance, Check, Guard, HttpsPolicy, InstanceSpec, Policy, Probe, ProcessTraffic, Protocol, Redirect, Release,
    Route, Source, TrafficSpec, Value, VersionDocument,
};
use appbase_core::{EnvironmentName, ProcessName, ReleaseNumber};

use crate::app_file::{self, AppFileError};
use crate::guards;
use crate::v1::app_file::{AppFile, BalanceFile, HttpsFile, LimitsFile, RouteFile, TrafficFile};
use crate::v1::state::DesiredApp;
use crate::words::{self, WordsError};

/// What the platform gives where neither overlay nor app file says anything.
#[derive(Debug, Clone)]
pub struct Defaults {
    pub domain: String,
    pub policy: Policy,
    pub probe: Probe,
    pub stop_grace_ms: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            domain: "platform".to_owned(),
            policy: Policy::default(),
            probe: Probe::default(),
            stop_grace_ms: 10_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error(transparent)]
    AppFile(#[from] AppFileError),
    #[error("command of process {process}: {source}")]
    Words { process: ProcessName, source: WordsError },
    #[error("process {process} has no command: give one in platform.toml (command = \"…\")")]
    NoCommand { process: ProcessName },
    #[error("[[routes]] number {number}: {reason}")]
    Route { number: usize, reason: String },
    #[error("[guard]: {reason}")]
    Guard { reason: String },
    #[error("more than {ROUTES_MAX} routes: each of [[routes]] counts once for each of its hosts")]
    ManyRoutes,
    #[error("a route goes to process {process}, which has no port")]
    NoPort { process: ProcessName },
    #[error("{key}: {reason}")]
    Value { key: String, reason: &'static str },
}

/// Of one release. A table of lb holds those of all apps.
const ROUTES_MAX: usize = 1_000;

/// A release and how many instances its app file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub release: Release,
    pub scale: BTreeMap<ProcessName, u32>,
}

/// One process as the app file describes it, the top of the file and `[processes.x]` made alike.
struct Described<'a> {
    command: Option<&'a str>,
    port: Option<u16>,
    health: Option<&'a Check>,
    balance: &'a BalanceFile,
    protocol: Protocol,
    instances: Option<u32>,
    limits: &'a LimitsFile,
    overlap: bool,
    stop_grace: Option<f64>,
}

pub fn resolve(
    document: &VersionDocument,
    environment: &EnvironmentName,
    overlay: &DesiredApp,
    number: ReleaseNumber,
    defaults: &Defaults,
) -> Result<Resolved, ResolveError> {
    let file = app_file::parse(&document.app_file)?;
    let values = values(&file, overlay);
    let mut processes = BTreeMap::new();
    let mut traffic = BTreeMap::new();
    let mut scale = BTreeMap::new();
    for (name, described) in described(&file) {
        let command = command(&name, &described, &document.source)?;
        scale.insert(name.clone(), described.instances.unwrap_or(1));
        if described.port.is_some() {
            let probe = probe(described.health, &file.traffic, defaults)?;
            let balance = balance(described.balance)?;
            traffic.insert(name.clone(), ProcessTraffic { probe, balance, protocol: described.protocol });
        }
        let spec = InstanceSpec {
            source: document.source.clone(),
            base: file.base.clone(),
            command,
            values: values.clone(),
            port: described.port,
            limits: app_file::limits(described.limits)?,
            overlap: described.overlap,
            stop_grace_ms: millis("stop_grace", described.stop_grace, defaults.stop_grace_ms)?,
        };
        processes.insert(name, spec);
    }
    let routes = routes(document, environment, &file, overlay, &traffic, &defaults.domain)?;
    let policy = policy(&file.traffic, &file.https, &defaults.policy)?;
    let release = Release {
        needs: Vec::new(),
        app: document.app.clone(),
        environment: environment.clone(),
        number,
        version: document.version.clone(),
        processes,
        traffic: TrafficSpec { routes, processes: traffic, policy },
    };
    Ok(Resolved { release, scale })
}

/// Whether two releases differ in nothing but their number: then they are one.
pub fn same_content(one: &Release, other: &Release) -> bool {
    Release { number: 0, ..one.clone() } == Release { number: 0, ..other.clone() }
}

fn described(file: &AppFile) -> Vec<(ProcessName, Described<'_>)> {
    let mut all: Vec<_> = file
        .processes
        .iter()
        .map(|(name, process)| {
            let described = Described {
                command: process.command.as_deref(),
                port: process.port,
                health: process.health.as_ref(),
                balance: &process.balance,
                protocol: process.protocol,
                instances: process.instances,
                limits: &process.limits,
                overlap: process.overlap,
                stop_grace: process.stop_grace,
            };
            (name.clone(), described)
        })
        .collect();
    let top = file.command.is_some() || file.port.is_some() || file.processes.is_empty();
    if top && !file.processes.contains_key(ProcessName::DEFAULT) {
        let web = Described {
            command: file.command.as_deref(),
            port: file.port,
            health: file.health.as_ref(),
            balance: &file.balance,
            protocol: file.protocol,
            instances: file.instances,
            limits: &file.limits,
            overlap: false,
            stop_grace: file.stop_grace,
        };
        all.push((ProcessName::default_name(), web));
    }
    all
}

fn command(process: &ProcessName, described: &Described<'_>, source: &Source) -> Result<Vec<String>, ResolveError> {
    let line = described.command.unwrap_or_default();
    let words = words::split(line).map_err(|source| ResolveError::Words { process: process.clone(), source })?;
    match source {
        Source::Artifact { .. } if words.is_empty() => Err(ResolveError::NoCommand { process: process.clone() }),
        _ => Ok(words),
    }
}

fn values(file: &AppFile, overlay: &DesiredApp) -> BTreeMap<String, Value> {
    let both = file.values.iter().chain(&overlay.values);
    both.map(|(key, value)| (key.clone(), Value::Plain(value.clone()))).collect()
}

/// The app's own names always; the file's hosts in the default environment, since one host leads to one environment; then
/// the environment's routes.
fn routes(
    document: &VersionDocument,
    environment: &EnvironmentName,
    file: &AppFile,
    overlay: &DesiredApp,
    traffic: &BTreeMap<ProcessName, ProcessTraffic>,
    domain: &str,
) -> Result<Vec<Route>, ResolveError> {
    let mut routes = BTreeSet::new();
    let guard = guards::guard("guard", &file.guard)?;
    lb_core::guard::check_guard(&guard).map_err(|reason| ResolveError::Guard { reason })?;
    let web = ProcessName::default_name();
    let mut hosts = vec![Some(format!("{}.{environment}.{domain}", document.app))];
    if environment.is_default() {
        hosts.push(Some(format!("{}.{domain}", document.app)));
        hosts.extend(file.hosts.iter().map(|host| (host != "*").then(|| host.clone())));
    }
    if traffic.contains_key(&web) {
        let path = file.path.as_deref().unwrap_or("/");
        let main = |host: &Option<String>| Route {
            compress: file.compress,
            guard: guard.clone(),
            ..Route::new(host.clone(), path, web.clone())
        };
        routes.extend(hosts.iter().map(main));
    }
    let count = file.routes.iter().map(|route| route.hosts.as_ref().map_or(hosts.len(), Vec::len)).sum::<usize>();
    if count + hosts.len() > ROUTES_MAX {
        return Err(ResolveError::ManyRoutes);
    }
    for (at, described) in file.routes.iter().enumerate() {
        let own = described.guard.as_ref().map(|own| guards::guard(&format!("routes {}, guard", at + 1), own));
        let guard = own.transpose()?.unwrap_or_else(|| guard.clone());
        let route = further_route(described, guard).map_err(|reason| ResolveError::Route { number: at + 1, reason })?;
        let route = Route { compress: described.compress.unwrap_or(file.compress), ..route };
        match &described.hosts {
            None => routes.extend(hosts.iter().map(|host| Route { host: host.clone(), ..route.clone() })),
            // One host leads to one environment.
            Some(_) if !environment.is_default() => {}
            Some(own) => {
                let own = own.iter().map(|host| (host != "*").then(|| host.clone()));
                routes.extend(own.map(|host| Route { host, ..route.clone() }));
            }
        }
    }
    // The environment's own win over those of the file for the same requests.
    // One without a guard has that of the file: whoever adds a host does not mean to open the app.
    let guarded = |own: &Route| {
        let same = routes.iter().find(|route| own.is_for_the_same(route));
        let of_file = || same.map_or_else(|| guard.clone(), |route| route.guard.clone());
        Route { guard: if own.guard.is_empty() { of_file() } else { own.guard.clone() }, ..own.clone() }
    };
    let own: Vec<Route> = overlay.routes.iter().map(guarded).collect();
    routes.retain(|route| !own.iter().any(|own| own.is_for_the_same(route)));
    routes.extend(own);
    let forwarded = routes.iter().filter(|route| route.redirect.is_none());
    if let Some(route) = forwarded.clone().find(|route| !traffic.contains_key(&route.process)) {
        return Err(ResolveError::NoPort { process: route.process.clone() });
    }
    Ok(routes.into_iter().collect())
}

/// A rule of the app file, without its host.
fn further_route(described: &RouteFile, guard: Guard) -> Result<Route, String> {
    let process = described.process.clone().unwrap_or_else(ProcessName::default_name);
    let redirect = described
        .redirect
        .clone()
        .map(|to| Redirect { to, status: described.status.unwrap_or_else(Redirect::permanent) });
    if redirect.is_none() && described.status.is_some() {
        return Err("a status is for a redirect".to_owned());
    }
    for host in described.hosts.iter().flatten().filter(|host| *host != "*") {
        app_file::check_host(host)?;
    }
    let route = Route {
        exact: described.exact,
        methods: described.methods.clone(),
        headers: described.headers.clone(),
        query: described.query.clone(),
        rewrite: described.rewrite.clone(),
        redirect,
        request_headers: described.request_headers.clone().into(),
        response_headers: described.response_headers.clone().into(),
        guard,
        ..Route::new(None, described.path.as_deref().unwrap_or("/"), process)
    };
    lb_core::rule::check(&route)?;
    Ok(route)
}

fn probe(check: Option<&Check>, file: &TrafficFile, defaults: &Defaults) -> Result<Probe, ResolveError> {
    let times = |key: &str, times: Option<u32>, default| match times {
        Some(0) => Err(ResolveError::Value { key: key.to_owned(), reason: "at least 1" }),
        times => Ok(times.unwrap_or(default)),
    };
    Ok(Probe {
        check: check.unwrap_or(&defaults.probe.check).clone(),
        interval_ms: millis("traffic.probe_interval", file.probe_interval, defaults.probe.interval_ms)?.max(20),
        timeout_ms: millis("traffic.probe_timeout", file.probe_timeout, defaults.probe.timeout_ms)?.max(20),
        startup_ms: millis("traffic.probe_startup", file.probe_startup, defaults.probe.startup_ms)?,
        rise: times("traffic.probe_rise", file.probe_rise, defaults.probe.rise)?,
        fall: times("traffic.probe_fall", file.probe_fall, defaults.probe.fall)?,
    })
}

fn balance(file: &BalanceFile) -> Result<Balance, ResolveError> {
    let default = Balance::default();
    Ok(Balance {
        policy: file.policy.clone().unwrap_or(default.policy),
        sticky: file.sticky,
        slow_start_ms: millis("balance.slow_start", file.slow_start, default.slow_start_ms)?,
        eject_after: file.eject_after.unwrap_or(default.eject_after),
    })
}

fn policy(file: &TrafficFile, https: &HttpsFile, defaults: &Policy) -> Result<Policy, ResolveError> {
    Ok(Policy {
        settle_ms: millis("traffic.settle", file.settle, defaults.settle_ms)?,
        probe_deadline_ms: millis("traffic.probe_deadline", file.probe_deadline, defaults.probe_deadline_ms)?,
        request_drain_ms: millis("traffic.request_drain", file.request_drain, defaults.request_drain_ms)?,
        stream_drain_ms: millis("traffic.stream_drain", file.stream_drain, defaults.stream_drain_ms)?,
        rollback_window_ms: millis("traffic.rollback_window", file.rollback_window, defaults.rollback_window_ms)?,
        https: HttpsPolicy { redirect: https.redirect, hsts_seconds: hsts(https.hsts)? },
    })
}

fn hsts(seconds: Option<u64>) -> Result<u64, ResolveError> {
    const YEARS_2: u64 = 2 * 365 * 86_400;
    match seconds.unwrap_or_default() {
        seconds @ 0..=YEARS_2 => Ok(seconds),
        _ => Err(ResolveError::Value { key: "https.hsts".to_owned(), reason: "seconds, at most two years" }),
    }
}

/// Seconds of a file as milliseconds; at most a day.
fn millis(key: &str, seconds: Option<f64>, default: u64) -> Result<u64, ResolveError> {
    match seconds {
        None => Ok(default),
        Some(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok((seconds * 1000.0).round() as u64),
        Some(_) => Err(ResolveError::Value { key: key.to_owned(), reason: "seconds, from 0 to 86400" }),
    }
}

#[cfg(test)]
mod tests {
    use appbase_core::{AppName, Digest, Version};

    use super::*;

    fn document(app_file: &str) -> VersionDocument {
        VersionDocument {
            needs: Vec::new(),
            app: AppName::parse("shop").expect("a name"),
            version: Version::parse("2").expect("a version"),
            source: Source::Artifact { layers: vec![Digest::of(b"layer")] },
            app_file: app_file.to_owned(),
        }
    }

    fn resolved(app_file: &str, overlay: &DesiredApp) -> Result<Resolved, ResolveError> {
        resolve(&document(app_file), &EnvironmentName::default_name(), overlay, 1, &Defaults::default())
    }

    #[test]
    fn a_guard_is_of_every_route_that_has_none_of_its_own() {
        let text = "command = \"./x\"\nport = 80\n[guard]\nnetworks = [\"10.0.0.0/8\"]\nrequest_max = \"1MiB\"\n\
                    [[routes]]\npath = \"/open\"\nguard = { rate = { requests = 5 } }\n[[routes]]\npath = \"/x\"\n";
        let resolved = resolved(text, &DesiredApp::default()).expect("sound");
        let of = |path: &str| {
            let route = resolved.release.traffic.routes.iter().find(|route| route.path == path).expect("a route");
            (
                route.guard.networks.len(),
                route.guard.request_bytes_max,
                route.guard.rate.as_ref().map(|rate| rate.seconds),
            )
        };
        assert_eq!(
            (of("/"), of("/x"), of("/open")),
            ((1, Some(1 << 20), None), (1, Some(1 << 20), None), (0, None, Some(1)))
        );
    }

    #[test]
    fn users_of_a_route_have_hashes_alone() {
        let hash = format!("pbkdf2-sha512$10000$AAAAAAAAAAAAAAAAAAAAAA${}A", "A".repeat(85));
        let of = |hash: &str| {
            let text = format!("command = \"./x\"\nport = 80\n[guard.basic]\nusers = {{ ada = \"{hash}\" }}\n");
            resolved(&text, &DesiredApp::default()).map(|resolved| resolved.release.traffic.routes)
        };
        let routes = of(&hash).expect("sound");
        let basic = routes[0].guard.basic.as_ref().expect("asked for");
        assert_eq!((basic.realm.as_str(), basic.users["ada"].as_str()), ("restricted", hash.as_str()));
        assert!(!format!("{routes:?}").contains("pbkdf2"), "no hash in a log");
        let shown = serde_json::to_string(&routes[0].shown()).expect("serialises");
        assert!(shown.contains("ada") && !shown.contains("pbkdf2"), "{shown}");
        let error = of("secret").expect_err("refused").to_string();
        assert!(error.contains("platformctl route password") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn answers_are_packed_where_that_is_asked_for() {
        let text = "command = \"./x\"\nport = 80\ncompress = true\n[[routes]]\npath = \"/raw\"\ncompress = false\n\
                    [[routes]]\npath = \"/x\"\n";
        let routes = resolved(text, &DesiredApp::default()).expect("sound").release.traffic.routes;
        let of = |path: &str| routes.iter().find(|route| route.path == path).expect("a route").compress;
        assert_eq!((of("/"), of("/x"), of("/raw")), (true, true, false));
        let plain = resolved("command = \"./x\"\nport = 80\n", &DesiredApp::default()).expect("sound");
        assert!(plain.release.traffic.routes.iter().all(|route| !route.compress));
    }

    #[test]
    fn another_app_may_decide() {
        let of = |forward: &str| {
            let text = format!("command = \"./x\"\nport = 80\n[guard]\nforward = {forward}\n");
            resolved(&text, &DesiredApp::default()).map(|resolved| resolved.release.traffic.routes[0].guard.clone())
        };
        let guard = of("{ app = \"auth\", path = \"/check\", copy = [\"X-User\"] }").expect("sound");
        let forward = guard.forward.expect("asked for");
        assert_eq!((forward.app.as_str(), forward.process.as_str(), forward.path.as_str()), ("auth", "web", "/check"));
        let error = of("{ app = \"auth\", path = \"/check\", copy = [\"Host\"] }").expect_err("refused").to_string();
        assert!(error.contains("[guard]: forward: header Host"), "{error}");
        assert!(of("{ app = \"auth\", path = \"/\", copied = [] }").is_err());
    }

    #[test]
    fn a_route_of_the_environment_does_not_open_a_guarded_app() {
        let text = "command = \"./x\"\nport = 80\n[guard]\nnetworks = [\"10.0.0.0/8\"]\n";
        let own = |host: &str| Route::new(Some(host.to_owned()), "/", ProcessName::default_name());
        let mut overlay = DesiredApp::default();
        overlay.routes.extend([own("shop.platform"), own("new.example")]);
        let routes = resolved(text, &overlay).expect("sound").release.traffic.routes;
        assert!(routes.iter().any(|route| route.host.as_deref() == Some("new.example")));
        assert!(routes.iter().all(|route| route.guard.networks.len() == 1), "{routes:#?}");
    }

    #[test]
    fn overlay_wins_over_file_wins_over_default() {
        let overlay = DesiredApp { values: [("A".into(), "overlay".into())].into(), ..DesiredApp::default() };
        let file =
            "command = \"./shop 'a b'\"\nport = 80\n[values]\nA = \"file\"\nB = \"file\"\n[traffic]\nsettle = 0.2\n";
        let release = resolved(file, &overlay).expect("sound").release;
        let web = &release.processes["web"];
        assert_eq!(web.values["A"], Value::Plain("overlay".into()));
        assert_eq!(web.values["B"], Value::Plain("file".into()));
        assert_eq!(web.command, ["./shop", "a b"]);
        assert_eq!((release.traffic.policy.settle_ms, release.traffic.policy.request_drain_ms), (200, 30_000));
        let hosts: Vec<_> = release.traffic.routes.iter().filter_map(|route| route.host.as_deref()).collect();
        assert_eq!(hosts, ["shop.platform", "shop.production.platform"]);
    }

    #[test]
    fn hosts_of_the_file_lead_to_the_default_environment_alone() {
        let hosts = |environment: &str| {
            let environment = EnvironmentName::parse(environment).expect("a name");
            let document = document("command = \"./shop\"\nport = 80\nhosts = [\"shop.example.org\"]\n");
            let resolved = resolve(&document, &environment, &DesiredApp::default(), 1, &Defaults::default());
            let routes = resolved.expect("sound").release.traffic.routes;
            routes.into_iter().filter_map(|route| route.host).collect::<Vec<_>>()
        };
        assert_eq!(hosts("production"), ["shop.example.org", "shop.platform", "shop.production.platform"]);
        assert_eq!(hosts("staging"), ["shop.staging.platform"]);
    }

    #[test]
    fn only_what_instances_need_is_in_their_spec() {
        let one = resolved("command = \"./shop\"\nport = 80\n", &DesiredApp::default()).expect("sound").release;
        let two = resolved(
            "command = \"./shop\"\nport = 80\nhosts = [\"*\"]\n[traffic]\nsettle = 9\n",
            &DesiredApp::default(),
        );
        let two = two.expect("sound").release;
        assert_eq!(one.processes["web"].digest(), two.processes["web"].digest(), "routes start nothing");
        assert!(!same_content(&one, &two));
        assert!(same_content(&one, &Release { number: 9, ..one.clone() }));
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let check = |file: &str, expect: &str| {
            let error = resolved(file, &DesiredApp::default()).expect_err(file).to_string();
            assert!(error.contains(expect), "{file:?} gave {error}");
        };
        check("port = 80", "process web has no command");
        assert!(resolved("[processes.worker]\ncommand = \"./work\"\n", &DesiredApp::default()).is_ok());
        check("command = \"a 'b\"", "command of process web: the quote ' opened at character 2 is never closed");
        check("command = \"a\"\n[traffic]\nsettle = -1", "traffic.settle: seconds, from 0 to 86400");
        check("command = \"a\"\nport = 1\n[traffic]\nprobe_rise = 0", "traffic.probe_rise: at least 1");
        let overlay = DesiredApp {
            routes: vec![Route::new(None, "/", ProcessName::parse("other").expect("a name"))],
            ..DesiredApp::default()
        };
        assert!(resolved("command = \"a\"", &overlay).is_err());
    }

    #[test]
    fn each_process_is_probed_and_balanced_in_its_own_way() {
        let file = "command = \"./shop\"\nport = 80\n[balance]\npolicy = \"hash:client\"\nslow_start = 2.5\n\
            [traffic]\nprobe_startup = 5\nprobe_fall = 2\n\
            [processes.api]\ncommand = \"./api\"\nport = 81\nhealth = \"grpc:shop\"\n";
        let processes = resolved(file, &DesiredApp::default()).expect("sound").release.traffic.processes;
        let (web, api) = (&processes["web"], &processes["api"]);
        assert_eq!((web.balance.policy.to_string(), web.balance.slow_start_ms), ("hash:client".to_owned(), 2_500));
        assert_eq!((web.probe.check.to_string(), api.probe.check.to_string()), ("/health".into(), "grpc:shop".into()));
        assert_eq!((web.probe.startup_ms, web.probe.rise, api.probe.fall), (5_000, 1, 2));
        assert_eq!(api.balance, Balance::default());
    }

    #[test]
    fn an_app_asks_for_https() {
        let asked = |text: &str| {
            let file = format!("command = \"a\"\n{text}");
            resolved(&file, &DesiredApp::default()).map(|resolved| resolved.release.traffic.policy.https)
        };
        assert_eq!(asked(""), Ok(HttpsPolicy::default()));
        let strict = HttpsPolicy { redirect: true, hsts_seconds: 31_536_000 };
        assert_eq!(asked("[https]\nredirect = true\nhsts = 31536000\n"), Ok(strict));
        let long = asked("[https]\nhsts = 63072001\n").expect_err("too long").to_string();
        assert_eq!(long, "https.hsts: seconds, at most two years");
        let unknown = asked("[https]\nforce = true\n").expect_err("unknown").to_string();
        assert!(unknown.contains("line 3, column 1") && unknown.contains("force"), "{unknown}");
    }

    #[test]
    fn further_routes_are_for_all_hosts_unless_they_name_their_own() {
        let file = "command = \"./shop\"\nport = 80\nhosts = [\"shop.example.org\"]\n\
            [[routes]]\npath = \"/old\"\nredirect = \"/new{rest}\"\nstatus = 302\n\
            [[routes]]\nhosts = [\"api.example.org\"]\nmethods = [\"GET\"]\nrewrite = \"/api\"\n";
        let of = |environment: &str| {
            let environment = EnvironmentName::parse(environment).expect("a name");
            let resolved = resolve(&document(file), &environment, &DesiredApp::default(), 1, &Defaults::default());
            let routes = resolved.expect("sound").release.traffic.routes;
            routes.iter().map(|route| format!("{} -> {}", route.wants(), route.does())).collect::<Vec<_>>()
        };
        assert_eq!(
            of("production"),
            [
                "api.example.org/ GET -> web as /api",
                "shop.example.org/ -> web",
                "shop.example.org/old -> 302 to /new{rest}",
                "shop.platform/ -> web",
                "shop.platform/old -> 302 to /new{rest}",
                "shop.production.platform/ -> web",
                "shop.production.platform/old -> 302 to /new{rest}",
            ]
        );
        assert_eq!(of("staging"), ["shop.staging.platform/ -> web", "shop.staging.platform/old -> 302 to /new{rest}"]);
        let error = resolved("command = \"a\"\nport = 80\n[[routes]]\nstatus = 301\n", &DesiredApp::default());
        assert_eq!(error.expect_err("refused").to_string(), "[[routes]] number 1: a status is for a redirect");

        let own = Route {
            redirect: Some(Redirect { to: "/away".into(), status: 308 }),
            ..Route::new(Some("shop.platform".into()), "/", ProcessName::default_name())
        };
        let overlay = DesiredApp { routes: vec![own], ..DesiredApp::default() };
        let routes = resolved("command = \"a\"\nport = 80\n", &overlay).expect("sound").release.traffic.routes;
        let said: Vec<_> = routes.iter().map(|route| format!("{} -> {}", route.wants(), route.does())).collect();
        assert_eq!(said, ["shop.platform/ -> 308 to /away", "shop.production.platform/ -> web"]);

        let hosts = (0..400).map(|number| format!("\"a{number}.example\"")).collect::<Vec<_>>().join(",");
        let many =
            format!("command = \"a\"\nport = 80\nhosts = [{hosts}]\n{}", "[[routes]]\npath = \"/x\"\n".repeat(3));
        let error = resolved(&many, &DesiredApp::default()).expect_err("too many").to_string();
        assert!(error.contains("more than 1000 routes"), "{error}");
    }
}
