//! Admit: what lb or dns would refuse is refused before it is wanted. They take a table whole or not at all, so one bad
//! route would stand in the way of every later change of every app.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use appbase_core::{InstanceId, SectionKey, ServerName, Slot};
use dns_core::v1::NameSection;
use lb_core::v1::RouteSection;

use crate::certificates::Offer;
use crate::render;
use crate::v1::state::{DesiredApp, InstanceRecord, ReleaseRecord, Run, Traffic};

/// Why members would not take a table in which these releases are live; none when they would. `platform` is the section
/// that the names hang on.
pub fn refusal<'a>(
    platform: NameSection,
    live: impl Iterator<Item = (&'a SectionKey, &'a ReleaseRecord)>,
    server: &ServerName,
) -> Option<String> {
    let mut routes: BTreeMap<SectionKey, RouteSection> = BTreeMap::new();
    let mut names = BTreeMap::from([(SectionKey::Platform, platform)]);
    for (key, record) in live {
        let SectionKey::App { environment, app } = key else { continue };
        let run = as_live(record, server);
        let releases = BTreeMap::from([(record.release.number, record.clone())]);
        let (desired, offer) = (DesiredApp::default(), Offer::default());
        let section = render::route_section(environment, app, &desired, &run, &releases, &offer);
        routes.extend(section.map(|section| (key.clone(), section)));
        let section = render::name_section(environment, app, &run, &releases, &offer);
        names.extend(section.map(|section| (key.clone(), section)));
    }
    let by_lb = lb_core::Table::new(&routes).err().map(|error| error.to_string());
    by_lb.or_else(|| dns_core::Table::new(&names).err().map(|error| error.to_string()))
}

/// A run in which all instances of a release take traffic, at addresses that mean nothing.
fn as_live(record: &ReleaseRecord, server: &ServerName) -> Run {
    let release = &record.release;
    let mut run =
        Run { live: Some(Slot::Blue), slots: BTreeMap::from([(Slot::Blue, release.number)]), ..Run::default() };
    for (process, spec) in &release.processes {
        let count = record.scale.get(process).copied().unwrap_or(1);
        for number in 1..=count {
            let label = release.version.label();
            let id = InstanceId::of(&release.environment, &release.app, &label, release.number, process, number);
            let instance = InstanceRecord {
                process: process.clone(),
                number,
                release: release.number,
                slot: Slot::Blue,
                server: server.clone(),
                spec: spec.digest(),
                address: spec.port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
                state: Traffic::Active,
            };
            run.instances.insert(id, instance);
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use appbase_core::v1::{
        Balance, InstanceSpec, Policy, Probe, ProcessTraffic, Protocol, Release, Route, Source, TrafficSpec,
    };
    use appbase_core::{AppName, Digest, EnvironmentName, ProcessName, Version};
    use dns_core::v1::{PlatformNames, View};

    use super::*;

    fn platform() -> NameSection {
        let view = View {
            name: "all".to_owned(),
            sources: vec!["::/0".to_owned()],
            environment: None,
            forward: false,
            parts: BTreeMap::from([("lb".to_owned(), vec!["127.0.0.1".parse().expect("an address")])]),
        };
        let (domain, servers) = ("platform".to_owned(), BTreeMap::new());
        NameSection::Platform(PlatformNames { domain, ttl_ms: 5000, views: vec![view], servers })
    }

    fn app(environment: &str, app: &str, paths: &[(&str, &str)]) -> (SectionKey, ReleaseRecord) {
        let (environment, app) =
            (EnvironmentName::parse(environment).expect("a name"), AppName::parse(app).expect("a name"));
        let web = ProcessName::default_name();
        let spec = InstanceSpec {
            source: Source::Artifact { layers: vec![Digest::of(b"layer")] },
            base: None,
            command: vec!["./app".to_owned()],
            values: BTreeMap::new(),
            port: Some(80),
            limits: Default::default(),
            overlap: false,
            stop_grace_ms: 1000,
        };
        let route = |(host, path): &(&str, &str)| Route::new(Some((*host).to_owned()), *path, web.clone());
        let probe = Probe::default();
        let release = Release {
            needs: Vec::new(),
            app: app.clone(),
            environment: environment.clone(),
            number: 1,
            version: Version::parse("1").expect("a version"),
            processes: BTreeMap::from([(web.clone(), spec)]),
            traffic: TrafficSpec {
                routes: paths.iter().map(route).collect(),
                processes: BTreeMap::from([(
                    web.clone(),
                    ProcessTraffic { probe, balance: Balance::default(), protocol: Protocol::default() },
                )]),
                policy: Policy::default(),
            },
        };
        let scale = BTreeMap::from([(web, 2)]);
        let record = ReleaseRecord {
            document: Digest::of(b"document"),
            release,
            scale,
            made_unix_ms: 0,
            overlay: Default::default(),
        };
        (SectionKey::app(&environment, &app), record)
    }

    fn refused(apps: &[(SectionKey, ReleaseRecord)]) -> Option<String> {
        let server = ServerName::parse("server-1").expect("a name");
        refusal(platform(), apps.iter().map(|(key, record)| (key, record)), &server)
    }

    #[test]
    fn what_members_take_is_admitted() {
        let apps = [
            app("production", "shop", &[("shop.test", "/"), ("shop.test", "/api")]),
            app("staging", "shop", &[("staging.test", "/")]),
        ];
        assert_eq!(refused(&apps), None);
    }

    #[test]
    fn what_members_refuse_is_not() {
        let shop = || app("production", "shop", &[("shop.test", "/")]);
        let cases = [
            (vec![app("production", "shop", &[("shop.test", "/a/../b")])], "/a/../b"),
            (vec![app("production", "shop", &[("*", "/")])], "*"),
            (vec![app("production", "shop", &[("shop.test", "/x"), ("shop.test", "/x/")])], "shop.test/x"),
            (vec![shop(), app("production", "other", &[("shop.test", "/")])], "shop.test/"),
            (
                vec![app("production", "shop-staging", &[("a.test", "/")]), app("staging", "shop", &[("b.test", "/")])],
                "shop-staging-v1-r1-web-1",
            ),
            (
                vec![app("production", "staging", &[("a.test", "/")]), app("staging", "shop", &[("b.test", "/")])],
                "an environment",
            ),
        ];
        for (apps, reason) in cases {
            let said = refused(&apps).unwrap_or_default();
            assert!(said.contains(reason), "{reason}: {said}");
        }
    }
}
