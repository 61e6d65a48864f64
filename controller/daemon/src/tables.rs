//! Tables: what is published, section by section, and the long poll that carries it to members.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::TableUpdate;
use appbase_core::{Digest, Generation, SectionKey};
use controller_core::certificates::{Offer, Uploaded};
use controller_core::render;
use controller_core::v1::state::{Cluster, Published};
use dns_core::v1::NameSection;
use lb_core::v1::RouteSection;
use serde::Serialize;
use tokio::sync::watch;

use crate::config::Config;
use crate::records::Records;

/// Both tables as the records say they should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rendered {
    pub routes: BTreeMap<SectionKey, RouteSection>,
    pub names: BTreeMap<SectionKey, NameSection>,
}

impl Rendered {
    pub(crate) fn of(records: &Records, config: &Config) -> Self {
        Self::with(records, config, &records.certificates)
    }

    /// As they would be with these certificates of people.
    pub(crate) fn with(records: &Records, config: &Config, uploaded: &Uploaded) -> Self {
        let mut rendered = Self::default();
        let platform = crate::names::platform(config, &records.networks);
        rendered.names.insert(SectionKey::Platform, NameSection::Platform(platform));
        let none = BTreeMap::new();
        for (key, run) in &records.runs {
            let SectionKey::App { environment, app } = key else { continue };
            let releases = records.releases.get(key).unwrap_or(&none);
            let desired = records.desired_app(environment, app);
            let offer = Offer { uploaded: Some(uploaded), ..records.offer(key) };
            if let Some(section) = render::route_section(environment, app, &desired, run, releases, &offer) {
                rendered.routes.insert(key.clone(), section);
            }
            if let Some(section) = render::name_section(environment, app, run, releases, &offer) {
                rendered.names.insert(key.clone(), section);
            }
        }
        rendered
    }

    pub(crate) fn digests(&self) -> Published {
        Published { routes: digests(&self.routes), names: digests(&self.names) }
    }
}

fn digests<S: Serialize>(sections: &BTreeMap<SectionKey, S>) -> BTreeMap<SectionKey, Digest> {
    sections.iter().map(|(key, section)| (key.clone(), render::digest(section))).collect()
}

/// What is in force for members to fetch.
pub(crate) struct Tables {
    cluster: Cluster,
    inner: Mutex<Inner>,
    number: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    number: u64,
    /// Deltas reach back to this number: before it nothing is known about changes.
    known_since: u64,
    routes: Table<RouteSection>,
    names: Table<NameSection>,
}

struct Table<S> {
    sections: BTreeMap<SectionKey, (S, u64)>,
    removed: BTreeMap<SectionKey, u64>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { sections: BTreeMap::new(), removed: BTreeMap::new() }
    }
}

impl<S: Clone + PartialEq> Table<S> {
    fn take(&mut self, next: BTreeMap<SectionKey, S>, number: u64) {
        for key in self.sections.keys().filter(|key| !next.contains_key(*key)) {
            self.removed.insert(key.clone(), number);
        }
        self.sections.retain(|key, _| next.contains_key(key));
        for (key, section) in next {
            self.removed.remove(&key);
            if self.sections.get(&key).is_none_or(|(known, _)| *known != section) {
                self.sections.insert(key, (section, number));
            }
        }
    }

    fn update(&self, generation: Generation, base: Option<Generation>) -> TableUpdate<S> {
        let after = base.as_ref().map_or(0, |base| base.number);
        let newer = self.sections.iter().filter(|(_, (_, number))| base.is_none() || *number > after);
        let sections = newer.map(|(key, (section, _))| (key.clone(), section.clone())).collect();
        let removed = self.removed.iter().filter(|(_, number)| **number > after).map(|(key, _)| key.clone()).collect();
        TableUpdate {
            needs: Vec::new(),
            generation,
            sections,
            removed: if base.is_some() { removed } else { Vec::new() },
            base,
        }
    }
}

impl Tables {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, inner: Mutex::default(), number: watch::Sender::new(0) }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.stamp(self.lock().number)
    }

    /// The number of what is out, as it changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// What was rendered is out with this number.
    pub(crate) fn put(&self, rendered: Rendered, number: u64) {
        let mut inner = self.lock();
        if inner.number == 0 {
            inner.known_since = number;
        }
        inner.number = number;
        inner.routes.take(rendered.routes, number);
        inner.names.take(rendered.names, number);
        drop(inner);
        self.number.send_replace(number);
    }

    /// The publication that carries exactly these sections; none while they are not out.
    pub(crate) fn published(
        &self,
        key: &SectionKey,
        routes: Option<&RouteSection>,
        names: Option<&NameSection>,
    ) -> Option<Generation> {
        let inner = self.lock();
        let number =
            |known: Option<u64>, removed: Option<&u64>| known.or(removed.copied()).unwrap_or(inner.known_since);
        let (route, name) = (inner.routes.sections.get(key), inner.names.sections.get(key));
        if route.map(|(section, _)| section) != routes || name.map(|(section, _)| section) != names {
            return None;
        }
        let routes = number(route.map(|(_, number)| *number), inner.routes.removed.get(key));
        let names = number(name.map(|(_, number)| *number), inner.names.removed.get(key));
        Some(self.stamp(routes.max(names)))
    }

    /// Waits until something newer than `after` is out; none when nothing came in time.
    pub(crate) async fn routes_after(
        &self,
        after: Option<&Generation>,
        wait: Duration,
    ) -> Option<TableUpdate<RouteSection>> {
        self.wait_newer(after, wait).await?;
        let inner = self.lock();
        let base = self.base(after, &inner);
        Some(inner.routes.update(self.stamp(inner.number), base))
    }

    pub(crate) async fn names_after(
        &self,
        after: Option<&Generation>,
        wait: Duration,
    ) -> Option<TableUpdate<NameSection>> {
        self.wait_newer(after, wait).await?;
        let inner = self.lock();
        let base = self.base(after, &inner);
        Some(inner.names.update(self.stamp(inner.number), base))
    }

    async fn wait_newer(&self, after: Option<&Generation>, wait: Duration) -> Option<()> {
        let ours = self.ours(after);
        let newer = |number: &u64| *number > 0 && ours.is_none_or(|ours| *number != ours.number);
        let mut number = self.number.subscribe();
        tokio::time::timeout(wait, number.wait_for(newer)).await.ok()?.ok().map(|_| ())
    }

    /// What a delta may stand on: a generation of ours since when every change is known.
    fn base(&self, after: Option<&Generation>, inner: &Inner) -> Option<Generation> {
        let known = |after: &&Generation| after.number >= inner.known_since && after.number < inner.number;
        self.ours(after).filter(known).cloned()
    }

    fn ours<'a>(&self, after: Option<&'a Generation>) -> Option<&'a Generation> {
        after.filter(|after| after.cluster == self.cluster.id && after.epoch == self.cluster.epoch)
    }

    fn stamp(&self, number: u64) -> Generation {
        Generation { cluster: self.cluster.id.clone(), epoch: self.cluster.epoch, number }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
