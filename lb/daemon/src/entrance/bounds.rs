//! Any table after any other, under requests that come in meanwhile: each goes where the one or the other says, and from
//! the swap's end on where the new one says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;

use appbase_core::v1::{Probe, Route};
use appbase_core::{AppName, EnvironmentName, InstanceId, ProcessName, SectionKey};
use futures_util::FutureExt;
use kit::{Shutdown, Tasks};
use lb_core::Table;
use lb_core::v1::{Drain, InstanceState, Pool, PoolInstance};
use proptest::prelude::*;

use super::*;
use crate::certificates::Certificates;
use crate::connection::Connection;

/// Of each of two releases: its weight, and its instances' states.
type Plan = [(u32, [InstanceState; 2]); 2];

const NAMES: [[&str; 2]; 2] = [["one-a", "one-b"], ["two-a", "two-b"]];

fn plan() -> impl Strategy<Value = Plan> {
    let state =
        || proptest::sample::select(vec![InstanceState::Active, InstanceState::Standby, InstanceState::Draining]);
    let release = || (proptest::sample::select(vec![0, 1, 50]), [state(), state()]);
    [release(), release()]
}

/// Whom the plan lets requests go to.
fn takers(plan: &Plan) -> BTreeSet<&'static str> {
    let of = |(names, (weight, states)): (&[&'static str; 2], &(u32, [InstanceState; 2]))| {
        let taking = names.iter().zip(states).filter(|(_, state)| *weight > 0 && **state == InstanceState::Active);
        taking.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    NAMES.iter().zip(plan).flat_map(of).collect()
}

fn table(plan: &Plan) -> Table {
    let web = ProcessName::default_name();
    // Nobody is there: what is up is said below, and no probe ends in the time of a test.
    let address = (Ipv4Addr::LOCALHOST, 9).into();
    let pool = |(names, (weight, states)): (&[&str; 2], &(u32, [InstanceState; 2]))| Pool {
        weight: *weight,
        probes: BTreeMap::from([(web.clone(), Probe { interval_ms: 3_600_000, fall: 1_000, ..Probe::default() })]),
        instances: names
            .iter()
            .zip(states)
            .map(|(name, state)| {
                let instance = PoolInstance { process: web.clone(), address, state: *state };
                (InstanceId::parse(name).expect("a name"), instance)
            })
            .collect(),
        ..Pool::default()
    };
    let section = RouteSection {
        environment: EnvironmentName::default_name(),
        app: AppName::parse("hello").expect("a name"),
        live: None,
        routes: vec![Route::new(None, "/", web.clone())],
        pools: (1..).zip(NAMES.iter().zip(plan).map(pool)).collect(),
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

/// Where one request goes now.
fn chosen(balancer: &Arc<Balancer>, entrance: &Entrance) -> Option<String> {
    let fields = Fields::default();
    let asked = Asked { method: "GET", target: "/", query: "", fields: &fields, body: BodyLength::None };
    let mut ctx = RequestContext::new(&Connection::new(Ipv4Addr::LOCALHOST.into(), None), balancer);
    ctx.path = "/".to_owned();
    entrance.enter(&mut ctx, &asked).now_or_never()?.ok()?;
    ctx.entry.as_ref().map(|entry| entry.backend().id.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_change_never_chooses_outside_of_old_and_new(plans in proptest::collection::vec(plan(), 2..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _entered = runtime.enter();
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let balancer = Balancer::new(&tasks, &shutdown);
        balancer.put(table(&plans[0]), Certificates::default(), false);
        for backend in balancer.all_backends() {
            backend.judgement().machine.passed(&Probe::default(), std::time::Duration::ZERO);
        }
        balancer.health_changed();
        for change in plans.windows(2) {
            let stop = AtomicBool::new(false);
            let meanwhile = std::thread::scope(|scope| {
                let asking = scope.spawn(|| {
                    let (entrance, mut all) = (Entrance::new(Arc::clone(&balancer), None), BTreeSet::new());
                    while !stop.load(Ordering::SeqCst) {
                        all.extend((0..8).filter_map(|_| chosen(&balancer, &entrance)));
                    }
                    all
                });
                balancer.put(table(&change[1]), Certificates::default(), false);
                stop.store(true, Ordering::SeqCst);
                asking.join().expect("no panic")
            });
            let (old, new) = (takers(&change[0]), takers(&change[1]));
            let either = |name: &String| old.contains(name.as_str()) || new.contains(name.as_str());
            prop_assert!(meanwhile.iter().all(either), "{meanwhile:?}");
            let entrance = Entrance::new(Arc::clone(&balancer), None);
            let afterwards: BTreeSet<_> = (0..64).filter_map(|_| chosen(&balancer, &entrance)).collect();
            prop_assert!(afterwards.iter().all(|name| new.contains(name.as_str())), "{afterwards:?} of {new:?}");
            prop_assert_eq!(afterwards.is_empty(), new.is_empty());
        }
        shutdown.ask();
    }
}
