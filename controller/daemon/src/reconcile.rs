//! The loop: look, think, note, publish, do, look again. One task owns it; it never fails.

mod certificates;
mod outcome;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use appbase_core::{InstanceId, SectionKey};
use controller_core::addresses::Addresses;
use controller_core::observed::Observed;
use controller_core::plan::{Setting, Slice, SlicePlan, exit_text, plan_slice};
use controller_core::render::live_release;
use controller_core::time::Now;
use controller_core::v1::compute::ObservedInstance;
use controller_core::v1::state::{Cluster, EventKind, Run};
use kit::problem::chain;

use self::certificates::Certificates;
pub(crate) use self::certificates::{in_words, problems as certificate_problems};
use self::outcome::outcome;
use self::steps::{Steps, about_instance};
use crate::journal::About;
use crate::points::Decided;
use crate::records::{Records, Write, lock};
use crate::run::Shared;

/// Without any hint everything is looked at again after this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Between two passes: what comes after the first of several hints is answered together.
const GATHER: Duration = Duration::from_millis(5);
/// A step that failed is tried again after this time, doubled each time up to the limit.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// After a start, members are listened to for so long before anything is decided: one may have a newer table than this
/// state knows of. Longer than a member takes to notice that the controller answers again.
const HEAR_MAX: Duration = Duration::from_secs(3);
const HEAR_LOOK: Duration = Duration::from_millis(50);
/// Looking at an engine takes no longer than this, or it is a gap.
const OBSERVE_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Reconcile {
    pub shared: Arc<Shared>,
    pub setting: Setting,
    pub addresses: Addresses,
    pub tasks: kit::Tasks,
    steps: Steps,
    certificates: Certificates,
    /// As they were last seen.
    restarts: BTreeMap<InstanceId, u32>,
    /// The live release whose tag stands in the repository.
    marked_live: BTreeMap<SectionKey, u64>,
    /// Why nothing is decided, while it is so.
    held: Option<String>,
    /// On which ports of this machine something listened at the last look, if instances could get those.
    taken_ports: BTreeSet<u16>,
}

impl Reconcile {
    pub(crate) fn new(shared: Arc<Shared>, setting: Setting, addresses: Addresses, tasks: kit::Tasks) -> Self {
        Self {
            steps: Steps::new(Arc::clone(&shared), tasks.clone()),
            certificates: Certificates::new(Arc::clone(&shared)),
            shared,
            setting,
            addresses,
            tasks,
            restarts: BTreeMap::new(),
            marked_live: BTreeMap::new(),
            held: None,
            taken_ports: BTreeSet::new(),
        }
    }

    /// Runs until it is dropped: every wait may be cancelled, since each pass looks at everything again.
    pub(crate) async fn forever(mut self) {
        let mut hints = self.shared.compute.hints();
        loop {
            let wake = self.pass().await;
            let rested = self.shared.clock.elapsed() + GATHER;
            let pause = wake.map_or(LOOK_EVERY, |at| at.saturating_sub(self.shared.clock.elapsed()).min(LOOK_EVERY));
            tokio::select! {
                () = self.shared.look_again.notified() => {}
                changed = hints.changed() => {
                    if changed.is_err() {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
                () = self.steps.one_ended() => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(rested.saturating_sub(self.shared.clock.elapsed())).await;
            self.steps.take_ended();
        }
    }

    /// One look at everything. Answers when to look again at the latest.
    async fn pass(&mut self) -> Option<Duration> {
        let observed = self.look().await;
        let shared = Arc::clone(&self.shared);
        let pen = shared.pen.lock().await;
        let now = self.shared.now();
        if let Some(until) = self.hold_back(&observed, now) {
            return Some(until);
        }
        shared.decides.store(true, Ordering::Relaxed);
        let plans = self.think(&observed, now);
        let mut wake = None;
        let mut steps = Vec::new();
        let mut reports = BTreeMap::new();
        let mut decided = Decided::default();
        for (key, plan) in plans {
            wake = earlier(wake, plan.wake.map(|(at, _)| at));
            if plan.run.is_some() || plan.deployment.is_some() {
                // What was decided on changed records may ask for more: nothing else would wake the loop for it.
                wake = Some(now.elapsed);
            }
            reports.insert(key.clone(), plan.report.clone());
            let planned = plan.steps.clone();
            let decides = Decided::of(&plan, || lock(&self.shared.records).run(&key));
            match self.note(&key, plan, &observed).await {
                Ok(()) => {
                    decides.recorded();
                    decided = decided.and(decides);
                    steps.extend(planned);
                }
                Err(error) => {
                    tracing::error!(%error, section = %key, "decision not recorded: nothing of it is done");
                    reports.entry(key).or_default().push(format!("decision not recorded: {error}"));
                    wake = earlier(wake, Some(now.elapsed + RETRY_FIRST));
                }
            }
        }
        wake = earlier(wake, self.keep_certificates(now).await);
        if let Err(error) = self.shared.publish().await {
            tracing::error!(%error, "tables not published");
            wake = earlier(wake, Some(now.elapsed + RETRY_FIRST));
        }
        decided.published();
        drop(pen);
        self.shared.show(observed, steps.iter().map(ToString::to_string).collect(), reports);
        self.mark_live();
        for step in steps {
            wake = earlier(wake, self.steps.start(step));
        }
        wake
    }

    /// With the pen held. When to look again, if there is more to do or something was not recorded.
    async fn keep_certificates(&mut self, now: Now) -> Option<Duration> {
        match self.certificates.keep().await {
            Ok(changed) => changed.then_some(now.elapsed),
            Err(error) => {
                tracing::error!(%error, "certificate not recorded: the one before it stays");
                Some(now.elapsed + RETRY_FIRST)
            }
        }
    }

    /// When to look again, while nothing may be decided: members were not heard yet, or have a newer table.
    fn hold_back(&mut self, observed: &Observed, now: Now) -> Option<Duration> {
        let heard = self.shared.members.all_heard(&lock(&self.shared.records).members);
        if !heard && now.elapsed < HEAR_MAX {
            return Some(now.elapsed + HEAR_LOOK);
        }
        let held = self.shared.is_older();
        if held != self.held {
            match &held {
                Some(reason) => tracing::error!(reason, "nothing is changed: see controller raise-epoch"),
                None => tracing::info!("this state is the newest again"),
            }
            self.held.clone_from(&held);
        }
        held.map(|reason| {
            let reports =
                lock(&self.shared.records).runs.keys().map(|key| (key.clone(), vec![reason.clone()])).collect();
            self.shared.show(observed.clone(), Vec::new(), reports);
            now.elapsed + RETRY_MAX
        })
    }

    async fn look(&mut self) -> Observed {
        let shared = &self.shared;
        let seen = match tokio::time::timeout(OBSERVE_MAX, shared.compute.observe()).await {
            Ok(Ok(seen)) => {
                *shared.gap.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
                self.taken_ports = seen.taken_ports;
                Some(seen.instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect())
            }
            Ok(Err(error)) => self.gap(chain(&error)),
            Err(_) => self.gap(format!("the engine did not answer in {} s", OBSERVE_MAX.as_secs())),
        };
        if let Some(seen) = &seen {
            self.tell_restarts(seen);
        }
        let shared = &self.shared;
        let members = {
            let records = lock(&shared.records);
            // Also of what runs without a record: its stop may fail as well.
            let is_seen = |id: &InstanceId| seen.as_ref().is_some_and(|seen: &BTreeMap<_, _>| seen.contains_key(id));
            self.steps.keep(|id| is_seen(id) || records.runs.values().any(|run| run.instances.contains_key(id)));
            shared.members.seen(&records.members, shared.now())
        };
        let failed_steps = self.steps.errors();
        Observed { servers: BTreeMap::from([(self.setting.server.clone(), seen)]), members, failed_steps }
    }

    /// What ended and was started again by its engine says so nowhere else.
    fn tell_restarts(&mut self, seen: &BTreeMap<InstanceId, ObservedInstance>) {
        for (id, instance) in seen {
            let known = self.restarts.insert(id.clone(), instance.restarts);
            if known.is_none_or(|known| instance.restarts <= known) {
                continue;
            }
            let exit = instance.last_exit.as_ref().map_or_else(String::new, |exit| format!(" {}", exit_text(exit)));
            let text = format!("{id} ended{exit} and is started again (restart {})", instance.restarts);
            let about = about_instance(&lock(&self.shared.records), id);
            self.shared.journal.write(self.shared.clock.unix_ms(), &about, EventKind::InstanceStarted, &text);
        }
        self.restarts.retain(|id, _| seen.contains_key(id));
    }

    fn gap<T>(&self, reason: String) -> Option<T> {
        let mut gap = self.shared.gap.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if gap.as_ref() != Some(&reason) {
            tracing::warn!(reason, "server cannot be seen: nothing on it is changed");
        }
        *gap = Some(reason);
        None
    }

    fn think(&mut self, observed: &Observed, now: Now) -> Vec<(SectionKey, SlicePlan)> {
        let records = lock(&self.shared.records);
        let held = records.runs.values().flat_map(|run| run.instances.values().filter_map(|i| i.address));
        // What runs without a record, after an older state was put back, has its address all the same.
        let seen = observed.servers.values().flatten().flat_map(|server| server.values());
        let taken = self.taken_ports.iter().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *port));
        self.addresses.held(held.chain(seen.filter_map(|seen| seen.labels.address)).chain(taken), now);
        self.addresses.networks.clone_from(&records.networks);
        let (none, mut plans) = (BTreeMap::new(), Vec::new());
        let (nothing, unknown) = (Run::default(), unknown_apps(&records, observed));
        for (key, run) in records.runs.iter().chain(unknown.iter().map(|key| (key, &nothing))) {
            let SectionKey::App { environment, app } = key else { continue };
            let releases = records.releases.get(key).unwrap_or(&none);
            let desired = records.desired_app(environment, app);
            let offer = records.offer(key);
            let routes = controller_core::render::route_section(environment, app, &desired, run, releases, &offer);
            let names = controller_core::render::name_section(environment, app, run, releases, &offer);
            let published = self.shared.tables.published(key, routes.as_ref(), names.as_ref());
            let deployment = run.deployment.as_ref().and_then(|id| records.deployments.get(id));
            let slice =
                Slice { environment, app, desired: &desired, run, deployment, releases, published: published.as_ref() };
            plans.push((key.clone(), plan_slice(&self.setting, &slice, observed, &mut self.addresses, now)));
        }
        plans
    }

    /// Writes down what was decided, before anything of it is done.
    async fn note(
        &self,
        key: &SectionKey,
        plan: SlicePlan,
        observed: &Observed,
    ) -> Result<(), crate::store::StoreError> {
        let mut writes = Vec::new();
        let about = self.about(key, &plan);
        let mut ended = None;
        writes.extend(plan.run.map(|run| Write::Run(key.clone(), run)));
        if let Some(deployment) = plan.deployment {
            if deployment.end.is_some() {
                let outcome = outcome(&self.shared, key, &deployment, observed).await;
                writes.push(Write::Outcome(deployment.id.clone(), outcome));
                ended = Some(deployment.id.clone());
            }
            writes.push(Write::Deployment(Box::new(deployment)));
        }
        if !writes.is_empty() {
            self.shared.commit(writes).await?;
        }
        if let Some(ended) = ended {
            self.shared.forget_baseline(&ended);
        }
        for event in plan.events {
            self.shared.journal.write(self.shared.clock.unix_ms(), &about, event.kind, &event.text);
        }
        Ok(())
    }

    fn about(&self, key: &SectionKey, plan: &SlicePlan) -> About {
        let records = lock(&self.shared.records);
        let running = plan.deployment.as_ref().or_else(|| records.running(key));
        match (running, key) {
            (Some(deployment), _) => About::of(deployment),
            (None, SectionKey::App { environment, app }) => {
                About { environment: Some(environment.clone()), app: Some(app.clone()), deployment: None }
            }
            (None, SectionKey::Platform) => About::default(),
        }
    }

    /// Moves the `<environment>-live` tags after flips, beside the loop.
    fn mark_live(&mut self) {
        let changed: Vec<_> = {
            let records = lock(&self.shared.records);
            let live = |(key, run): (&SectionKey, &_)| {
                let live = live_release(run)?;
                let record = records.releases.get(key)?.get(&live)?;
                (self.marked_live.get(key) != Some(&live)).then(|| (key.clone(), record.release.clone()))
            };
            records.runs.iter().filter_map(live).collect()
        };
        for (key, release) in changed {
            self.marked_live.insert(key, release.number);
            let shared = Arc::clone(&self.shared);
            self.tasks.spawn("mark-live", async move {
                let mut pause = RETRY_FIRST;
                while let Err(error) = shared.repository.mark_live(&release).await {
                    tracing::warn!(error = %error, app = %release.app, "live tag not moved yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                    let key = SectionKey::app(&release.environment, &release.app);
                    if live_release(&lock(&shared.records).run(&key)) != Some(release.number)
                        || shared.shutdown.is_asked()
                    {
                        return;
                    }
                }
            });
        }
    }
}

/// Apps that run and stand in no record. A state that was lost knows none either, so they count for nothing only once
/// somebody raised the epoch, which says that this state is the truth.
fn unknown_apps(records: &Records, observed: &Observed) -> BTreeSet<SectionKey> {
    if records.cluster.epoch == Cluster::EPOCH_FIRST || records.members.is_empty() {
        return BTreeSet::new();
    }
    let seen = observed.servers.values().flatten().flat_map(|server| server.values());
    let apps = seen.map(|seen| SectionKey::app(&seen.labels.environment, &seen.labels.app));
    apps.filter(|key| !records.runs.contains_key(key)).collect()
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
