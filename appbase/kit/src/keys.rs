//! The key directory: what `platformer init` makes once and every part reads its own file of.
//!
//! ```text
//! cluster.json     {cluster, key}: whom to believe; public               0644
//! controller.key   signs tokens; the controller's alone                  0600
//! lb.token         what an lb shows the controller                       0640
//! dns.token        what a dns shows the controller                       0640
//! ```

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use appbase_core::ClusterId;
use appbase_core::claims::{Claims, ClusterKey, Scope, Trust};
use appbase_core::v1::MemberKind;

use crate::Clock;
use crate::durable::{self, DurableError};

const TRUST: &str = "cluster.json";
const KEY: &str = "controller.key";
const KINDS: [MemberKind; 2] = [MemberKind::Lb, MemberKind::Dns];

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no {path}: make the keys with platformer init --keys {directory}", directory = parent(path))]
    None { path: PathBuf },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not what platformer init wrote: restore it from a backup")]
    Unreadable { path: PathBuf },
    #[error("{path} is missing although other keys are there: restore it from a backup, or remove them all")]
    Missing { path: PathBuf },
    #[error(transparent)]
    Write(#[from] DurableError),
    #[error("cannot set the mode of {path}")]
    Mode {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn parent(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

#[derive(Debug, Clone)]
pub struct KeyDirectory(PathBuf);

impl KeyDirectory {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn trust(&self) -> Result<Trust, KeyError> {
        read_trust(&self.0.join(TRUST))
    }

    pub fn key_path(&self) -> PathBuf {
        self.0.join(KEY)
    }

    /// The signing key, with the cluster it signs for.
    pub fn signer(&self) -> Result<Signer, KeyError> {
        let (key, trust) = (self.key()?, self.trust()?);
        if key.public() != trust.key {
            return Err(KeyError::Unreadable { path: self.key_path() });
        }
        Ok(Signer { trust, key })
    }

    pub fn token(&self, kind: MemberKind) -> Result<String, KeyError> {
        read(&self.0.join(format!("{kind}.token"))).map(|text| text.trim().to_owned())
    }

    /// Makes a new cluster's keys, or what is missing of those that are there; true when they are new. A key that is
    /// there is never replaced, since everything that runs was signed with it.
    pub fn make(&self, cluster: ClusterId, key: &ClusterKey) -> Result<bool, KeyError> {
        let (trust, secret) = (self.0.join(TRUST), self.key_path());
        fs::create_dir_all(&self.0).map_err(|source| KeyError::Directory { path: self.0.clone(), source })?;
        let kept = secret.exists().then(|| self.key()).transpose()?;
        if kept.is_none() && trust.exists() {
            return Err(KeyError::Missing { path: secret });
        }
        let key = kept.as_ref().unwrap_or(key);
        let cluster = match trust.exists() {
            true => self.signer()?.trust.cluster,
            false => self.cluster_of_tokens(key).unwrap_or(cluster),
        };
        put(&secret, &key.expose(), 0o600)?;
        for member in KINDS {
            let claims = Claims {
                cluster: cluster.clone(),
                subject: member.to_string(),
                scope: Scope::Member { member },
                expires_unix_s: None,
            };
            put(&self.0.join(format!("{member}.token")), &key.sign(&claims), 0o640)?;
        }
        let public = serde_json::to_string(&Trust { cluster, key: key.public() }).expect("two texts");
        put(&trust, &public, 0o644)?;
        Ok(kept.is_none())
    }

    fn key(&self) -> Result<ClusterKey, KeyError> {
        let path = self.key_path();
        ClusterKey::parse(&read(&path)?).ok_or(KeyError::Unreadable { path })
    }

    /// The cluster that a token here was signed for with this key.
    fn cluster_of_tokens(&self, key: &ClusterKey) -> Option<ClusterId> {
        let signed = |kind: &MemberKind| key.public().signed(&self.token(*kind).ok()?).ok();
        KINDS.iter().find_map(signed).map(|claims| claims.cluster)
    }
}

/// A trust file, wherever it was put.
pub fn read_trust(path: &Path) -> Result<Trust, KeyError> {
    serde_json::from_str(&read(path)?).map_err(|_| KeyError::Unreadable { path: path.to_path_buf() })
}

/// Signs for its cluster.
#[derive(Debug, Clone)]
pub struct Signer {
    pub trust: Trust,
    key: ClusterKey,
}

impl Signer {
    pub fn sign(&self, subject: &str, scope: Scope, expires_unix_s: Option<u64>) -> String {
        let cluster = self.trust.cluster.clone();
        self.key.sign(&Claims { cluster, subject: subject.to_owned(), scope, expires_unix_s })
    }

    /// For whoever may read the key: everything, for a while.
    pub fn owner_token(&self, clock: &Clock, life_s: u64) -> String {
        self.sign("owner", Scope::Admin, Some(clock.unix_ms() / 1000 + life_s))
    }
}

fn read(path: &Path) -> Result<String, KeyError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyError::None { path: path.to_path_buf() },
        _ => KeyError::Read { path: path.to_path_buf(), source },
    })
}

/// Writes a file unless it is so already, and sees to its mode in any case: a run before may have ended in between.
fn put(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    let text = format!("{text}\n");
    if !fs::read(path).is_ok_and(|kept| kept == text.as_bytes()) {
        durable::replace(path, text.as_bytes())?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|source| KeyError::Mode { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_each_part_reads_its_own() {
        let root = tempfile::tempdir().expect("a directory");
        let keys = KeyDirectory::new(root.path().join("keys"));
        assert!(keys.trust().expect_err("nothing yet").to_string().contains("platformer init"));
        let cluster = ClusterId::parse("c1").expect("a name");
        assert!(keys.make(cluster.clone(), &ClusterKey::from_seed([1; 32])).expect("made"));
        assert!(!keys.make(cluster.clone(), &ClusterKey::from_seed([2; 32])).expect("kept"));
        let trust = keys.trust().expect("there");
        assert_eq!(trust.cluster, cluster);
        for kind in KINDS {
            let claims = trust.verify(&keys.token(kind).expect("there"), 0).expect("signed");
            assert_eq!(claims.scope, Scope::Member { member: kind });
        }
        let signer = keys.signer().expect("there");
        assert!(trust.verify(&signer.sign("me", Scope::Admin, Some(5)), 4).is_ok());
        let mode = |name: &str| {
            let path = root.path().join("keys").join(name);
            fs::metadata(path).expect("there").permissions().mode() & 0o777
        };
        assert_eq!([mode("controller.key"), mode("lb.token"), mode("cluster.json")], [0o600, 0o640, 0o644]);
    }

    #[test]
    fn what_can_be_made_again_is() {
        let root = tempfile::tempdir().expect("a directory");
        let keys = KeyDirectory::new(root.path());
        let (first, other) = (ClusterId::parse("c1").expect("a name"), ClusterId::parse("c2").expect("a name"));
        keys.make(first.clone(), &ClusterKey::from_seed([1; 32])).expect("made");
        let key = fs::read(keys.key_path()).expect("there");
        for missing in [TRUST, "lb.token", "dns.token"] {
            fs::remove_file(root.path().join(missing)).expect("removed");
            assert!(!keys.make(other.clone(), &ClusterKey::from_seed([2; 32])).expect("mended"), "{missing}");
            assert_eq!(fs::read(keys.key_path()).expect("there"), key, "{missing}");
            assert_eq!(keys.signer().expect("there").trust.cluster, first, "{missing}");
            assert!(keys.token(MemberKind::Lb).is_ok() && keys.token(MemberKind::Dns).is_ok(), "{missing}");
        }
        let trust = root.path().join(TRUST);
        fs::set_permissions(&trust, Permissions::from_mode(0o600)).expect("set");
        keys.make(other, &ClusterKey::from_seed([2; 32])).expect("kept");
        assert_eq!(fs::metadata(trust).expect("there").permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn half_a_set_is_not_mended_silently() {
        let root = tempfile::tempdir().expect("a directory");
        let keys = KeyDirectory::new(root.path());
        let cluster = ClusterId::parse("c1").expect("a name");
        keys.make(cluster.clone(), &ClusterKey::from_seed([1; 32])).expect("made");
        fs::write(keys.key_path(), ClusterKey::from_seed([2; 32]).expose()).expect("written");
        assert!(matches!(keys.signer(), Err(KeyError::Unreadable { .. })), "another cluster's key");
        fs::remove_file(keys.key_path()).expect("removed");
        let refused = keys.make(cluster, &ClusterKey::from_seed([3; 32]));
        assert!(matches!(refused, Err(KeyError::Missing { .. })));
    }
}
