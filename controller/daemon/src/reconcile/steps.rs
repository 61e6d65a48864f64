//! Steps: which are under way, which failed and when they may be tried again. Decides nothing but the order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::Source;
use appbase_core::{InstanceId, SectionKey};
use controller_core::plan::Step;
use controller_core::v1::state::EventKind;
use kit::problem::chain;
use tokio::sync::mpsc;

use super::{RETRY_FIRST, RETRY_MAX};
use crate::execute::execute;
use crate::journal::About;
use crate::records::{Records, lock};
use crate::run::Shared;

/// Steps at once: more would only queue in the engine.
const STEPS_MAX: usize = 8;
/// Stops at once, beside the others: each only waits for an app, as long as the app may take.
const STOPS_MAX: usize = 64;

pub(super) struct Steps {
    shared: Arc<Shared>,
    tasks: kit::Tasks,
    /// Instances with a step under way.
    in_flight: BTreeMap<InstanceId, InFlight>,
    /// Images that the engine was seen to have: of any other one instance at a time asks, and the rest wait without
    /// taking the places of other apps.
    loaded: BTreeSet<String>,
    failed: BTreeMap<InstanceId, Failed>,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
}

struct InFlight {
    is_stop: bool,
    /// What a new instance runs, when that is an image.
    image: Option<String>,
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

impl Steps {
    pub(super) fn new(shared: Arc<Shared>, tasks: kit::Tasks) -> Self {
        Self {
            shared,
            tasks,
            in_flight: BTreeMap::new(),
            loaded: BTreeSet::new(),
            failed: BTreeMap::new(),
            ended: mpsc::channel(64),
        }
    }

    /// Waits until one has ended. May be cancelled.
    pub(super) async fn one_ended(&mut self) {
        if let Some(ended) = self.ended.1.recv().await {
            self.take(ended);
        }
    }

    /// Takes those that have ended meanwhile.
    pub(super) fn take_ended(&mut self) {
        while let Ok(ended) = self.ended.1.try_recv() {
            self.take(ended);
        }
    }

    /// Forgets failures of instances that are no more.
    pub(super) fn keep(&mut self, is_known: impl Fn(&InstanceId) -> bool) {
        self.failed.retain(|id, _| is_known(id));
    }

    /// Why the last step for an instance failed.
    pub(super) fn errors(&self) -> BTreeMap<InstanceId, String> {
        self.failed.iter().map(|(id, failed)| (id.clone(), failed.error.clone())).collect()
    }

    /// Starts a step unless one is under way for its instance, or its last try failed just now; answers when to retry.
    pub(super) fn start(&mut self, step: Step) -> Option<Duration> {
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

    fn take(&mut self, ended: Ended) {
        let image = self.in_flight.remove(&ended.instance).and_then(|step| step.image);
        if ended.error.is_none() {
            self.loaded.extend(image);
        }
        let Some(error) = ended.error else {
            self.failed.remove(&ended.instance);
            if let Some(started) = ended.started {
                let about = about_instance(&lock(&self.shared.records), &ended.instance);
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
            let about = about_instance(&lock(&self.shared.records), &ended.instance);
            self.shared.journal.write(self.shared.clock.unix_ms(), &about, EventKind::StepFailed, &text);
        }
    }
}

/// Whose instance it is, and of which running deployment.
pub(super) fn about_instance(records: &Records, id: &InstanceId) -> About {
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

fn image_of(step: &Step) -> Option<String> {
    match step {
        Step::Create(request) => match &request.source {
            Source::Image { image, .. } => Some(image.clone()),
            Source::Artifact { .. } => None,
        },
        Step::Start { .. } | Step::Stop { .. } | Step::Remove { .. } => None,
    }
}
