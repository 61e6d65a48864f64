//! The loop: look, think, note, publish, do, look again. One task owns it; it never fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::Source;
use appbase_core::{InstanceId, SectionKey};
use controller_core::addresses::Addresses;
use controller_core::observed::Observed;
use controller_core::plan::{Setting, Slice, SlicePlan, Step, exit_text, plan_slice};
use controller_core::render::live_release;
use controller_core::time::Now;
use controller_core::v1::api::FailureView;
use controller_core::v1::compute::ObservedInstance;
use controller_core::v1::state::{Cluster, Deployment, DeploymentOutcome, EventKind, Run};
use futures_util::StreamExt;
use futures_util::future::join_all;
use kit::problem::chain;
use node::LogRequest;
use tokio::sync::mpsc;

use crate::execute::execute;
use crate::journal::About;
use crate::points::Decided;
use crate::records::{Records, Write, lock};
use crate::run::Shared;
use crate::tables::Rendered;

/// Without any hint everything is looked at again after this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Between two passes: what comes after the first of several hints is answered together.
const GATHER: Duration = Duration::from_millis(5);
/// Steps at once: more would only queue in the engine.
const STEPS_MAX: usize = 8;
/// Stops at once, beside the others: each only waits for an app, as long as the app may take.
const STOPS_MAX: usize = 64;
/// A step that failed is tried again after this time, doubled each time up to the limit.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Of a failed instance: so many last log lines, and no longer wait for them.
const LOG_LINES: usize = 12;
const LOG_WAIT: Duration = Duration::from_secs(2);
/// Of so many failed instances at the most.
const FAILURES_MAX: usize = 4;
/// After a start, members are listened to for so long before anything is decided: one may have a newer table than this
/// state knows of. Longer than a member takes to notice that the controller answers again.
const HEAR_MAX: Duration = Duration::from_secs(3);
const HEAR_LOOK: Duration = Duration::from_millis(50);
/// Looking at an engine takes no longer than this, or it is a gap.
const OBSERVE_MAX: Duration = Duration::from_secs(20);

struct InFlight {
    is_stop: bool,
    /// What a new instance runs, when that is an image.
    image: Option<String>,
}

pub(crate) struct Reconcile {
    pub shared: Arc<Shared>,
    pub setting: Setting,
    pub addresses: Addresses,
    pub tasks: kit::Tasks,
    /// Instances with a step under way.
    in_flight: BTreeMap<InstanceId, InFlight>,
    /// Images that the engine was seen to have: of any other one instance at a time asks, and the rest wait without
    /// taking the places of other apps.
    loaded: BTreeSet<String>,
    /// As they were last seen.
    restarts: BTreeMap<InstanceId, u32>,
    failed: BTreeMap<InstanceId, Failed>,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    /// The live release whose tag stands in the repository.
    marked_live: BTreeMap<SectionKey, u64>,
    /// Why nothing is decided, while it is so.
    held: Option<String>,
    /// On which ports of this machine something listened at the last look, if instances could get those.
    taken_ports: BTreeSet<u16>,
}

struct Failed {
    times: u32,
    until: Duration,
    error: String,
}

struct Ended {
    instance: InstanceId,
    /// What to say of an instance that runs now.
    started: Option<&'static str>,
    what: String,
    error: Option<String>,
}

impl Reconcile {
    pub(crate) fn new(shared: Arc<Shared>, setting: Setting, addresses: Addresses, tasks: kit::Tasks) -> Self {
        Self {
            shared,
            setting,
            addresses,
            tasks,
            in_flight: BTreeMap::new(),
            loaded: BTreeSet::new(),
            restarts: BTreeMap::new(),
            failed: BTreeMap::new(),
            ended: mpsc::channel(64),
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
                Some(ended) = self.ended.1.recv() => self.step_ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(rested.saturating_sub(self.shared.clock.elapsed())).await;
            while let Ok(ended) = self.ended.1.try_recv() {
                self.step_ended(ended);
            }
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
        if let Err(error) = self.publish().await {
            tracing::error!(%error, "tables not published");
            wake = earlier(wake, Some(now.elapsed + RETRY_FIRST));
        }
        decided.published();
        drop(pen);
        self.shared.show(observed, steps.iter().map(ToString::to_string).collect(), reports);
        self.mark_live();
        for step in steps {
            wake = earlier(wake, self.start(step));
        }
        wake
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
            self.failed.retain(|id, _| is_seen(id) || records.runs.values().any(|run| run.instances.contains_key(id)));
            shared.members.seen(&records.members, shared.now())
        };
        let failed_steps = self.failed.iter().map(|(id, failed)| (id.clone(), failed.error.clone())).collect();
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
            let about = self.about_instance(&lock(&self.shared.records), id);
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
            let routes = controller_core::render::route_section(environment, app, &desired, run, releases);
            let names = controller_core::render::name_section(environment, app, run, releases);
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
        writes.extend(plan.run.map(|run| Write::Run(key.clone(), run)));
        if let Some(deployment) = plan.deployment {
            if deployment.end.is_some() {
                let outcome = self.outcome(key, &deployment, observed).await;
                writes.push(Write::Outcome(deployment.id.clone(), outcome));
            }
            writes.push(Write::Deployment(Box::new(deployment)));
        }
        if !writes.is_empty() {
            self.shared.commit(writes).await?;
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

    /// What the deployment came to, gathered while its instances can still be asked.
    async fn outcome(&self, key: &SectionKey, deployment: &Deployment, observed: &Observed) -> DeploymentOutcome {
        let (requests, failed) = self.shared.since_baseline(&deployment.id, key);
        let run = lock(&self.shared.records).run(key);
        let reports = observed.members.values().filter_map(|member| member.status.as_ref());
        let old = |id: &InstanceId| run.instances.get(id).is_some_and(|i| i.release != deployment.release);
        let cut = reports.flat_map(|status| &status.instances).filter(|(id, _)| old(id)).map(|(_, r)| r.cut).sum();
        let mut failures = Vec::new();
        let failed_end = deployment.end.as_ref().is_some_and(|end| end.reason.is_some()) && !deployment.cancel;
        if failed_end {
            // Side by side: the pen is held meanwhile.
            let instances = run.instances.iter().filter(|(_, i)| i.release == deployment.release).take(FAILURES_MAX);
            failures = join_all(instances.map(|(id, instance)| self.failure(id, instance, observed))).await;
        }
        DeploymentOutcome { requests, failed, cut, failures }
    }

    async fn failure(
        &self,
        id: &InstanceId,
        instance: &controller_core::v1::state::InstanceRecord,
        observed: &Observed,
    ) -> FailureView {
        let probe = observed.members.values().find_map(|member| member.report(id)?.last_probe.clone());
        let seen = match observed.instance(&instance.server, id) {
            controller_core::observed::Seen::Present(seen) => Some(seen),
            _ => None,
        };
        FailureView {
            instance: id.clone(),
            probe,
            exit: seen.and_then(|seen| seen.last_exit.clone()),
            problem: seen.and_then(|seen| seen.problem.clone()),
            restarts: seen.map_or(0, |seen| seen.restarts),
            log: tokio::time::timeout(LOG_WAIT, self.log_tail(id)).await.unwrap_or_default(),
        }
    }

    async fn log_tail(&self, id: &InstanceId) -> Vec<String> {
        let request = LogRequest { tail: LOG_LINES, follow: false };
        let Ok(lines) = self.shared.compute.logs(id, request).await else { return Vec::new() };
        lines.filter_map(async |line| line.ok().map(|line| line.text)).take(LOG_LINES).collect().await
    }

    /// Renders both tables; what differs from what is out goes out with the revision of its record.
    async fn publish(&self) -> Result<(), crate::store::StoreError> {
        let (rendered, digests, known) = {
            let records = lock(&self.shared.records);
            let rendered = Rendered::of(&records, &self.shared.config);
            let digests = rendered.digests();
            let known = records.published == digests && records.published_number() > 0;
            (rendered, digests, known.then(|| records.published_number()))
        };
        let number = match known {
            Some(number) if self.shared.tables.generation().number == number => return Ok(()),
            Some(number) => number,
            None => self.shared.commit(vec![Write::Published(digests)]).await?,
        };
        self.shared.tables.put(rendered, number);
        Ok(())
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

    /// Starts a step unless one is under way for its instance, or its last try failed just now; answers when to retry.
    fn start(&mut self, step: Step) -> Option<Duration> {
        let instance = step.instance().clone();
        let now = self.shared.clock.elapsed();
        if let Some(failed) = self.failed.get(&instance).filter(|failed| failed.until > now) {
            return Some(failed.until);
        }
        let is_stop = matches!(step, Step::Stop { .. });
        let limit = if is_stop { STOPS_MAX } else { STEPS_MAX };
        let alike = self.in_flight.values().filter(|other| other.is_stop == is_stop).count();
        if alike >= limit || self.in_flight.contains_key(&instance) {
            return None;
        }
        let image = image_of(&step);
        let loads = |image: &String| self.in_flight.values().any(|other| other.image.as_ref() == Some(image));
        if image.as_ref().is_some_and(|image| !self.loaded.contains(image) && loads(image)) {
            return None;
        }
        self.in_flight.insert(instance.clone(), InFlight { is_stop, image });
        let started = match &step {
            Step::Create(_) => Some("is started"),
            Step::Start { .. } => Some("had ended and is started again"),
            Step::Stop { .. } | Step::Remove { .. } => None,
        };
        let (shared, ended, what) = (Arc::clone(&self.shared), self.ended.0.clone(), step.to_string());
        tracing::debug!(step = what, "step begins");
        let step = self.tasks.spawn("step", async move {
            execute(Arc::clone(&shared.compute), shared.repository.clone(), shared.signer.clone(), step).await
        });
        self.tasks.spawn("step-end", async move {
            // None: it panicked.
            let error = match step.await.ok().flatten() {
                Some(outcome) => outcome.err().map(|error| chain(&error)),
                None => Some("an error of the platform's own; see the controller's log".to_owned()),
            };
            // The loop is gone at shutdown: then nobody needs to know.
            let _ = ended.send(Ended { instance, started, what, error }).await;
        });
        None
    }

    fn step_ended(&mut self, ended: Ended) {
        let image = self.in_flight.remove(&ended.instance).and_then(|step| step.image);
        if ended.error.is_none() {
            self.loaded.extend(image);
        }
        let Some(error) = ended.error else {
            self.failed.remove(&ended.instance);
            if let Some(started) = ended.started {
                let about = self.about_instance(&lock(&self.shared.records), &ended.instance);
                let text = format!("{} {started}", ended.instance);
                self.shared.journal.write(self.shared.clock.unix_ms(), &about, EventKind::InstanceStarted, &text);
            }
            return;
        };
        let times = self.failed.get(&ended.instance).map_or(0, |failed| failed.times) + 1;
        let pause = RETRY_FIRST.saturating_mul(1 << times.min(6)).min(RETRY_MAX);
        let until = self.shared.clock.elapsed() + pause;
        self.failed.insert(ended.instance.clone(), Failed { times, until, error: error.clone() });
        if times == 1 {
            let text = format!("{}: {error}", ended.what);
            let about = self.about_instance(&lock(&self.shared.records), &ended.instance);
            self.shared.journal.write(self.shared.clock.unix_ms(), &about, EventKind::StepFailed, &text);
        }
    }

    fn about_instance(&self, records: &Records, id: &InstanceId) -> About {
        let key = records.runs.iter().find(|(_, run)| run.instances.contains_key(id)).map(|(key, _)| key);
        match key {
            Some(key @ SectionKey::App { environment, app }) => About {
                environment: Some(environment.clone()),
                app: Some(app.clone()),
                deployment: records.running(key).map(|deployment| deployment.id.clone()),
            },
            _ => About::default(),
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

fn image_of(step: &Step) -> Option<String> {
    match step {
        Step::Create(request) => match &request.source {
            Source::Image { image, .. } => Some(image.clone()),
            Source::Artifact { .. } => None,
        },
        Step::Start { .. } | Step::Stop { .. } | Step::Remove { .. } => None,
    }
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
