//! Office: who the platform is at the authority. One account for all hosts, made when the first one is asked for.
//!
//! Its key is kept before the account is made: whoever asks again with it gets the same one, so a crash or a full disk
//! leaves no account behind. One that the authority takes no more is forgotten, and the next order makes another.

use appbase_core::v1::PrivateKey;
use controller_core::v1::state::{AcmeAccount, EventKind};
use instant_acme::{Account, Error, Key};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::Mutex;

use super::desk::Desk;
use super::http::Https;
use super::order::{OrderError, is_of_account, is_of_key, is_refusal, words};
use crate::journal::About;
use crate::records::{Write, lock};

pub(super) struct Office {
    pub(super) directory: String,
    pub(super) email: Option<String>,
    pub(super) http: Https,
    /// One at a time is made.
    account: Mutex<Option<Account>>,
}

impl Office {
    pub(super) fn new(directory: String, email: Option<String>, http: Https) -> Self {
        Self { directory, email, http, account: Mutex::new(None) }
    }

    /// The authority's addresses may be others by now.
    pub(super) async fn close(&self) {
        *self.account.lock().await = None;
    }

    pub(super) async fn account(&self, desk: &Desk) -> Result<Account, OrderError> {
        let mut held = self.account.lock().await;
        if let Some(account) = &*held {
            return Ok(account.clone());
        }
        let account = match self.open(desk).await {
            Err(OrderError::Acme(Error::Api(problem))) if is_refusal(&problem) => {
                if is_of_key(&problem) {
                    desk.write(vec![Write::ForgetAcmeAccount]).await?;
                }
                return Err(OrderError::Account(words(&problem)));
            }
            other => other?,
        };
        *held = Some(account.clone());
        Ok(account)
    }

    async fn open(&self, desk: &Desk) -> Result<Account, OrderError> {
        let known = lock(&desk.shared.records).acme_account.clone();
        let known = known.filter(|known| known.directory == self.directory);
        let told = known.as_ref().and_then(|known| known.email.clone());
        let credentials = known.as_ref().and_then(|known| serde_json::from_str(&known.credentials.as_ref()?.0).ok());
        let (account, credentials) = match credentials {
            Some(credentials) => {
                let account = Account::builder_with_http(Box::new(self.http.clone())).from_credentials(credentials);
                let credentials = known.and_then(|known| known.credentials).expect("they were just read");
                (account.await?, credentials)
            }
            None => self.register(desk, known.and_then(|known| known.key)).await?,
        };
        if told != self.email {
            self.tell_contact(desk, &account).await?;
            self.keep(desk, self.email.clone(), Some(credentials), None).await?;
        }
        Ok(account)
    }

    /// An account with this key, or with a new one. Who sets the directory agrees: docs/reference/tls.md says so.
    async fn register(&self, desk: &Desk, key: Option<PrivateKey>) -> Result<(Account, PrivateKey), OrderError> {
        let key = match key.and_then(|key| KeyPair::from_pem(&key.0).ok()) {
            Some(key) => key,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                self.keep(desk, None, None, Some(PrivateKey(key.serialize_pem()))).await?;
                key
            }
        };
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = (Key::from_pkcs8_der(der.clone_key())?, PrivateKeyDer::Pkcs8(der));
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let (account, credentials) = builder.create_from_key(key, self.directory.clone()).await?;
        let credentials = PrivateKey(serde_json::to_string(&credentials).map_err(OrderError::Credentials)?);
        self.keep(desk, None, Some(credentials.clone()), None).await?;
        Ok((account, credentials))
    }

    /// An address that the authority does not want is said once, and no certificate waits for another.
    async fn tell_contact(&self, desk: &Desk, account: &Account) -> Result<(), OrderError> {
        let contact = self.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        match account.update_contacts(&contact).await {
            Ok(()) => Ok(()),
            Err(Error::Api(problem)) if is_refusal(&problem) && !is_of_account(&problem) => {
                let (email, words) = (self.email.as_deref().unwrap_or("none"), words(&problem));
                let text = format!(
                    "the ACME authority does not take the address {email} to write to, and is not told of it ({words}): \
                     set another PLATFORMER_ACME_EMAIL"
                );
                desk.shared.journal.write(desk.now_unix_ms(), &About::default(), EventKind::CertificateFailed, &text);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// After a refusal that may be meant for the account: whether it was, and then it is forgotten.
    pub(super) async fn is_closed(&self, desk: &Desk, account: &Account) -> Result<bool, OrderError> {
        let mut held = self.account.lock().await;
        let contact = self.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let is_closed = match account.update_contacts(&contact).await {
            Err(Error::Api(problem)) => is_of_account(&problem),
            // It answers with another state than valid.
            Err(Error::Str(_)) => true,
            _ => false,
        };
        // Another order may have found the same, and made another account since.
        let is_ours = held.as_ref().is_none_or(|held| held.id() == account.id());
        if is_closed && is_ours {
            *held = None;
            desk.write(vec![Write::ForgetAcmeAccount]).await?;
        }
        Ok(is_closed)
    }

    async fn keep(
        &self,
        desk: &Desk,
        email: Option<String>,
        credentials: Option<PrivateKey>,
        key: Option<PrivateKey>,
    ) -> Result<(), OrderError> {
        let account = AcmeAccount { directory: self.directory.clone(), email, credentials, key };
        desk.write(vec![Write::AcmeAccount(Box::new(account))]).await?;
        Ok(())
    }
}
