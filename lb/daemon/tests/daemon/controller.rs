//! A controller as far as a member sees it: hands out tables, takes statuses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::{InstanceReport, MemberStatus, TableUpdate};
use appbase_core::{ClusterId, Generation, InstanceId, SectionKey};
use axum::extract::{Query, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use kit::{Shutdown, Tasks};
use lb_core::v1::RouteSection;
use tokio::sync::watch;

type Update = TableUpdate<RouteSection>;

pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    table: watch::Sender<Option<Update>>,
    /// The generation the member asked for something newer than: what it has in force.
    in_force: watch::Sender<Option<String>>,
    status: watch::Sender<Option<MemberStatus>>,
}

impl Controller {
    pub(crate) async fn start(tasks: &Tasks, shutdown: &Shutdown) -> Arc<Self> {
        let listener = kit::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let controller = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            table: watch::Sender::new(None),
            in_force: watch::Sender::new(None),
            status: watch::Sender::new(None),
        });
        let router = Router::new()
            .route("/v1/members/{id}/table", get(poll))
            .route("/v1/members/{id}/status", put(take))
            .with_state(Arc::clone(&controller));
        kit::serve::http(tasks, "controller", listener, router, shutdown).unwrap();
        controller
    }

    /// Publishes the next generation.
    pub(crate) fn offer(&self, sections: &[RouteSection]) -> Generation {
        let number = self.table.borrow().as_ref().map_or(1, |update| update.generation.number + 1);
        let generation = Generation { cluster: ClusterId::parse("test").unwrap(), epoch: 1, number };
        let keyed: BTreeMap<SectionKey, RouteSection> = sections
            .iter()
            .map(|section| (SectionKey::app(&section.environment, &section.app), section.clone()))
            .collect();
        self.table.send_replace(Some(TableUpdate::whole(generation.clone(), keyed)));
        generation
    }

    /// Publishes and waits until it is in force.
    pub(crate) async fn publish(&self, sections: &[RouteSection]) -> Generation {
        let generation = self.offer(sections);
        let wanted = generation.to_string();
        let mut in_force = self.in_force.subscribe();
        let reached = in_force.wait_for(|after| after.as_ref() == Some(&wanted));
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("in force in time").unwrap();
        generation
    }

    /// Waits for a status that says so.
    pub(crate) async fn until(&self, what: &str, says: impl Fn(&MemberStatus) -> bool) -> MemberStatus {
        let mut status = self.status.subscribe();
        let reached = status.wait_for(|status| status.as_ref().is_some_and(&says));
        match tokio::time::timeout(Duration::from_secs(10), reached).await {
            Ok(status) => status.unwrap().clone().unwrap(),
            Err(_) => panic!("no status says {what}: {:#?}", *self.status.borrow()),
        }
    }

    pub(crate) async fn until_instance(
        &self,
        id: &str,
        what: &str,
        says: impl Fn(&InstanceReport) -> bool,
    ) -> InstanceReport {
        let id = InstanceId::parse(id).unwrap();
        let status = self.until(what, |status| status.instances.get(&id).is_some_and(&says)).await;
        status.instances[&id].clone()
    }
}

async fn poll(
    State(controller): State<Arc<Controller>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Option<Update>> {
    let after = query.get("after").cloned();
    controller.in_force.send_replace(after.clone());
    let mut table = controller.table.subscribe();
    let newer =
        |update: &Option<Update>| update.as_ref().is_some_and(|update| Some(update.generation.to_string()) != after);
    match tokio::time::timeout(Duration::from_secs(20), table.wait_for(newer)).await {
        Ok(Ok(update)) => Json(update.clone()),
        _ => Json(None),
    }
}

async fn take(State(controller): State<Arc<Controller>>, Json(status): Json<MemberStatus>) -> Json<()> {
    controller.status.send_replace(Some(status));
    Json(())
}
