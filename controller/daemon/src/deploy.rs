//! Deploy: from a request to a recorded deployment. What follows is the loop's.

use std::collections::BTreeMap;
use std::time::Duration;

use appbase_core::v1::Route;
use appbase_core::{AppName, DeploymentId, EnvironmentName, ReleaseNumber, SectionKey, Version};
use controller_core::addresses::Range;
use controller_core::plan::is_kept;
use controller_core::resolve::{Resolved, resolve, same_content};
use controller_core::v1::api::DeployAnswer;
use controller_core::v1::state::{
    ChangeSet, Deployment, DeploymentKind, DeploymentOutcome, End, EndState, EventKind, OfEnvironment, Operation,
    ReleaseRecord, Run, Timer,
};
use kit::problem::Problem;

use crate::journal::About;
use crate::records::{Records, Write, lock};
use crate::repository::{Pushed, VERSION_EXISTS};
use crate::run::Shared;
use crate::store::StoreError;
use crate::views;

/// A superseded deployment ends within this time, or the request is answered 409.
const SUPERSEDE_WAIT: Duration = Duration::from_secs(20);
/// A release is resolved again when what it was made of changed meanwhile, at most this often.
const ATTEMPTS_MAX: usize = 4;

/// Numbers that are tried for a new release: a deployment that was refused in the end, or a state that was put back, may
/// have left documents of these numbers in the repository.
const NUMBERS_MAX: u64 = 256;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub environment: EnvironmentName,
    pub app: AppName,
    pub target: Target,
    pub kind: DeploymentKind,
    /// Who asked for it.
    pub author: String,
    pub supersede: bool,
    /// It ends before the flip, with everything up.
    pub stage: bool,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A pushed version, with the values of now.
    Version(Version),
    /// A release as it was.
    Release(ReleaseNumber),
    /// The one that is staged.
    Staged,
}

impl Wanted {
    fn key(&self) -> SectionKey {
        SectionKey::app(&self.environment, &self.app)
    }
}

/// What a deployment will run, and whether its record is new.
struct Chosen {
    record: ReleaseRecord,
    is_new: bool,
}

pub(crate) async fn deploy(shared: &Shared, wanted: Wanted) -> Result<DeployAnswer, Problem> {
    if let Some(answer) = repeated(shared, &wanted) {
        return Ok(answer);
    }
    if let Some(reason) = shared.is_older() {
        return Err(StoreError::Older { reason }.into());
    }
    for _ in 0..ATTEMPTS_MAX {
        let chosen = choose(shared, &wanted).await?;
        make_room(shared, &wanted, &chosen).await?;
        if let Some(answer) = record(shared, &wanted, chosen).await? {
            shared.look_again.notify_one();
            return Ok(answer);
        }
    }
    Err(Problem::new(409, "changing", format!("{} is being changed by others right now", wanted.app)).hint("try again"))
}

/// The same request once more gets the same answer.
fn repeated(shared: &Shared, wanted: &Wanted) -> Option<DeployAnswer> {
    let key = wanted.idempotency_key.as_ref()?;
    let records = lock(&shared.records);
    let history = records.history(&wanted.key());
    let known = history.into_iter().find(|deployment| deployment.idempotency_key.as_ref() == Some(key))?;
    Some(answer(shared, &records, known, "joined"))
}

async fn choose(shared: &Shared, wanted: &Wanted) -> Result<Chosen, Problem> {
    let staged = match wanted.target {
        Target::Staged => {
            Some(lock(&shared.records).run(&wanted.key()).staged.ok_or_else(|| nothing_staged(&wanted.app))?)
        }
        _ => None,
    };
    let target = staged.map_or_else(|| wanted.target.clone(), Target::Release);
    match &target {
        Target::Staged => Err(nothing_staged(&wanted.app)),
        Target::Release(number) => {
            let records = lock(&shared.records);
            let known = records.releases.get(&wanted.key()).and_then(|releases| releases.get(number));
            let record = known.cloned().ok_or_else(|| {
                Problem::new(
                    404,
                    "unknown-release",
                    format!("{} has no release {number} in {}", wanted.app, wanted.environment),
                )
                .hint(format!("see which there are: platformctl history {}", wanted.app))
            })?;
            Ok(Chosen { record, is_new: false })
        }
        Target::Version(version) => {
            let pushed = shared.repository.version(&wanted.app, version).await?;
            make_release(shared, wanted, pushed).await
        }
    }
}

/// Resolves all values into a release; one with equal content is the same release.
async fn make_release(shared: &Shared, wanted: &Wanted, pushed: Pushed) -> Result<Chosen, Problem> {
    let (resolved, known, overlay) = {
        let records = lock(&shared.records);
        let overlay = records.desired_app(&wanted.environment, &wanted.app);
        let number = records.run(&wanted.key()).releases_made + 1;
        let resolved =
            resolve(&pushed.document, &wanted.environment, &overlay, number, &shared.defaults).map_err(|error| {
                Problem::new(422, "bad-app-file", "this version cannot be deployed").detail(error.to_string())
            })?;
        let same = |record: &&ReleaseRecord| same_content(&record.release, &resolved.release);
        let known = records.releases.get(&wanted.key()).and_then(|releases| releases.values().find(same)).cloned();
        (resolved, known, overlay)
    };
    if let Some(record) = known {
        return Ok(Chosen { record, is_new: false });
    }
    let overlay = OfEnvironment { values: overlay.values.into_keys().collect(), routes: overlay.routes };
    let Resolved { mut release, scale } = resolved;
    let last = release.number + NUMBERS_MAX;
    let document = loop {
        match shared.repository.pin(&release, &pushed.layers).await {
            Err(problem) if problem.code == VERSION_EXISTS && release.number < last => release.number += 1,
            outcome => break outcome?,
        }
    };
    Ok(Chosen {
        record: ReleaseRecord { document, release, scale, made_unix_ms: shared.clock.unix_ms(), overlay },
        is_new: true,
    })
}

/// With `supersede` a running deployment of another release is ended first, while its traffic has not moved.
async fn make_room(shared: &Shared, wanted: &Wanted, chosen: &Chosen) -> Result<(), Problem> {
    if !wanted.supersede {
        return Ok(());
    }
    let release = chosen.record.release.number;
    let running = lock(&shared.records).running(&wanted.key()).filter(|running| running.release != release).cloned();
    let Some(running) = running else { return Ok(()) };
    cancel(shared, &running.id).await?;
    let key = wanted.key();
    shared.until(SUPERSEDE_WAIT, |records| records.running(&key).is_none()).await.ok_or_else(|| busy(&running))
}

pub(crate) fn busy(running: &Deployment) -> Problem {
    let hint = match running.flipped_unix_ms {
        None => format!("wait for it, or end it: platformctl cancel {}", running.id),
        Some(_) => format!(
            "its traffic has moved and the old instances drain: platformctl follow {}, or go back: platformctl rollback {}",
            running.id, running.app
        ),
    };
    Problem::new(409, "deployment-running", format!("{} {} is being deployed already", running.app, running.version))
        .detail(format!("deployment {}", running.id))
        .hint(hint)
}

pub(crate) fn staged(app: &AppName) -> Problem {
    Problem::new(409, "staged", format!("another version of {app} is staged"))
        .hint(format!("make it live: platformctl activate {app}, or give it up: platformctl cancel {app}"))
}

pub(crate) fn nothing_staged(app: &AppName) -> Problem {
    Problem::new(409, "nothing-staged", format!("nothing of {app} is staged"))
        .hint(format!("stage a version: platformctl deploy {app} VERSION --stage"))
}

/// Gives the staged release up; what of it runs drains and ends.
pub(crate) async fn unstage(shared: &Shared, key: &SectionKey, app: &AppName) -> Result<(), Problem> {
    let _pen = shared.pen.lock().await;
    let mut run = {
        let records = lock(&shared.records);
        if let Some(running) = records.running(key) {
            return Err(busy(running));
        }
        records.run(key)
    };
    if run.staged.take().is_none() {
        return Err(nothing_staged(app));
    }
    shared.commit(vec![Write::Run(key.clone(), run)]).await?;
    shared.look_again.notify_one();
    Ok(())
}

fn no_network(environment: &EnvironmentName) -> Problem {
    let title = format!("there is no network left for {environment}");
    Problem::new(422, "no-network", title)
        .detail(format!("on Docker a cluster has at most {} environments", Range::NETWORKS_MAX))
        .hint("use one of those that exist: platformctl status")
}

/// Writes change set, release, deployment and run together. None: what it stood on changed, choose again.
async fn record(shared: &Shared, wanted: &Wanted, chosen: Chosen) -> Result<Option<DeployAnswer>, Problem> {
    let _pen = shared.pen.lock().await;
    let (key, number, version) = (wanted.key(), chosen.record.release.number, chosen.record.release.version.clone());
    if let Some(answer) = repeated(shared, wanted) {
        return Ok(Some(answer));
    }
    let forgiven = {
        let records = lock(&shared.records);
        let mut run = records.run(&key);
        let is_live = run.deployment.is_none() && controller_core::render::live_release(&run) == Some(number);
        (is_live && run.aborted.take().is_some()).then_some(run)
    };
    if let Some(run) = forgiven {
        // Whoever asks for what is live no longer wants what was aborted.
        shared.commit(vec![Write::Run(key.clone(), run)]).await?;
    }
    let mut left = None;
    let mut writes = {
        let records = lock(&shared.records);
        if let Some(running) = records.running(&key) {
            if running.release == number && running.stage == wanted.stage {
                return Ok(Some(answer(shared, &records, running, "joined")));
            }
            if wanted.stage || !is_way_back(&records.run(&key), running, number) {
                return Err(busy(running));
            }
            left = Some(running.clone());
        }
        let mut run = records.run(&key);
        if controller_core::render::live_release(&run) == Some(number) {
            let outcome = "already-live".to_owned();
            return Ok(Some(DeployAnswer { deployment: None, outcome, release: number, version }));
        }
        if chosen.is_new && number <= run.releases_made {
            return Ok(None);
        }
        if wanted.kind == DeploymentKind::Activate && run.staged != Some(number) {
            return Err(nothing_staged(&wanted.app));
        }
        // The way back is open at all times; everything else would throw away what somebody put there.
        let throws_away = run.staged.is_some_and(|staged| staged != number) && wanted.kind != DeploymentKind::Rollback;
        if throws_away && !wanted.stage && !wanted.supersede {
            return Err(staged(&wanted.app));
        }
        if wanted.stage && run.staged == Some(number) {
            let outcome = "already-staged".to_owned();
            return Ok(Some(DeployAnswer { deployment: None, outcome, release: number, version }));
        }
        if wanted.stage && run.live.is_none() {
            let title = format!("nothing of {} is live in {} yet", wanted.app, wanted.environment);
            return Err(Problem::new(409, "nothing-live", title).hint("the first version is deployed without --stage"));
        }
        refuse_conflicts(&records, &key, &chosen)?;
        refuse_unsound(shared, &records, &key, &chosen)?;
        run.releases_made = run.releases_made.max(number);
        let deployment = new_deployment(shared, &records, wanted, &chosen);
        run.deployment = Some(deployment.id.clone());
        let change = change_set(shared, &records, wanted, &version);
        let desired =
            records.desired.apply(&change).map_err(|error| Problem::new(422, error.code, error.to_string()))?;
        let mut writes =
            vec![Write::Change(change, desired), Write::Run(key.clone(), run), Write::Deployment(Box::new(deployment))];
        if shared.compute.engine() == "docker" && !records.networks.contains_key(&wanted.environment) {
            let number = records.free_network().ok_or_else(|| no_network(&wanted.environment))?;
            writes.push(Write::Network(wanted.environment.clone(), number));
        }
        if chosen.is_new {
            writes.push(Write::Release(key.clone(), Box::new(chosen.record.clone())));
        }
        writes
    };
    let started = writes.iter().find_map(|write| match write {
        Write::Deployment(deployment) => Some(deployment.as_ref().clone()),
        _ => None,
    });
    let started = started.expect("it was put there above");
    let ended = left.map(|running| {
        let (ended, outcome) = end_by_going_back(shared, &key, running);
        writes.push(Write::Outcome(ended.id.clone(), outcome));
        writes.push(Write::Deployment(Box::new(ended.clone())));
        ended
    });
    shared.commit(writes).await?;
    shared.baseline(&started.id, &key);
    if let Some(deployment) = &ended {
        shared.forget_baseline(&deployment.id);
        let reason = deployment.end.as_ref().and_then(|end| end.reason.clone()).unwrap_or_default();
        let text = format!("{} (release {}) done: {reason}", deployment.version, deployment.release);
        shared.journal.write(shared.clock.unix_ms(), &About::of(deployment), EventKind::DeploymentDone, &text);
    }
    let about = About::of(&started);
    let from = started.from.as_ref().map_or_else(String::new, |(_, version)| format!("{version} → "));
    let text = format!("{} {from}{version} (release {number})", started.app);
    shared.journal.write(shared.clock.unix_ms(), &about, EventKind::DeploymentStarted, &text);
    let records = lock(&shared.records);
    Ok(Some(answer(shared, &records, &started, "started")))
}

/// Whether traffic has moved and the release it came from still runs: then nobody has to wait until that has drained.
fn is_way_back(run: &Run, running: &Deployment, wanted: ReleaseNumber) -> bool {
    let kept = run.instances.values().any(|i| i.release == wanted && is_kept(i.state));
    kept && running.flipped_unix_ms.is_some()
}

fn end_by_going_back(shared: &Shared, key: &SectionKey, running: Deployment) -> (Deployment, DeploymentOutcome) {
    let (requests, failed) = shared.since_baseline(&running.id, key);
    let reason = "traffic goes back before the old instances have drained".to_owned();
    let end = End { state: EndState::Done, unix_ms: shared.clock.unix_ms(), reason: Some(reason) };
    let outcome = DeploymentOutcome { requests, failed, ..DeploymentOutcome::default() };
    (Deployment { end: Some(end), ..running }, outcome)
}

fn refuse_conflicts(records: &Records, key: &SectionKey, chosen: &Chosen) -> Result<(), Problem> {
    let Some((other, route)) = records.route_conflict(key, &chosen.record.release.traffic.routes) else {
        return Ok(());
    };
    Err(route_taken_by_deploy(&other, &route, &chosen.record.release.app))
}

fn route_taken_by_deploy(other: &SectionKey, route: &Route, app: &AppName) -> Problem {
    let pairs = |flag: &str, pairs: &BTreeMap<String, String>| -> String {
        pairs.iter().map(|(name, pattern)| format!(" --{flag} '{name}={pattern}'")).collect()
    };
    let mut words = format!("'{}{}'", route.host.as_deref().unwrap_or("*"), route.path);
    words.push_str(if route.exact { " --exact" } else { "" });
    words.extend(route.methods.iter().map(|method| format!(" --method {method}")));
    words.push_str(&pairs("header", &route.headers));
    words.push_str(&pairs("query", &route.query));
    route_taken(other, route).hint(format!(
        "give one of the two another host or path in its platform.toml, or take it back: platformctl route rm {app} {words}"
    ))
}

pub(crate) fn route_taken(other: &SectionKey, route: &Route) -> Problem {
    let what = route.wants();
    let everywhere = what.strip_prefix('*').filter(|_| route.host.is_none());
    let what = everywhere.map_or_else(|| what.clone(), |path| format!("every host at {path}"));
    Problem::new(409, "route-taken", format!("requests for {what} belong to {other} already"))
}

/// What members would refuse never becomes a table: neither beside what is live now nor beside what will be.
fn refuse_unsound(shared: &Shared, records: &Records, key: &SectionKey, chosen: &Chosen) -> Result<(), Problem> {
    let release_of = |other: &SectionKey, number: ReleaseNumber| records.releases.get(other)?.get(&number);
    let live = |other: &SectionKey| {
        release_of(other, records.runs.get(other).and_then(controller_core::render::live_release)?)
    };
    let coming = |other: &SectionKey| records.running(other).and_then(|running| release_of(other, running.release));
    for soon in [false, true] {
        let others = records.runs.keys().filter(|other| *other != key);
        let others = others.filter_map(|other| {
            let record = if soon { coming(other).or_else(|| live(other)) } else { live(other) };
            record.map(|record| (other, record))
        });
        let all = others.chain([(key, &chosen.record)]);
        let platform = crate::names::platform(&shared.config, &records.networks);
        let platform = dns_core::v1::NameSection::Platform(platform);
        if let Some(reason) = controller_core::admit::refusal(platform, all, &shared.config.server) {
            return Err(Problem::new(422, "unsound", "lbs or dns servers would refuse this version")
                .detail(reason)
                .hint("change platform.toml, or take the route away that was added here: platformctl route rm"));
        }
    }
    Ok(())
}

fn new_deployment(shared: &Shared, records: &Records, wanted: &Wanted, chosen: &Chosen) -> Deployment {
    let key = wanted.key();
    let release = &chosen.record.release;
    let live = records.runs.get(&key).and_then(controller_core::render::live_release);
    let live = live.and_then(|live| records.releases.get(&key)?.get(&live));
    Deployment {
        id: DeploymentId::parse(&format!("d-{}", kit::random::hex::<5>())).expect("hex digits are a name"),
        environment: wanted.environment.clone(),
        app: wanted.app.clone(),
        kind: wanted.kind,
        release: release.number,
        version: release.version.clone(),
        from: live.map(|record| (record.release.number, record.release.version.clone())),
        started_unix_ms: shared.clock.unix_ms(),
        deadline: Timer::start(shared.now(), release.traffic.policy.probe_deadline_ms),
        cancel: false,
        stage: wanted.stage,
        flipped_unix_ms: None,
        flip: None,
        drain_deadline: None,
        end: None,
        idempotency_key: wanted.idempotency_key.clone(),
    }
}

fn change_set(shared: &Shared, records: &Records, wanted: &Wanted, version: &Version) -> ChangeSet {
    let params = serde_json::json!({ "environment": wanted.environment, "app": wanted.app, "version": version });
    let operation =
        |command: &str, params| Operation { id: String::new(), group: "app".into(), command: command.into(), params };
    let mut operations = vec![operation("version", params)];
    if wanted.stage {
        // What was for a release that was staged before is not for this one.
        let nothing = serde_json::json!({ "environment": wanted.environment, "app": wanted.app, "release": 0 });
        operations.push(operation("split", nothing));
    }
    ChangeSet { number: records.head + 1, unix_ms: shared.clock.unix_ms(), author: wanted.author.clone(), operations }
}

fn answer(shared: &Shared, records: &Records, deployment: &Deployment, outcome: &str) -> DeployAnswer {
    DeployAnswer {
        deployment: Some(views::deployment(shared, records, deployment)),
        outcome: outcome.to_owned(),
        release: deployment.release,
        version: deployment.version.clone(),
    }
}

/// The release that `rollback` goes to: the one that is kept warm, else the last one that was live before.
pub(crate) fn rollback_target(records: &Records, key: &SectionKey) -> Option<ReleaseNumber> {
    let run = records.runs.get(key)?;
    let live = controller_core::render::live_release(run)?;
    let kept = run.instances.values().find(|i| i.release != live && is_kept(i.state)).map(|i| i.release);
    let was_live = |deployment: &&&Deployment| deployment.flipped_unix_ms.is_some() && deployment.release != live;
    kept.or_else(|| records.history(key).iter().find(was_live).map(|deployment| deployment.release))
}

/// Asks the loop to end a deployment before its traffic moves.
pub(crate) async fn cancel(shared: &Shared, id: &DeploymentId) -> Result<(), Problem> {
    let _pen = shared.pen.lock().await;
    let deployment = lock(&shared.records).deployments.get(id).cloned();
    let mut deployment =
        deployment.ok_or_else(|| Problem::new(404, "unknown-deployment", format!("there is no deployment {id}")))?;
    if let Some(end) = &deployment.end {
        return Err(Problem::new(409, "deployment-ended", format!("deployment {id} is over: {}", end.state)));
    }
    if deployment.flipped_unix_ms.is_some() {
        return Err(Problem::new(
            409,
            "traffic-moved",
            format!("{} {} takes the traffic already", deployment.app, deployment.version),
        )
        .hint(format!("go back: platformctl rollback {}", deployment.app)));
    }
    deployment.cancel = true;
    shared.commit(vec![Write::Deployment(Box::new(deployment))]).await?;
    shared.look_again.notify_one();
    Ok(())
}
