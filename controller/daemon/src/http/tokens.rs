//! Tokens of people, and the short one with which a person goes to the repository.

use appbase_core::claims::Scope;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use controller_core::v1::api::{RepositoryAccess, TokenAnswer, TokenRequest, TokenView};
use controller_core::v1::state::{EventKind, TokenRecord};
use kit::problem::Problem;

use super::{Answer, App};
use crate::access::{Caller, hash, new_person_token};
use crate::journal::About;
use crate::records::{Write, lock};

/// A token lives this long unless asked otherwise, and never longer than the other.
const LIFE_S: u64 = 30 * 24 * 3600;
const LIFE_S_MAX: u64 = 365 * 24 * 3600;
/// Enough for every person and pipeline of one cluster.
const TOKENS_MAX: usize = 1000;
const NAME_CHARS_MAX: usize = 64;
/// Long enough for the largest push.
const REPOSITORY_LIFE_S: u64 = 3600;

pub(super) async fn create(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<TokenRequest>,
) -> Result<(StatusCode, Json<TokenAnswer>), Problem> {
    check(&request)?;
    let _pen = shared.pen.lock().await;
    let now = shared.clock.unix_ms();
    let (old, count) = {
        let records = lock(&shared.records);
        let old: Vec<_> = records.tokens.values().filter(|t| t.expires_unix_ms <= now).map(|t| t.id.clone()).collect();
        (old, records.tokens.len())
    };
    if count - old.len() >= TOKENS_MAX {
        return Err(Problem::new(409, "too-many-tokens", format!("there are {TOKENS_MAX} tokens already"))
            .hint("revoke some: platformctl token ls"));
    }
    let token = new_person_token();
    let record = TokenRecord {
        id: kit::random::hex::<4>(),
        name: request.name.clone(),
        hash: hash(&token),
        scope: if request.read_only { Scope::Read } else { Scope::Admin },
        created_unix_ms: now,
        expires_unix_ms: now + request.life_s.unwrap_or(LIFE_S) * 1000,
    };
    let view = view(&record);
    // Ended ones go with the next that is made, a few at a time: a transaction is small.
    let mut writes: Vec<Write> = old.into_iter().take(8).map(Write::RevokeToken).collect();
    writes.push(Write::Token(Box::new(record)));
    shared.commit(writes).await?;
    let text = format!("token {} made for {} by {}", view.id, view.name, caller.name);
    shared.journal.write(now, &About::default(), EventKind::Changed, &text);
    Ok((StatusCode::CREATED, Json(TokenAnswer { token, view })))
}

fn check(request: &TokenRequest) -> Result<(), Problem> {
    let name = &request.name;
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let title = format!("a token's name is 1 to {NAME_CHARS_MAX} characters");
        return Err(Problem::new(400, "bad-name", title).hint("name the person or pipeline that will use it"));
    }
    if request.life_s.is_some_and(|life| life == 0 || life > LIFE_S_MAX) {
        return Err(Problem::new(400, "bad-life", "a token lives between 1 second and 365 days"));
    }
    Ok(())
}

pub(super) async fn list(State(shared): State<App>) -> Answer<Vec<TokenView>> {
    let mut views: Vec<TokenView> = lock(&shared.records).tokens.values().map(view).collect();
    views.sort_by(|one, other| (one.created_unix_ms, &one.id).cmp(&(other.created_unix_ms, &other.id)));
    Ok(Json(views))
}

pub(super) async fn revoke(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<()> {
    let _pen = shared.pen.lock().await;
    if !lock(&shared.records).tokens.values().any(|token| token.id == id) {
        return Err(Problem::new(404, "unknown-token", "there is no such token").hint("see: platformctl token ls"));
    }
    // Also in a state that was put back: a token that leaked must not wait for that.
    shared.commit_in_any_state(vec![Write::RevokeToken(id.clone())]).await?;
    let text = format!("token {id} revoked by {}", caller.name);
    shared.journal.write(shared.clock.unix_ms(), &About::default(), EventKind::Changed, &text);
    Ok(Json(()))
}

fn view(record: &TokenRecord) -> TokenView {
    TokenView {
        id: record.id.clone(),
        name: record.name.clone(),
        read_only: record.scope != Scope::Admin,
        created_unix_ms: record.created_unix_ms,
        expires_unix_ms: record.expires_unix_ms,
    }
}

/// Where the repository is, and a signed token for it: it checks tokens without asking the controller.
pub(super) async fn repository(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
) -> Answer<RepositoryAccess> {
    let end = shared.clock.unix_ms() / 1000 + REPOSITORY_LIFE_S;
    let end = caller.ends_unix_s.map_or(end, |own| own.min(end));
    let scope = Scope::Repository { reach: caller.reach() };
    let token = shared.signer.as_ref().map(|signer| signer.sign(&caller.name, scope, Some(end)));
    Ok(Json(RepositoryAccess { url: crate::views::info(&shared).repository, token }))
}
