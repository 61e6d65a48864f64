//! One order: from a host to a certificate for it. What the authority knows of it is asked anew at each step, so that an
//! order that another start began is gone on with.
//!
//! Refuses to tell the authority of a proof before every lb, or every dns server, that can be reached answers with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use appbase_core::v1::{Certificate, MemberKind, PrivateKey};
use controller_core::acme::Proof;
use controller_core::v1::state::{AcmeOrder, AcmeRecord, CertificateRecord};
use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, ChallengeStatus, ChallengeType, Error, Identifier, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::desk::Desk;
use crate::store::StoreError;
use crate::x509::{self, CertificateError};

/// Real ones have 22 to 86 characters.
const TOKEN_CHARS_MAX: usize = 256;
/// How the authority is asked whether it has come further.
const ASK: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_secs(120));

#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("{}", said(.0))]
    Acme(Error),
    #[error("{0}")]
    Refused(String),
    #[error("the authority does not ask in a way that can be answered for it: {0}")]
    NoChallenge(String),
    #[error("the authority's token has characters that none has (RFC 8555, section 8.3)")]
    Token,
    #[error("{0}")]
    NotInForce(String),
    #[error("the order did not come to its end in {} min", super::ORDER_MAX.as_secs() / 60)]
    Late,
    #[error("the authority makes no account: {0}")]
    Account(String),
    #[error("the authority takes the account no more, and the next order makes another")]
    AccountClosed,
    #[error("what the authority made cannot be used")]
    Certificate(#[from] CertificateError),
    #[error("the authority made a certificate that is not for it")]
    OtherName,
    #[error("no key could be made")]
    Key(#[from] rcgen::Error),
    #[error("not stored")]
    Store(#[from] StoreError),
    #[error("the account cannot be kept")]
    Credentials(#[source] serde_json::Error),
}

impl OrderError {
    /// The authority's last word on this order. Of everything else it may still be carried to its end: ordering anew costs one
    /// of the few that an authority gives for a host.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) | Self::NoChallenge(_) | Self::Token | Self::OtherName | Self::Key(_) => true,
            Self::Acme(Error::Api(problem)) => is_refusal(problem),
            _ => false,
        }
    }

    /// The authority may mean the account and not the host.
    pub(super) fn may_be_of_account(&self) -> bool {
        matches!(self, Self::Acme(Error::Api(problem)) if is_of_account(problem))
    }

    /// It is in the way of other hosts as well: they wait a little.
    pub(super) fn is_common(&self) -> bool {
        match self {
            Self::Acme(Error::Api(problem)) => !is_refusal(problem),
            Self::Acme(_) | Self::Account(_) | Self::AccountClosed | Self::Store(_) => true,
            _ => false,
        }
    }
}

/// The authority wants no account with this key.
pub(super) fn is_of_key(problem: &Problem) -> bool {
    is_of_account(problem) || problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":badPublicKey"))
}

/// The authority does not know the account, or has closed it.
pub(super) fn is_of_account(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.ends_with(":accountDoesNotExist") || kind.ends_with(":unauthorized")
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        Self::Acme(error)
    }
}

/// Not that it is busy, or asked too often, or broken.
pub(super) fn is_refusal(problem: &Problem) -> bool {
    let is = |kind: &str| problem.r#type.as_deref().is_some_and(|own| own.ends_with(kind));
    let is_busy = is(":rateLimited") || is(":serverInternal");
    let status = problem.status.map(|status| (400..500).contains(&status) && status != 429);
    !is_busy && status.unwrap_or(problem.r#type.is_some())
}

/// The authority's own words, where there are some.
fn said(error: &Error) -> String {
    match error {
        Error::Api(problem) => words(problem),
        error => kit::problem::chain(error),
    }
}

pub(super) fn words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or("refused");
    match &problem.detail {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind.to_owned(),
    }
}

/// What is shown to the authority, of one kind.
#[derive(Default)]
struct Shown {
    kind: Option<ChallengeType>,
    challenges: BTreeMap<String, String>,
    texts: BTreeSet<String>,
    handshake: Option<Certificate>,
}

/// Carries an order for this host to its end. `known` is what there is of the host, with an order that was begun before.
pub(super) async fn carry(
    desk: &Desk,
    account: &Account,
    host: &str,
    proof: Proof,
    known: AcmeRecord,
) -> Result<CertificateRecord, OrderError> {
    let (mut order, key) = begin(account, host, known).await?;
    let shown = shown(&mut order, host, proof).await?;
    let noted = AcmeOrder {
        url: order.url().to_owned(),
        key: PrivateKey(key.serialize_pem()),
        challenges: shown.challenges,
        texts: shown.texts,
        handshake: shown.handshake,
    };
    let generation = desk.note(host, |record| record.order = Some(noted)).await?;
    if let Some(kind) = shown.kind {
        desk.until_in_force(member(proof), &generation).await.map_err(OrderError::NotInForce)?;
        if proof == Proof::Names {
            // That there is nothing is remembered as long by whoever asked before.
            tokio::time::sleep(desk.shared.config.name_ttl()).await;
        }
        set_ready(&mut order, &kind).await?;
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

/// Who answers the authority.
pub(super) fn member(proof: Proof) -> MemberKind {
    if proof == Proof::Names { MemberKind::Dns } else { MemberKind::Lb }
}

/// The order that was begun before, while the authority takes it as one; else a new one, which says what it replaces to an
/// authority that suggests when (RFC 9773, section 5).
async fn begin(account: &Account, host: &str, known: AcmeRecord) -> Result<(Order, KeyPair), OrderError> {
    if let Some(known) = known.order {
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
    let identifiers = [Identifier::Dns(host.to_owned())];
    let before = known.certificate.filter(|_| known.renewal.is_some());
    let before = before.and_then(|before| x509::identifier(&before.certificate.chain));
    let order = match before {
        Some(before) => match account.new_order(&NewOrder::new(&identifiers).replaces(before)).await {
            // It was replaced already, or the authority says nothing of it: then it is an order like any other.
            Err(Error::Api(problem)) if is_refusal(&problem) && !is_of_account(&problem) => {
                account.new_order(&NewOrder::new(&identifiers)).await?
            }
            Err(Error::Other(_)) => account.new_order(&NewOrder::new(&identifiers)).await?,
            order => order?,
        },
        None => account.new_order(&NewOrder::new(&identifiers)).await?,
    };
    Ok((order, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
}

/// What lb or dns is to show, of the first kind that fits and that the authority offers.
async fn shown(order: &mut Order, host: &str, proof: Proof) -> Result<Shown, OrderError> {
    let (mut shown, mut authorizations) = (Shown::default(), order.authorizations());
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => return Err(OrderError::Refused(format!("the authorization is {other:?}").to_lowercase())),
        }
        let kind = kind(&authorization, proof)?;
        let challenge = authorization.challenge(kind.clone()).expect("its kind was just found");
        let answer = challenge.key_authorization();
        match kind {
            ChallengeType::Http01 => {
                check_token(&challenge.token)?;
                shown.challenges.insert(challenge.token.clone(), answer.as_str().to_owned());
            }
            ChallengeType::Dns01 => {
                shown.texts.insert(answer.dns_value());
            }
            _ => shown.handshake = Some(handshake(host, answer.digest().as_ref())?),
        }
        shown.kind = Some(kind);
    }
    Ok(shown)
}

fn kind(authorization: &AuthorizationHandle<'_>, proof: Proof) -> Result<ChallengeType, OrderError> {
    let fitting: &[ChallengeType] = match proof {
        Proof::Http => &[ChallengeType::Http01, ChallengeType::TlsAlpn01],
        Proof::Names => &[ChallengeType::Dns01],
        Proof::Handshake => &[ChallengeType::TlsAlpn01],
    };
    let offered = |kind: &&ChallengeType| authorization.challenges.iter().any(|challenge| challenge.r#type == **kind);
    fitting.iter().find(offered).cloned().ok_or_else(|| {
        let offered = authorization.challenges.iter().map(|challenge| format!("{:?}", challenge.r#type));
        OrderError::NoChallenge(offered.collect::<Vec<_>>().join(", ").to_lowercase())
    })
}

/// It stands in a table, and in the path of a request.
fn check_token(token: &str) -> Result<(), OrderError> {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let fits = (1..=TOKEN_CHARS_MAX).contains(&token.len()) && token.bytes().all(is_sound);
    if fits { Ok(()) } else { Err(OrderError::Token) }
}

/// The certificate of RFC 8737, section 3: signed by itself, for this host, with the proof in it.
fn handshake(host: &str, digest: &[u8]) -> Result<Certificate, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let chain = params.self_signed(&key)?.pem();
    Ok(Certificate { names: BTreeSet::from([host.to_owned()]), chain, key: PrivateKey(key.serialize_pem()) })
}

/// Tells the authority that it may ask.
async fn set_ready(order: &mut Order, kind: &ChallengeType) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let Some(mut challenge) = authorization.challenge(kind.clone()) else { continue };
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
