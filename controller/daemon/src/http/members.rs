//! Members: the tables they fetch and the status they put.

use std::time::Duration;

use appbase_core::v1::{MemberKind, MemberStatus};
use appbase_core::{ClusterId, Generation, MemberId};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use controller_core::v1::api::MemberTraffic;
use kit::problem::Problem;
use serde::Deserialize;

use super::{Answer, App};
use crate::access::Caller;
use crate::records::{Write, lock};

/// More lbs and dns servers than a cluster has; each one is waited for.
const MEMBERS_MAX: usize = 64;
/// A poll is held no longer than this.
const WAIT_MAX: u64 = 60;

#[derive(Debug, Deserialize)]
pub(super) struct TableQuery {
    kind: MemberKind,
    /// `epoch.number` of what is in force there, with its cluster.
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    cluster: Option<ClusterId>,
    /// Seconds.
    #[serde(default)]
    wait: u64,
}

pub(super) async fn table(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<TableQuery>,
) -> Result<Response, Problem> {
    caller.check_member(query.kind)?;
    let after =
        query.after.as_deref().zip(query.cluster).map(|(text, cluster)| generation(text, cluster)).transpose()?;
    let wait = Duration::from_secs(query.wait.min(WAIT_MAX));
    let id = member(&id)?;
    let table = async {
        // Whoever serves by a table is waited for when an instance drains, so it must be known first.
        if shared.until(wait, |records| records.members.contains_key(&id)).await.is_none() {
            return Json(()).into_response();
        }
        match query.kind {
            MemberKind::Lb => Json(shared.tables.routes_after(after.as_ref(), wait).await).into_response(),
            MemberKind::Dns => Json(shared.tables.names_after(after.as_ref(), wait).await).into_response(),
        }
    };
    tokio::select! {
        answer = table => Ok(answer),
        () = shared.shutdown.asked() => Ok(Json(()).into_response()),
    }
}

fn generation(text: &str, cluster: ClusterId) -> Result<Generation, Problem> {
    let numbers = text.split_once('.').and_then(|(epoch, number)| Some((epoch.parse().ok()?, number.parse().ok()?)));
    let (epoch, number) =
        numbers.ok_or_else(|| Problem::new(400, "bad-generation", "after is \"<epoch>.<number>\""))?;
    Ok(Generation { cluster, epoch, number })
}

fn member(text: &str) -> Result<MemberId, Problem> {
    MemberId::parse(text).map_err(|error| Problem::new(400, "bad-name", error.to_string()))
}

pub(super) async fn status(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(status): Json<MemberStatus>,
) -> Answer<()> {
    let id = member(&id)?;
    let kind = status.kind;
    caller.check_member(kind)?;
    let known = lock(&shared.records).members.get(&id).copied();
    // Heard before anything is written: it may know of a newer state.
    let news = |status| shared.members.heard(&id, status, shared.now());
    let news = match known {
        Some(known) if known != kind => {
            return Err(Problem::new(409, "member-kind", format!("{id} is known as {known}, not as {kind}"))
                .hint("give each member a name of its own"));
        }
        Some(_) => news(status),
        None if lock(&shared.records).members.len() >= MEMBERS_MAX => {
            return Err(Problem::new(409, "too-many-members", format!("there are {MEMBERS_MAX} members already"))
                .hint("forget those that are gone: platformctl member ls, platformctl member forget ID"));
        }
        // Its first word makes it wanted: from now on it counts also while it is not heard.
        None => {
            let news = news(status);
            let _pen = shared.pen.lock().await;
            shared.commit(vec![Write::Member(id.clone(), kind)]).await?;
            news
        }
    };
    if news {
        shared.look_again.notify_one();
    }
    Ok(Json(()))
}

/// What the load balancers carry, as they said it last.
pub(super) async fn traffic(State(shared): State<App>) -> Json<Vec<MemberTraffic>> {
    Json(shared.members.traffic())
}

pub(super) async fn forget(State(shared): State<App>, Path(id): Path<String>) -> Answer<()> {
    let id = member(&id)?;
    let _pen = shared.pen.lock().await;
    // One that was heard and could not be recorded is forgotten as well.
    let was_heard = shared.members.forget(&id);
    if lock(&shared.records).members.contains_key(&id) {
        shared.commit_in_any_state(vec![Write::ForgetMember(id.clone())]).await?;
    } else if !was_heard {
        return Err(Problem::new(404, "unknown-member", format!("there is no member {id}")));
    }
    shared.look_again.notify_one();
    Ok(Json(()))
}
