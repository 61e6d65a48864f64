//! Records: what the store keeps, in memory. Changed only through a commit that the store took.

use std::collections::{BTreeMap, BTreeSet};

use appbase_core::v1::{MemberKind, Route};
use appbase_core::{AppName, DeploymentId, Digest, EnvironmentName, Generation, MemberId, ReleaseNumber, SectionKey};
use controller_core::addresses::Range;
use controller_core::certificates::{Offer, Uploaded};
use controller_core::v1::state::{
    AcmeAccount, AcmeRecord, AuthorityRecord, CertificateRecord, ChangeSet, Cluster, Deployment, DeploymentOutcome,
    Desired, DesiredApp, Head, MemberRecord, NetworkRecord, Published, ReleaseRecord, Run, Snapshot, TokenRecord,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Condition, Entry, Operation, Outcome, Revision, Store, StoreError};

/// Folding starts from a snapshot at most this many change sets old.
const SNAPSHOT_EVERY: u64 = 256;
/// Ended deployments kept per app and environment; the oldest are forgotten.
const HISTORY_MAX: usize = 50;
/// The default environment's place in the cluster's range.
const DEFAULT_NETWORK: u8 = 1;
const PUBLISHED: &str = "published";
const AUTHORITY: &str = "authority";
const ACME_ACCOUNT: &str = "acme-account";

#[derive(Debug)]
pub(crate) struct Records {
    pub cluster: Cluster,
    pub head: u64,
    pub desired: Desired,
    pub runs: BTreeMap<SectionKey, Run>,
    pub releases: BTreeMap<SectionKey, BTreeMap<ReleaseNumber, ReleaseRecord>>,
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// By app and environment.
    deployments_of: BTreeMap<SectionKey, BTreeSet<DeploymentId>>,
    pub outcomes: BTreeMap<DeploymentId, DeploymentOutcome>,
    pub members: BTreeMap<MemberId, MemberKind>,
    /// Where each environment has its place in the cluster's range.
    pub networks: BTreeMap<EnvironmentName, u8>,
    /// By the hash of the token.
    pub tokens: BTreeMap<Digest, TokenRecord>,
    pub authority: Option<AuthorityRecord>,
    /// What the authority made, by app and environment.
    pub leaves: BTreeMap<SectionKey, CertificateRecord>,
    /// What people uploaded.
    pub certificates: Uploaded,
    /// By host, what authorities of the world made or are asked for.
    pub acme: BTreeMap<String, AcmeRecord>,
    pub acme_account: Option<AcmeAccount>,
    pub published: Published,
    /// The last revision of each key that is guarded.
    revisions: BTreeMap<String, Revision>,
}

/// One thing to write; all of a commit go together.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Change(ChangeSet, Desired),
    Run(SectionKey, Run),
    Release(SectionKey, Box<ReleaseRecord>),
    Deployment(Box<Deployment>),
    Outcome(DeploymentId, DeploymentOutcome),
    Member(MemberId, MemberKind),
    ForgetMember(MemberId),
    Network(EnvironmentName, u8),
    Token(Box<TokenRecord>),
    RevokeToken(String),
    Authority(Box<AuthorityRecord>),
    Leaf(SectionKey, Box<CertificateRecord>),
    ForgetLeaf(SectionKey),
    Certificate(String, Box<CertificateRecord>),
    ForgetCertificate(String),
    Acme(String, Box<AcmeRecord>),
    ForgetAcme(String),
    AcmeAccount(Box<AcmeAccount>),
    ForgetAcmeAccount,
    Published(Published),
}

impl Records {
    /// Reads everything; makes the cluster when the store is new.
    pub(crate) async fn load(store: &dyn Store, new_cluster: impl FnOnce() -> Cluster) -> Result<Self, StoreError> {
        let mut entries = store.list("").await?;
        if !entries.iter().any(|entry| entry.key == "cluster") {
            let cluster = new_cluster();
            let put = Operation::Put("cluster".to_owned(), encode(&cluster));
            store.commit(vec![Condition::Absent("cluster".to_owned())], vec![put]).await?;
            entries = store.list("").await?;
        }
        let cluster = entries.iter().find(|entry| entry.key == "cluster");
        let cluster = decode(cluster.expect("it was there or was just written"))?;
        let mut records = Self {
            cluster,
            head: 0,
            desired: Desired::default(),
            runs: BTreeMap::new(),
            releases: BTreeMap::new(),
            deployments: BTreeMap::new(),
            deployments_of: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            members: BTreeMap::new(),
            networks: BTreeMap::from([(EnvironmentName::default_name(), DEFAULT_NETWORK)]),
            tokens: BTreeMap::new(),
            authority: None,
            leaves: BTreeMap::new(),
            certificates: Uploaded::default(),
            acme: BTreeMap::new(),
            acme_account: None,
            published: Published::default(),
            revisions: BTreeMap::new(),
        };
        for entry in &entries {
            records.take_entry(entry)?;
        }
        records.fold(&entries)?;
        Ok(records)
    }

    fn take_entry(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.revisions.insert(entry.key.clone(), entry.revision);
        let parts: Vec<&str> = entry.key.split('/').collect();
        match parts.as_slice() {
            ["run", environment, app] => {
                let run = decode(entry)?;
                self.runs.insert(section(entry, environment, app)?, run);
            }
            ["release", environment, app, _] => {
                let record: ReleaseRecord = decode(entry)?;
                let key = section(entry, environment, app)?;
                self.releases.entry(key).or_default().insert(record.release.number, record);
            }
            ["deployment", _] => {
                let deployment: Deployment = decode(entry)?;
                self.keep_deployment(deployment);
            }
            ["outcome", id] => {
                let outcome = decode(entry)?;
                self.outcomes.insert(id_of(entry, id)?, outcome);
            }
            ["member", id] => {
                let record: MemberRecord = decode(entry)?;
                self.members.insert(id_of(entry, id)?, record.kind);
            }
            ["network", environment] => {
                let record: NetworkRecord = decode(entry)?;
                self.networks.insert(id_of(entry, environment)?, record.number);
            }
            ["token", _] => {
                let record: TokenRecord = decode(entry)?;
                self.tokens.insert(record.hash, record);
            }
            [AUTHORITY] => self.authority = Some(decode(entry)?),
            ["leaf", environment, app] => {
                let record = decode(entry)?;
                self.leaves.insert(section(entry, environment, app)?, record);
            }
            ["certificate", id] => self.certificates.insert((*id).to_owned(), decode(entry)?),
            ["acme", host] => {
                self.acme.insert((*host).to_owned(), decode(entry)?);
            }
            [ACME_ACCOUNT] => self.acme_account = Some(decode(entry)?),
            [PUBLISHED] => self.published = decode(entry)?,
            _ => {}
        }
        Ok(())
    }

    /// Desired from the snapshot and the change sets after it; the head's digest says whether it is right.
    fn fold(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let find = |key: &str| entries.iter().find(|entry| entry.key == key);
        let snapshot: Snapshot = find("snapshot").map(decode).transpose()?.unwrap_or_default();
        (self.head, self.desired) = (snapshot.number, snapshot.desired);
        let Some(head_entry) = find("head") else { return Ok(()) };
        let head: Head = decode(head_entry)?;
        while self.head < head.number {
            let number = self.head + 1;
            let key = log_key(number);
            let unreadable = |reason: String| StoreError::Unreadable { key: key.clone(), reason };
            let entry = find(&key).ok_or_else(|| unreadable("it is missing".to_owned()))?;
            let change: ChangeSet = decode(entry)?;
            self.desired = self.desired.apply(&change).map_err(|error| unreadable(error.to_string()))?;
            self.head = number;
        }
        if self.desired.digest() != head.desired {
            let reason = "the change sets do not add up to the state they once gave: restore from a backup".to_owned();
            return Err(StoreError::Unreadable { key: "head".to_owned(), reason });
        }
        Ok(())
    }

    pub(crate) fn run(&self, key: &SectionKey) -> Run {
        self.runs.get(key).cloned().unwrap_or_default()
    }

    pub(crate) fn desired_app(&self, environment: &EnvironmentName, app: &AppName) -> DesiredApp {
        self.desired.app(environment, app).cloned().unwrap_or_default()
    }

    /// The certificates there are for an app in an environment.
    pub(crate) fn offer(&self, key: &SectionKey) -> Offer<'_> {
        Offer { uploaded: Some(&self.certificates), local: self.leaves.get(key), acme: Some(&self.acme) }
    }

    /// The deployment that is not over, if any.
    pub(crate) fn running(&self, key: &SectionKey) -> Option<&Deployment> {
        self.deployments.get(self.runs.get(key)?.deployment.as_ref()?).filter(|deployment| deployment.end.is_none())
    }

    fn keep_deployment(&mut self, deployment: Deployment) {
        let key = SectionKey::app(&deployment.environment, &deployment.app);
        self.deployments_of.entry(key).or_default().insert(deployment.id.clone());
        self.deployments.insert(deployment.id.clone(), deployment);
    }

    /// Deployments of one app in one environment, newest first.
    pub(crate) fn history(&self, key: &SectionKey) -> Vec<&Deployment> {
        let ids = self.deployments_of.get(key).into_iter().flatten();
        let mut all: Vec<_> = ids.filter_map(|id| self.deployments.get(id)).collect();
        all.sort_by(|one, other| (other.started_unix_ms, &other.id).cmp(&(one.started_unix_ms, &one.id)));
        all
    }

    /// The place of a new environment; none when all are taken.
    pub(crate) fn free_network(&self) -> Option<u8> {
        (1..=Range::NETWORKS_MAX).find(|number| !self.networks.values().any(|taken| taken == number))
    }

    /// The number of the last publication; 0 before the first.
    pub(crate) fn published_number(&self) -> u64 {
        self.revisions.get(PUBLISHED).copied().unwrap_or_default()
    }

    /// The last publication as members know it.
    pub(crate) fn published_generation(&self) -> Generation {
        Generation { cluster: self.cluster.id.clone(), epoch: self.cluster.epoch, number: self.published_number() }
    }

    /// Another app's route that asks for the same requests.
    pub(crate) fn route_conflict(&self, key: &SectionKey, routes: &[Route]) -> Option<(SectionKey, Route)> {
        let others = self.runs.iter().filter(|(other, _)| *other != key);
        others
            .flat_map(|(other, run)| {
                let live = controller_core::render::live_release(run);
                let record = live.and_then(|live| self.releases.get(other)?.get(&live));
                record.into_iter().flat_map(move |r| r.release.traffic.routes.iter().map(move |route| (other, route)))
            })
            .find(|(_, route)| routes.iter().any(|own| own.is_for_the_same(route)))
            .map(|(other, route)| (other.clone(), route.clone()))
    }

    /// Conditions and operations of some writes, together.
    pub(crate) fn transaction(&self, writes: &[Write]) -> (Vec<Condition>, Vec<Operation>) {
        let (mut conditions, mut operations) = (Vec::new(), Vec::new());
        for write in writes {
            match write {
                Write::Change(change, desired) => {
                    self.guard("head", &mut conditions);
                    let head = Head { number: change.number, desired: desired.digest() };
                    operations.push(Operation::Put(log_key(change.number), encode(change)));
                    operations.push(Operation::Put("head".to_owned(), encode(&head)));
                    if change.number.is_multiple_of(SNAPSHOT_EVERY) {
                        let snapshot = Snapshot { number: change.number, desired: desired.clone() };
                        operations.push(Operation::Put("snapshot".to_owned(), encode(&snapshot)));
                    }
                }
                Write::Run(key, run) => {
                    let name = format!("run/{key}");
                    self.guard(&name, &mut conditions);
                    operations.push(Operation::Put(name, encode(run)));
                }
                Write::Release(key, record) => {
                    operations.push(Operation::Put(format!("release/{key}/{}", record.release.number), encode(record)));
                }
                Write::Deployment(deployment) => {
                    operations.push(Operation::Put(format!("deployment/{}", deployment.id), encode(deployment)));
                    operations.extend(self.forgotten(deployment).into_iter().flat_map(|id| {
                        [Operation::Delete(format!("deployment/{id}")), Operation::Delete(format!("outcome/{id}"))]
                    }));
                }
                Write::Outcome(id, outcome) => {
                    operations.push(Operation::Put(format!("outcome/{id}"), encode(outcome)))
                }
                Write::Member(id, kind) => {
                    operations.push(Operation::Put(format!("member/{id}"), encode(&MemberRecord { kind: *kind })));
                }
                Write::ForgetMember(id) => operations.push(Operation::Delete(format!("member/{id}"))),
                Write::Network(environment, number) => {
                    let record = NetworkRecord { number: *number };
                    operations.push(Operation::Put(format!("network/{environment}"), encode(&record)));
                }
                Write::Token(token) => operations.push(Operation::Put(format!("token/{}", token.id), encode(token))),
                Write::RevokeToken(id) => operations.push(Operation::Delete(format!("token/{id}"))),
                Write::Authority(record) => operations.push(Operation::Put(AUTHORITY.to_owned(), encode(record))),
                Write::Leaf(key, record) => operations.push(Operation::Put(format!("leaf/{key}"), encode(record))),
                Write::ForgetLeaf(key) => operations.push(Operation::Delete(format!("leaf/{key}"))),
                Write::Certificate(id, record) => {
                    operations.push(Operation::Put(format!("certificate/{id}"), encode(record)));
                }
                Write::ForgetCertificate(id) => operations.push(Operation::Delete(format!("certificate/{id}"))),
                Write::Acme(host, record) => operations.push(Operation::Put(format!("acme/{host}"), encode(record))),
                Write::ForgetAcme(host) => operations.push(Operation::Delete(format!("acme/{host}"))),
                Write::AcmeAccount(account) => {
                    operations.push(Operation::Put(ACME_ACCOUNT.to_owned(), encode(account)));
                }
                Write::ForgetAcmeAccount => operations.push(Operation::Delete(ACME_ACCOUNT.to_owned())),
                Write::Published(published) => {
                    self.guard(PUBLISHED, &mut conditions);
                    operations.push(Operation::Put(PUBLISHED.to_owned(), encode(published)));
                }
            }
        }
        (conditions, operations)
    }

    /// Takes over what the store took.
    pub(crate) fn took(&mut self, writes: Vec<Write>, revision: Revision) {
        for write in writes {
            match write {
                Write::Change(change, desired) => {
                    (self.head, self.desired) = (change.number, desired);
                    self.revisions.insert("head".to_owned(), revision);
                }
                Write::Run(key, run) => {
                    self.revisions.insert(format!("run/{key}"), revision);
                    self.runs.insert(key, run);
                }
                Write::Release(key, record) => {
                    self.releases.entry(key).or_default().insert(record.release.number, *record);
                }
                Write::Deployment(deployment) => {
                    if let Some(id) = self.forgotten(&deployment) {
                        self.deployments.remove(&id);
                        for ids in self.deployments_of.values_mut() {
                            ids.remove(&id);
                        }
                        self.outcomes.remove(&id);
                    }
                    self.keep_deployment(*deployment);
                }
                Write::Outcome(id, outcome) => {
                    self.outcomes.insert(id, outcome);
                }
                Write::Member(id, kind) => {
                    self.members.insert(id, kind);
                }
                Write::Network(environment, number) => {
                    self.networks.insert(environment, number);
                }
                Write::Token(token) => {
                    self.tokens.insert(token.hash, *token);
                }
                Write::RevokeToken(id) => self.tokens.retain(|_, token| token.id != id),
                Write::ForgetMember(id) => {
                    self.members.remove(&id);
                }
                Write::Authority(record) => self.authority = Some(*record),
                Write::Leaf(key, record) => {
                    self.leaves.insert(key, *record);
                }
                Write::ForgetLeaf(key) => {
                    self.leaves.remove(&key);
                }
                Write::Certificate(id, record) => self.certificates.insert(id, *record),
                Write::ForgetCertificate(id) => self.certificates.remove(&id),
                Write::Acme(host, record) => {
                    self.acme.insert(host, *record);
                }
                Write::ForgetAcme(host) => {
                    self.acme.remove(&host);
                }
                Write::AcmeAccount(account) => self.acme_account = Some(*account),
                Write::ForgetAcmeAccount => self.acme_account = None,
                Write::Published(published) => {
                    self.published = published;
                    self.revisions.insert(PUBLISHED.to_owned(), revision);
                }
            }
        }
    }

    /// The oldest ended deployment that a new one pushes out of the history.
    fn forgotten(&self, new: &Deployment) -> Option<DeploymentId> {
        if self.deployments.contains_key(&new.id) {
            return None;
        }
        let history = self.history(&SectionKey::app(&new.environment, &new.app));
        let oldest = history.last().filter(|oldest| oldest.end.is_some() && history.len() >= HISTORY_MAX)?;
        Some(oldest.id.clone())
    }

    fn guard(&self, key: &str, conditions: &mut Vec<Condition>) {
        conditions.push(match self.revisions.get(key) {
            Some(revision) => Condition::Unchanged(key.to_owned(), *revision),
            None => Condition::Absent(key.to_owned()),
        });
    }
}

/// Makes the state of a stopped controller the one that members follow, although it is older than theirs: tables of a
/// higher epoch are newer, whatever their number.
pub(crate) async fn raise_epoch(store: &dyn Store) -> Result<Cluster, StoreError> {
    let entries = store.list("cluster").await?;
    let Some(entry) = entries.iter().find(|entry| entry.key == "cluster") else {
        return Err(StoreError::Io { reason: "there is no cluster in it: no controller has run on it".to_owned() });
    };
    let mut cluster: Cluster = decode(entry)?;
    cluster.epoch += 1;
    let unchanged = Condition::Unchanged(entry.key.clone(), entry.revision);
    match store.commit(vec![unchanged], vec![Operation::Put(entry.key.clone(), encode(&cluster))]).await? {
        Outcome::Applied(_) => Ok(cluster),
        Outcome::Conflict => Err(StoreError::Io { reason: "somebody else wrote the cluster's record".to_owned() }),
    }
}

/// Commits writes and takes them over. Whoever calls it holds the pen, so a conflict means a second writer.
pub(crate) async fn commit(
    store: &dyn Store,
    records: &std::sync::Mutex<Records>,
    writes: Vec<Write>,
) -> Result<Revision, StoreError> {
    let (conditions, operations) = lock(records).transaction(&writes);
    match store.commit(conditions, operations).await? {
        Outcome::Applied(revision) => {
            lock(records).took(writes, revision);
            Ok(revision)
        }
        Outcome::Conflict => Err(StoreError::Io {
            reason: "somebody else wrote the same records: is a second controller running on this data?".to_owned(),
        }),
    }
}

pub(crate) fn lock(records: &std::sync::Mutex<Records>) -> std::sync::MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Numbers sort as text.
fn log_key(number: u64) -> String {
    format!("log/{number:012}")
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have text keys")
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Unreadable { key: entry.key.clone(), reason: error.to_string() })
}

fn section(entry: &Entry, environment: &str, app: &str) -> Result<SectionKey, StoreError> {
    SectionKey::try_from(format!("{environment}/{app}"))
        .map_err(|error| StoreError::Unreadable { key: entry.key.clone(), reason: error.to_string() })
}

fn id_of<T: std::str::FromStr<Err = appbase_core::name::NameError>>(entry: &Entry, id: &str) -> Result<T, StoreError> {
    id.parse().map_err(|error: T::Err| StoreError::Unreadable { key: entry.key.clone(), reason: error.to_string() })
}
