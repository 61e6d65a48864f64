//! One order: from a host to a certificate for it. What the authority knows of it is asked anew at each step, so that an
//! order that another start began is gone on with.
//!
//! Refuses to tell the authority of a proof before every lb that can be reached answers with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use appbase_core::v1::{Certificate, PrivateKey};
use controller_core::v1::state::{AcmeOrder, CertificateRecord};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeStatus, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus,
    Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::Desk;
use crate::store::StoreError;
use crate::x509::{self, CertificateError};

/// Until every lb that can be reached answers the challenge.
const IN_FORCE_MAX: Duration = Duration::from_secs(60);
/// How the authority is asked whether it has come further.
const ASK: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_secs(120));

#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("{}", said(.0))]
    Acme(Error),
    #[error("{0}")]
    Refused(String),
    #[error("the authority offers no challenge over HTTP for it")]
    NoChallenge,
    #[error("not every load balancer took the challenge in {} s", IN_FORCE_MAX.as_secs())]
    NotInForce,
    #[error("what the authority made cannot be used")]
    Certificate(#[from] CertificateError),
    #[error("the authority made a certificate that is not for it")]
    OtherName,
    #[error("no key could be made")]
    Key(#[from] rcgen::Error),
    #[error("not stored")]
    Store(#[from] StoreError),
    #[error("the stored account cannot be read")]
    Account(#[source] serde_json::Error),
}

impl OrderError {
    /// The authority's last word on this order. Of everything else it may still be carried to its end: ordering anew costs one
    /// of the few that an authority gives for a host.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) | Self::NoChallenge | Self::OtherName | Self::Key(_) => true,
            Self::Acme(Error::Api(problem)) => is_refusal(problem),
            _ => false,
        }
    }

    /// The authority does not know the account any more.
    pub(super) fn is_of_account(&self) -> bool {
        let Self::Acme(Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
    }
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        Self::Acme(error)
    }
}

/// Not that it is busy, or asked too often.
fn is_refusal(problem: &Problem) -> bool {
    let is_busy = problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":rateLimited"));
    !is_busy && problem.status.is_none_or(|status| (400..500).contains(&status) && status != 429)
}

/// The authority's own words, where there are some.
fn said(error: &Error) -> String {
    match error {
        Error::Api(problem) => words(problem),
        error => kit::problem::chain(error),
    }
}

fn words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or("refused");
    match &problem.detail {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind.to_owned(),
    }
}

/// Carries an order for this host to its end; `known` was begun before.
pub(super) async fn carry(
    desk: &Desk,
    account: &Account,
    host: &str,
    known: Option<AcmeOrder>,
) -> Result<CertificateRecord, OrderError> {
    let (mut order, key) = begin(account, host, known).await?;
    let challenges = challenges(&mut order).await?;
    let noted = AcmeOrder { url: order.url().to_owned(), key: PrivateKey(key.serialize_pem()), challenges };
    let has_challenges = !noted.challenges.is_empty();
    desk.note(host, |record| record.order = Some(noted)).await?;
    if has_challenges {
        desk.until_in_force(host, IN_FORCE_MAX).await.ok_or(OrderError::NotInForce)?;
        set_ready(&mut order).await?;
    }
    if order.state().status == OrderStatus::Pending {
        become_ready(&mut order).await?;
    }
    if order.state().status == OrderStatus::Ready {
        order.finalize_csr(&request(host, &key)?).await?;
    }
    let chain = order.poll_certificate(&ASK).await?;
    let record = x509::uploaded(&chain, &key.serialize_pem(), desk.now_unix_ms())?;
    if !record.certificate.names.contains(host) {
        return Err(OrderError::OtherName);
    }
    let certificate = Certificate { names: BTreeSet::from([host.to_owned()]), ..record.certificate };
    Ok(CertificateRecord { certificate, ..record })
}

/// The order that was begun before, while the authority takes it as one; else a new one.
async fn begin(account: &Account, host: &str, known: Option<AcmeOrder>) -> Result<(Order, KeyPair), OrderError> {
    if let Some(known) = known {
        match account.order(known.url).await {
            Ok(mut order) => {
                if order.state().status != OrderStatus::Invalid {
                    return Ok((order, KeyPair::from_pem(&known.key.0)?));
                }
            }
            // It is not known there any more.
            Err(Error::Api(problem)) if is_refusal(&problem) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let order = account.new_order(&NewOrder::new(&[Identifier::Dns(host.to_owned())])).await?;
    Ok((order, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
}

/// What lb is to answer: token → key authorization.
async fn challenges(order: &mut Order) -> Result<BTreeMap<String, String>, OrderError> {
    let (mut found, mut authorizations) = (BTreeMap::new(), order.authorizations());
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => return Err(OrderError::Refused(format!("the authorization is {other:?}").to_lowercase())),
        }
        let challenge = authorization.challenge(ChallengeType::Http01).ok_or(OrderError::NoChallenge)?;
        found.insert(challenge.token.clone(), challenge.key_authorization().as_str().to_owned());
    }
    Ok(found)
}

/// Tells the authority that it may ask.
async fn set_ready(order: &mut Order) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let mut challenge = authorization.challenge(ChallengeType::Http01).ok_or(OrderError::NoChallenge)?;
        // One that was told before is not told twice.
        if challenge.status == ChallengeStatus::Pending {
            challenge.set_ready().await?;
        }
    }
    Ok(())
}

async fn become_ready(order: &mut Order) -> Result<(), OrderError> {
    let error = match order.poll_ready(&ASK).await {
        Ok(OrderStatus::Invalid) => OrderError::Refused("the order is invalid".to_owned()),
        Ok(_) => return Ok(()),
        Err(error) => error.into(),
    };
    // What the authority found stands at the challenge.
    Err(reason(order).await.map_or(error, OrderError::Refused))
}

async fn reason(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Some(words(problem));
        }
    }
    None
}

/// A request for a certificate, signed with the key that it is for.
fn request(host: &str, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}
