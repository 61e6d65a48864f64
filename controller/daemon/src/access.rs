//! Access: who asks, and what they may do. The one place that says so.
//!
//! Machine tokens are signed and checked without a look-up; people's tokens are opaque and kept as hashes. Without keys
//! everybody may do everything, and the API then listens on loopback only.

use appbase_core::Digest;
use appbase_core::claims::{self, Reach, Scope};
use appbase_core::v1::MemberKind;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use kit::keys::Signer;
use kit::problem::Problem;

use crate::http::App;
use crate::records::{Records, lock};

/// Begins every token of a person, for those who scan for leaked ones.
const PERSON_PREFIX: &str = "plt_";

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// For the change log; empty when nobody is asked who they are.
    pub name: String,
    /// What it was given ends with its own token.
    pub ends_unix_s: Option<u64>,
    scope: Scope,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Member,
    Read,
    Change,
}

impl Caller {
    fn anyone() -> Self {
        Self { name: String::new(), ends_unix_s: None, scope: Scope::Admin }
    }

    /// Members speak for their own kind; an owner for any.
    pub(crate) fn check_member(&self, kind: MemberKind) -> Result<(), Problem> {
        match &self.scope {
            Scope::Admin => Ok(()),
            Scope::Member { member } if *member == kind => Ok(()),
            _ => Err(forbidden(&format!("the token of {} is not one of {kind}", self.name))),
        }
    }

    /// In the repository.
    pub(crate) fn reach(&self) -> Reach {
        if self.scope == Scope::Admin { Reach::Push } else { Reach::Pull }
    }

    fn check(&self, need: Need) -> Result<(), Problem> {
        match (&self.scope, need) {
            (Scope::Admin, _) | (Scope::Read, Need::Read) | (Scope::Member { .. }, Need::Member) => Ok(()),
            (Scope::Read, _) => Err(forbidden(&format!("the token of {} may look, not change", self.name))),
            _ => Err(forbidden(&format!("the token of {} is not for this", self.name))),
        }
    }
}

/// Every request passes here before anything is looked at.
pub(crate) async fn guard(State(shared): State<App>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let caller = caller(&shared.signer, &shared.records, request.headers(), shared.clock.unix_ms())?;
    caller.check(need(request.method(), request.uri().path()))?;
    request.extensions_mut().insert(caller);
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(next.run(request).await);
    }
    // Who asked may go away; what was begun is done all the same, or the store would know more than the records.
    let changed = shared.tasks.spawn("request", next.run(request)).await;
    changed.ok().flatten().ok_or_else(|| Problem::new(500, "unexpected", "the controller failed; its log says why"))
}

fn need(method: &Method, path: &str) -> Need {
    let of_member = path.strip_prefix("/v1/members/").is_some_and(|rest| rest.contains('/'));
    match (method, of_member) {
        (_, true) => Need::Member,
        (&Method::GET | &Method::HEAD, _) => Need::Read,
        // Handing out what the caller may do anyway changes nothing.
        _ if path == "/v1/repository-access" => Need::Read,
        _ => Need::Change,
    }
}

fn caller(
    signer: &Option<Signer>,
    records: &std::sync::Mutex<Records>,
    headers: &HeaderMap,
    now_unix_ms: u64,
) -> Result<Caller, Problem> {
    let Some(signer) = signer else { return Ok(Caller::anyone()) };
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.ok_or_else(|| unauthorized("the controller wants to know who asks", ""))?;
    if token.starts_with(claims::PREFIX) {
        let claims = signer.trust.verify(token, now_unix_ms / 1000);
        let claims = claims.map_err(|error| unauthorized("this token is not valid", &error.to_string()))?;
        return Ok(Caller { name: claims.subject, ends_unix_s: claims.expires_unix_s, scope: claims.scope });
    }
    let records = lock(records);
    let known = records.tokens.get(&hash(token));
    match known {
        Some(record) if record.expires_unix_ms > now_unix_ms => {
            let ends_unix_s = Some(record.expires_unix_ms / 1000);
            Ok(Caller { name: record.name.clone(), ends_unix_s, scope: record.scope.clone() })
        }
        Some(record) => Err(unauthorized("this token has ended", &format!("it was {} ({})", record.name, record.id))),
        None => Err(unauthorized("this token is unknown here", "it was revoked, or is of another cluster")),
    }
}

/// A new token of a person; only its hash is kept.
pub(crate) fn new_person_token() -> String {
    format!("{PERSON_PREFIX}{}", kit::random::hex::<32>())
}

pub(crate) fn hash(token: &str) -> Digest {
    Digest::of(token.as_bytes())
}

fn unauthorized(title: &str, detail: &str) -> Problem {
    Problem::new(401, "unauthorized", title)
        .detail(detail)
        .hint("on the platform's own machine: platformctl login --docker; elsewhere give --token-file")
}

fn forbidden(title: &str) -> Problem {
    Problem::new(403, "forbidden", title).hint("ask for a token that may: platformctl token create NAME")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_needs_what_it_does() {
        for (method, path, wanted) in [
            (Method::GET, "/v1/status", Need::Read),
            (Method::GET, "/v1/members/lb-1/table", Need::Member),
            (Method::PUT, "/v1/members/lb-1/status", Need::Member),
            (Method::DELETE, "/v1/members/lb-1", Need::Change),
            (Method::POST, "/v1/apps/shop/deployments", Need::Change),
            (Method::POST, "/v1/repository-access", Need::Read),
            (Method::POST, "/v1/tokens", Need::Change),
            (Method::GET, "/v1/certificates", Need::Read),
            (Method::GET, "/v1/authority", Need::Read),
            (Method::POST, "/v1/certificates", Need::Change),
            (Method::DELETE, "/v1/certificates/shop.example-1", Need::Change),
            (Method::POST, "/v1/certificates/acme:shop.example/retry", Need::Change),
            (Method::OPTIONS, "/", Need::Change),
        ] {
            assert_eq!(need(&method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn a_scope_allows_its_own_and_no_more() {
        let caller = |scope| Caller { name: "x".to_owned(), ends_unix_s: None, scope };
        let member = Scope::Member { member: MemberKind::Lb };
        let release = Scope::Release { app: "shop".parse().expect("a name"), tag: "production-r1".to_owned() };
        for (scope, member, read, change) in [
            (Scope::Admin, true, true, true),
            (Scope::Read, false, true, false),
            (member, true, false, false),
            (Scope::Repository { reach: Reach::Push }, false, false, false),
            (release, false, false, false),
        ] {
            let may = |need| caller(scope.clone()).check(need).is_ok();
            assert_eq!([may(Need::Member), may(Need::Read), may(Need::Change)], [member, read, change], "{scope:?}");
        }
        let lb = caller(Scope::Member { member: MemberKind::Lb });
        assert!(lb.check_member(MemberKind::Lb).is_ok());
        assert_eq!(lb.check_member(MemberKind::Dns).expect_err("the other's").status, 403);
    }
}
