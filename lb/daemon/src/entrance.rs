//! Entrance: from a request's host and path to a place inside an instance's gate.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use appbase_core::v1::{Protocol, Tls};
use lb_core::guard::{self, Crossing};
use lb_core::http1::{BodyLength, Fields};
use lb_core::rule::{Ask, Rule};
use lb_core::v1::RouteSection;
use lb_core::{pick, preview};

use crate::balancer::Balancer;
use crate::choice::Choice;
use crate::hold::{Line, Place};
use crate::refusal::Refusal;
use crate::request::{RequestContext, Sizes};
use crate::snapshot::Snapshot;

/// How often a request may find a gate that closed this instant; each time costs a whole swap.
const REFUSED_ENTRIES_MAX: u32 = 16;

/// What of a request decides beside its host and path.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// Behind `?`, as it came.
    pub(crate) query: &'a str,
    pub(crate) fields: &'a Fields,
    pub(crate) body: BodyLength,
}

enum Step {
    Entered,
    /// The gate closed this instant.
    Closed,
    /// Until a later snapshot; with what to say when that takes too long.
    Wait(Arc<Line>, Option<Refusal>),
}

pub(crate) struct Entrance {
    balancer: Arc<Balancer>,
    seed: AtomicU64,
    /// Where clients find lb's TLS; none: there is none.
    https_port: Option<u16>,
}

impl Entrance {
    pub(crate) fn new(balancer: Arc<Balancer>, https_port: Option<u16>) -> Self {
        Self { balancer, https_port, seed: AtomicU64::new(u64::from_ne_bytes(kit::random::bytes())) }
    }

    /// A number for a choice; no secret.
    pub(crate) fn draw(&self) -> u64 {
        pick::Seeds(self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)).draw()
    }

    /// Finds, chooses and enters. On a closed gate the newer snapshot is already there.
    pub(crate) async fn enter(&self, ctx: &mut RequestContext, asked: &Asked<'_>) -> Result<(), Refusal> {
        let mut refused = 0;
        loop {
            // Not held over a wait: a guard is one of few.
            let (line, seen, refusal) = {
                let snapshot = self.balancer.snapshot.load();
                match self.decide(&snapshot, ctx, asked)? {
                    Step::Entered => return Ok(()),
                    Step::Closed => {
                        refused += 1;
                        if refused > REFUSED_ENTRIES_MAX {
                            let reason = "every instance chosen stopped taking requests at that moment";
                            return Err(Refusal::no_instance(reason));
                        }
                        continue;
                    }
                    Step::Wait(line, refusal) => (line, snapshot.version, refusal),
                }
            };
            let place = match ctx.place.take().filter(|place| place.is_in(&line)) {
                Some(place) => place,
                None => Place::take(&line, asked.fields.bytes())?,
            };
            let place = ctx.place.insert(place);
            place.wait(seen).await.map_err(|late| refusal.unwrap_or(late))?;
        }
    }

    /// Whether the connection is what the app asks for.
    fn proven(&self, ctx: &RequestContext, ask: &Ask<'_>, section: &RouteSection) -> Result<(), Refusal> {
        let Tls { policy, client_authorities, .. } = &section.tls;
        match &ctx.connection.tls {
            None => {
                if let (true, Some(port)) = (policy.redirect, self.https_port) {
                    let nowhere = || Refusal::host("it has no host, and is sent to https on it");
                    return Err(ask.host.map_or_else(nowhere, |host| Refusal::to_https(host, port, ask)));
                }
                if client_authorities.is_some() { Err(Refusal::no_client_certificate()) } else { Ok(()) }
            }
            // It was made under another name, or before somebody had to show a certificate.
            Some(tls) if client_authorities.is_some() && tls.shown.client_authorities != *client_authorities => {
                Err(Refusal::misdirected())
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether the route lets the request through, and what of both bodies. It counts once, however often it waits or is
    /// sent again.
    fn guarded(&self, client: IpAddr, is_counted: &mut bool, rule: &Rule, asked: &Asked<'_>) -> Result<Sizes, Refusal> {
        let guard = &rule.route.guard;
        if guard.is_empty() {
            return Ok(Sizes::default());
        }
        guard::check(guard, client, asked.body).map_err(|denied| Refusal::denied(&denied))?;
        if let Some(cors) = &guard.cors
            && let crossing @ Crossing::Preflight(_) = guard::crossing(cors, asked.method, asked.fields)
        {
            let mut lines = Vec::new();
            guard::cors_lines(cors, &crossing, |name, value| lines.push((name.to_owned(), value.to_owned())));
            return Err(Refusal::preflight(lines));
        }
        if let (Some(rate), false) = (&guard.rate, std::mem::replace(is_counted, true)) {
            let now = self.balancer.clock.elapsed();
            self.balancer.rates.pass(rule.id, rate, client, now).map_err(Refusal::too_many)?;
        }
        Ok(Sizes { request_max: guard.request_bytes_max, response_max: guard.response_bytes_max })
    }

    fn decide(&self, snapshot: &Snapshot, ctx: &mut RequestContext, asked: &Asked<'_>) -> Result<Step, Refusal> {
        let table = snapshot.table.as_ref().ok_or_else(Refusal::no_table)?;
        let Asked { method, query, fields, .. } = *asked;
        let ask = Ask { host: ctx.host.as_deref(), path: &ctx.path, method, query, fields };
        // Before all that an app wants of requests: who asks cannot do better, and the app is not asked.
        if let ("GET" | "HEAD", Some(answer)) = (method, table.challenge(ask.host, ask.path)) {
            return Err(Refusal::challenge(answer));
        }
        let (rule, preview) = preview::find(table, &ask).ok_or_else(Refusal::no_route)?;
        let section = &rule.section.published;
        let Some(targets) = snapshot.section(&rule.section.key) else { return Err(Refusal::no_route()) };
        let redirect = rule.route.redirect.as_ref();
        let redirect = redirect.map(|redirect| match rule.location(redirect, &ask) {
            Some(location) => Refusal::redirect(redirect.status, location, rule),
            None => Refusal::host("it has no host, and is sent to another place on it"),
        });
        // What somebody tries out says nothing of how users fare.
        ctx.counters = targets.live.clone().filter(|_| preview.is_none());
        ctx.notice.clone_from(&rule.section.notice);
        ctx.marks.preview = preview.is_some();
        ctx.marks.https_for_s = ctx.connection.tls.as_ref().map_or(0, |_| section.tls.policy.hsts_seconds);
        if let Some(account) = &mut ctx.account {
            account.rule = Some(Arc::clone(rule));
        }
        ctx.rule = rule.changes_messages().then(|| Arc::clone(rule));
        self.proven(ctx, &ask, section)?;
        ctx.sizes = self.guarded(ctx.connection.client, &mut ctx.is_counted, rule, asked)?;
        if let Some(redirect) = redirect {
            return Err(redirect);
        }
        if let Some(text) = section.maintenance.as_ref().filter(|_| preview.is_none()) {
            return Err(Refusal::maintenance(text));
        }
        if section.hold && preview.is_none() {
            return Ok(Step::Wait(Arc::clone(&targets.line), None));
        }
        let choice = Choice { balancer: &self.balancer, ctx, rule, ask: &ask, preview, seed: self.draw() };
        let (target, marks) = match choice.make(targets) {
            Ok(chosen) => chosen,
            // A table that came late may name only instances this lb has never asked.
            Err(refusal) if targets.process(rule.process()).is_some_and(|process| process.undecided) => {
                return Ok(Step::Wait(Arc::clone(&targets.line), Some(refusal)));
            }
            Err(refusal) => return Err(refusal),
        };
        // Another connection to the same instance is no second try.
        let charged = ctx.tried.len();
        if charged > ctx.charged && preview.is_none() && !targets.retries.withdraw(self.balancer.clock.elapsed()) {
            self.balancer.edge.retries_denied.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::no_instance("the app's requests were sent again too often of late"));
        }
        let copy = choice
            .mirror(targets, target)
            // A copy is written as HTTP/1.1.
            .filter(|target| target.protocol == Protocol::Http1)
            .map(|target| (Arc::clone(&target.backend), Arc::clone(&target.counters)));
        ctx.counters = preview.is_none().then(|| Arc::clone(&target.counters));
        (ctx.marks, ctx.copy, ctx.charged) = (marks, copy, charged);
        ctx.protocol = target.protocol;
        if let Some(account) = &mut ctx.account {
            account.instance = Some((Arc::clone(&target.backend), target.release));
        }
        ctx.entry = target.backend.enter(&ctx.connection, ctx.number);
        if ctx.entry.is_some() && ctx.attempts == 0 && preview.is_none() {
            targets.retries.requests.fetch_add(1, Ordering::Relaxed);
        }
        Ok(if ctx.entry.is_some() { Step::Entered } else { Step::Closed })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicBool;

    use appbase_core::v1::{Probe, Route};
    use appbase_core::{AppName, EnvironmentName, InstanceId, ProcessName, SectionKey};
    use kit::{Shutdown, Tasks};
    use lb_core::Table;
    use lb_core::v1::{Drain, InstanceState, Pool, PoolInstance};

    use super::*;
    use crate::certificates::Certificates;
    use crate::connection::Connection;

    /// Two instances that accept and never answer; their probes decide nothing in the time of a test.
    fn table(address: std::net::SocketAddr, states: [InstanceState; 2]) -> Table {
        let web = ProcessName::default_name();
        let probe = Probe { timeout_ms: 600_000, ..Probe::default() };
        let pool = |(name, state): (&str, InstanceState)| Pool {
            weight: u32::from(state == InstanceState::Active),
            probes: BTreeMap::from([(web.clone(), probe.clone())]),
            instances: BTreeMap::from([(
                InstanceId::parse(name).expect("a name"),
                PoolInstance { process: web.clone(), address, state },
            )]),
            ..Pool::default()
        };
        let section = RouteSection {
            environment: EnvironmentName::default_name(),
            app: AppName::parse("hello").expect("a name"),
            live: Some(1),
            routes: vec![Route::new(None, "/", web.clone())],
            pools: (1..).zip(["blue", "green"].into_iter().zip(states).map(pool)).collect(),
            hold: false,
            maintenance: None,
            drain: Drain { requests_ms: 0, streams_ms: 0 },
            cohorts: Vec::new(),
            preview: None,
            mirror: None,
            notice: None,
            tls: Tls::default(),
        };
        let key = SectionKey::app(&section.environment, &section.app);
        Table::new(&BTreeMap::from([(key, section)])).expect("a sound table")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn swaps_refuse_nobody_and_let_nobody_in_late() {
        use InstanceState::{Active, Draining};
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let balancer = Balancer::new(&tasks, &shutdown);
        balancer.put(table(address, [Active, Active]), Certificates::default(), false);
        for backend in balancer.all_backends() {
            backend.judgement().machine.passed(&Probe::default(), std::time::Duration::ZERO);
        }
        balancer.health_changed();

        let stop = Arc::new(AtomicBool::new(false));
        let enterers: Vec<_> = (0..3)
            .map(|_| {
                let (balancer, stop) = (Arc::clone(&balancer), Arc::clone(&stop));
                tasks.spawn("enter", async move {
                    let entrance = Entrance::new(Arc::clone(&balancer), None);
                    let fields = Fields::default();
                    let asked = Asked { method: "GET", query: "", fields: &fields, body: BodyLength::None };
                    let mut entered = 0u64;
                    while !stop.load(Ordering::SeqCst) {
                        let mut ctx =
                            RequestContext::new(&Connection::new(Ipv4Addr::LOCALHOST.into(), None), &balancer);
                        ctx.path = "/".to_owned();
                        entrance.enter(&mut ctx, &asked).await.expect("one of both is always active");
                        entered += 1;
                        if entered.is_multiple_of(64) {
                            tokio::task::yield_now().await;
                        }
                    }
                    entered
                })
            })
            .collect();
        for flip in 0..3_000 {
            let states = if flip % 2 == 0 { [Active, Draining] } else { [Draining, Active] };
            balancer.put(table(address, states), Certificates::default(), false);
            let closed = InstanceId::parse(if flip % 2 == 0 { "green" } else { "blue" }).expect("a name");
            let backend = balancer.backends.get(&closed).map(|backend| Arc::clone(&backend)).expect("known");
            // Whoever was inside at the close leaves; a refused one is counted only for a moment.
            let limit = balancer.clock.elapsed() + std::time::Duration::from_secs(10);
            while !backend.is_empty() {
                assert!(balancer.clock.elapsed() < limit, "flip {flip}: still let in after the close");
                std::hint::spin_loop();
            }
            for _ in 0..50 {
                assert_eq!(backend.inside_count(), 0, "flip {flip}: let in after the close");
            }
        }
        stop.store(true, Ordering::SeqCst);
        for enterer in enterers {
            assert!(enterer.await.expect("joined").expect("no panic") > 0);
        }
        shutdown.ask();
    }
}
