//! The one place that says who may do what.
//!
//! | token | may |
//! | --- | --- |
//! | none | read what is live in the default environment: the tutorial's instances have no token |
//! | of an instance | read its own release and what that names |
//! | for an hour, of a person | read every app; store versions when the person may change things |
//! | of the controller, of an owner | everything: release and live tags as well |

use appbase_core::claims::{Claims, Reach, Scope, Trust};
use appbase_core::{Digest, EnvironmentName};
use axum::http::{HeaderMap, Method, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kit::Clock;
use repository_core::tag::TagKind;
use repository_core::{Access, Code, Manifest, Reference, Refusal, RepositoryName, Route, Tag};

use super::respond::refusal_of;
use crate::store::Store;

/// Whose tokens are believed.
pub(crate) enum Authority {
    /// No trust is configured: everybody who reaches the port may do everything. It is on loopback then.
    Open,
    Keys {
        trust: Box<Trust>,
        clock: Clock,
    },
}

/// Called once for each request, before anything is looked at or read. `Refusal` with `Code::Unauthorized` is answered
/// with a challenge: registry clients send their credentials only then.
pub(crate) async fn authorize(
    authority: &Authority,
    store: &Store,
    route: &Route,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let Authority::Keys { trust, clock } = authority else { return Ok(()) };
    let access = route.access(method.as_str());
    let Some(token) = token_of(headers) else {
        return anonymous(store, route, &access).await;
    };
    let claims = trust.verify(&token, clock.unix_ms() / 1000);
    let claims = claims.map_err(|error| unauthorized(format!("the token is not valid: {error}")))?;
    let allowed = match &claims.scope {
        Scope::Release { app, tag } => match &access {
            Access::Base => true,
            Access::Pull(name) => name.as_str() == app.as_str() && names(store, name, tag, route).await?,
            Access::Push(_) | Access::Delete(_) => false,
        },
        scope => reach(scope) >= Some(needed(route, &access)),
    };
    if allowed { Ok(()) } else { Err(denied(&claims, &access)) }
}

/// Who has no token may fetch what the default environment runs, as `boot APP REPOSITORY` does.
async fn anonymous(store: &Store, route: &Route, access: &Access) -> Result<(), Refusal> {
    if let Access::Pull(name) = access {
        let live = Tag::of_live(&EnvironmentName::default_name());
        if names(store, name, live.as_str(), route).await? {
            return Ok(());
        }
    }
    Err(unauthorized("the repository wants to know who asks".to_owned()))
}

fn reach(scope: &Scope) -> Option<Reach> {
    match scope {
        Scope::Admin => Some(Reach::Pin),
        Scope::Read => Some(Reach::Pull),
        Scope::Repository { reach } => Some(*reach),
        Scope::Member { .. } | Scope::Release { .. } => None,
    }
}

/// Tags of releases are moved by the controller alone, and nothing is deleted by anybody else.
fn needed(route: &Route, access: &Access) -> Reach {
    let of_release = match route {
        Route::Manifest(_, Reference::Tag(tag)) => tag.kind() != TagKind::Version,
        _ => false,
    };
    match access {
        Access::Base | Access::Pull(_) => Reach::Pull,
        Access::Push(_) if !of_release => Reach::Push,
        Access::Push(_) | Access::Delete(_) => Reach::Pin,
    }
}

/// Whether `route` reads the manifest behind `tag`, or a blob that this manifest names.
async fn names(store: &Store, name: &RepositoryName, tag: &str, route: &Route) -> Result<bool, Refusal> {
    let Ok(tag) = Tag::parse(tag) else { return Ok(false) };
    if let Route::Manifest(_, Reference::Tag(asked)) = route {
        return Ok(*asked == tag);
    }
    let found = store.manifest(name, &Reference::Tag(tag)).await.map_err(refusal_of)?;
    let Some(found) = found else { return Ok(false) };
    match route {
        Route::Manifest(_, Reference::Digest(asked)) => Ok(*asked == found.digest),
        Route::Blob(_, asked) => {
            let bytes = store.read_small(found.digest).await.map_err(refusal_of)?;
            let manifest = Manifest::parse(Some(&found.media_type), &bytes);
            Ok(manifest.is_ok_and(|manifest| lists(&manifest, *asked)))
        }
        _ => Ok(false),
    }
}

fn lists(manifest: &Manifest, asked: Digest) -> bool {
    manifest.config().into_iter().chain(manifest.layers()).any(|descriptor| descriptor.digest == asked)
}

/// The token of `Authorization: Bearer …`, or the password of `Basic …` (RFC 7617), which is what registry clients send
/// after a login; the user's name means nothing.
fn token_of(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = text.strip_prefix("Bearer ") {
        return Some(token.to_owned());
    }
    let pair = String::from_utf8(STANDARD.decode(text.strip_prefix("Basic ")?).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

fn unauthorized(message: String) -> Refusal {
    Refusal::new(Code::Unauthorized, "unauthorized", message)
        .hint("platformctl asks the controller for a token by itself: log in with platformctl login --docker")
}

fn denied(claims: &Claims, access: &Access) -> Refusal {
    let what = match access {
        Access::Base => "asking".to_owned(),
        Access::Pull(name) => format!("reading this of \"{name}\""),
        Access::Push(name) => format!("storing this for \"{name}\""),
        Access::Delete(name) => format!("deleting from \"{name}\""),
    };
    Refusal::new(Code::Denied, "forbidden", format!("the token of {} is not for {what}", claims.subject))
}
