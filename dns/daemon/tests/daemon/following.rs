//! A member that follows its table, and serves on without a controller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use appbase_core::v1::{MemberStatus, TableUpdate};
use appbase_core::{ClusterId, Generation, SectionKey};
use axum::extract::{Path as UrlPath, Query as UrlQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use axum::{Json, Router};
use dns_core::v1::{NameSection, TableFile};
use tokio::sync::watch;

use super::*;

type Update = TableUpdate<NameSection>;

/// Offers one table and remembers the last status.
#[derive(Clone)]
struct Controller {
    table: watch::Sender<Option<Update>>,
    status: Arc<Mutex<Option<MemberStatus>>>,
}

async fn poll(
    State(controller): State<Controller>,
    UrlPath(member): UrlPath<String>,
    UrlQuery(query): UrlQuery<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Update>, StatusCode> {
    let authorised = headers.get("authorization").is_some_and(|value| value == "Bearer secret");
    if !authorised || member != "dns-7" || query.get("kind").map(String::as_str) != Some("dns") {
        return Err(StatusCode::FORBIDDEN);
    }
    let mut changes = controller.table.subscribe();
    let newer = |table: &Option<Update>| {
        table.as_ref().is_some_and(|table| query.get("after") != Some(&table.generation.to_string()))
    };
    let waited = timeout(Duration::from_secs(2), changes.wait_for(newer)).await;
    match waited {
        Ok(Ok(table)) => Ok(Json(table.clone().expect("waited for"))),
        _ => Err(StatusCode::NO_CONTENT),
    }
}

async fn take_status(State(controller): State<Controller>, Json(status): Json<MemberStatus>) -> Json<()> {
    *controller.status.lock().expect("not poisoned") = Some(status);
    Json(())
}

fn generation(number: u64) -> Generation {
    Generation { cluster: ClusterId::parse("c1").expect("a name"), epoch: 1, number }
}

fn sections() -> BTreeMap<SectionKey, NameSection> {
    TableFile::sections(serde_json::from_str(TABLE).expect("a table file")).expect("no app twice")
}

/// The table with another address of lb.
fn sections_with_lb(address: &str) -> BTreeMap<SectionKey, NameSection> {
    let text = TABLE.replace("\"lb\": [\"127.0.0.1\"]", &format!("\"lb\": [\"{address}\"]"));
    TableFile::sections(serde_json::from_str(&text).expect("a table file")).expect("no app twice")
}

impl Controller {
    async fn start(tasks: &Tasks, shutdown: &Shutdown) -> (Self, String) {
        let controller = Self { table: watch::Sender::new(None), status: Arc::default() };
        let router = Router::new()
            .route("/v1/members/{id}/table", get(poll))
            .route("/v1/members/{id}/status", put(take_status))
            .with_state(controller.clone());
        let listener = kit::serve::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
        let address = kit::serve::http(tasks, "controller", listener, router, shutdown).expect("serves");
        (controller, format!("http://{address}"))
    }

    fn publish(&self, update: Update) {
        self.table.send_replace(Some(update));
    }

    /// Waits for a status that says so.
    async fn reported(&self, says: impl Fn(&MemberStatus) -> bool) -> MemberStatus {
        let waiting = async {
            loop {
                let status = self.status.lock().expect("not poisoned").clone();
                if let Some(status) = status.filter(&says) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, waiting).await.expect("reported in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_follows_acknowledges_and_serves_its_saved_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, "secret\n").expect("written");
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let (controller, url) = Controller::start(&tasks, &shutdown).await;
    let config = Config {
        member: "dns-7".to_owned(),
        controller: Some(url),
        token_file: Some(token),
        data: Some(directory.path().join("data")),
        ..config()
    };

    let daemon = Daemon::start(config.clone()).await;
    let server = daemon.handle.dns;
    assert_eq!(ask(server, "hello.platform").await, "2", "no table yet");
    assert_eq!(daemon.admin("/readyz").await.0, 503);
    assert_eq!(kit::admin::healthcheck(daemon.handle.admin).await, Ok(()), "alive, though not ready");

    controller.publish(TableUpdate::whole(generation(5), sections()));
    until(server, "hello.platform", "0 127.0.0.1").await;
    assert_eq!(daemon.admin("/readyz").await.0, 200);
    let status = controller.reported(|status| status.in_force == Some(generation(5))).await;
    let live: Vec<String> = status.live.iter().map(|(key, release)| format!("{key} {release}")).collect();
    assert_eq!(live, ["production/hello 2"]);
    let soa = ask_udp(server, &question(1, "platform", RecordType::SOA)).await;
    assert!(soa.answers[0].data.to_string().contains(" 5 "), "the serial is the number: {soa:?}");

    controller.publish(TableUpdate::whole(generation(6), sections_with_lb("127.0.0.6")));
    until(server, "hello.platform", "0 127.0.0.6").await;

    let mut broken = sections();
    broken.remove(&SectionKey::Platform);
    controller.publish(TableUpdate::whole(generation(7), broken));
    let status = controller.reported(|status| status.refused.is_some()).await;
    assert_eq!(status.in_force, Some(generation(6)), "what is refused changes nothing");
    assert!(status.refused.expect("refused").reason.contains("platform"));
    assert_eq!(ask(server, "hello.platform").await, "0 127.0.0.6");
    daemon.stop().await;

    shutdown.ask();
    assert_eq!(tasks.finish(LIMIT).await, Vec::<String>::new());
    let daemon = Daemon::start(config).await;
    assert_eq!(ask(daemon.handle.dns, "hello.platform").await, "0 127.0.0.6", "saved, without a controller");
    assert_eq!(daemon.admin("/readyz").await.0, 200);
    daemon.stop().await;
}
