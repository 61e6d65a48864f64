//! Trust: puts the platform's authority into the store of this system, or takes it out again. What is to be done is data
//! first, so that a person who is not root gets exactly the commands that root would have run.
//!
//! Refuses a shell: programs are run with their arguments, one by one.

mod authority;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use appbase_core::ClusterId;

pub(crate) use self::authority::check;
use crate::error::{Exit, Failure};

/// How a system keeps the authorities that all its programs trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian, Ubuntu, Alpine: a directory and `update-ca-certificates`.
    Debian,
    /// Fedora, RHEL and their like: a directory and `update-ca-trust`.
    Fedora,
    MacOs,
}

const DEBIAN_ANCHORS: &str = "usr/local/share/ca-certificates";
const FEDORA_ANCHORS: &str = "etc/pki/ca-trust/source/anchors";
const MACOS_KEYCHAIN: &str = "/Library/Keychains/System.keychain";

impl System {
    /// By what is there; `root` is `/`.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        match () {
            () if cfg!(target_os = "macos") => Some(Self::MacOs),
            () if root.join(DEBIAN_ANCHORS).is_dir() => Some(Self::Debian),
            () if root.join(FEDORA_ANCHORS).is_dir() => Some(Self::Fedora),
            () => None,
        }
    }

    fn file(self, root: &Path, cluster: &ClusterId) -> PathBuf {
        match self {
            Self::Debian => root.join(DEBIAN_ANCHORS).join(format!("platformer-{cluster}.crt")),
            Self::Fedora => root.join(FEDORA_ANCHORS).join(format!("platformer-{cluster}.pem")),
            // A name for people's own commands: root's file has one that nobody can know before.
            Self::MacOs => PathBuf::from(format!("platformer-{cluster}.pem")),
        }
    }

    pub(crate) fn install(self, root: &Path, cluster: &ClusterId) -> Plan {
        let file = self.file(root, cluster);
        match self {
            Self::Debian => Plan { file: File::Write(file), run: words(&["update-ca-certificates"]) },
            Self::Fedora => Plan { file: File::Write(file), run: words(&["update-ca-trust"]) },
            Self::MacOs => {
                let run = words(&["security", "add-trusted-cert", "-d", "-r", "trustRoot", "-k", MACOS_KEYCHAIN]);
                Plan { file: File::Give(file), run }
            }
        }
    }

    pub(crate) fn remove(self, root: &Path, cluster: &ClusterId) -> Plan {
        let file = self.file(root, cluster);
        let name = format!("platformer {cluster}");
        match self {
            Self::Debian => Plan { file: File::Remove(file), run: words(&["update-ca-certificates", "--fresh"]) },
            Self::Fedora => Plan { file: File::Remove(file), run: words(&["update-ca-trust"]) },
            Self::MacOs => {
                let run = words(&["security", "delete-certificate", "-t", "-c", &name, MACOS_KEYCHAIN]);
                Plan { file: File::Leave, run }
            }
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum File {
    Write(PathBuf),
    /// For the program alone: its last argument, gone afterwards. People call theirs by this name.
    Give(PathBuf),
    Remove(PathBuf),
    Leave,
}

/// A file, then a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) file: File,
    pub(crate) run: Vec<String>,
}

impl Plan {
    /// The same as commands for a person who may become root. `own` is what prints the certificate.
    pub(crate) fn by_hand(&self, own: &str) -> Vec<String> {
        let run: Vec<String> = self.run.iter().map(|word| quoted(word)).collect();
        let run = format!("sudo {}", run.join(" "));
        match &self.file {
            File::Write(file) => {
                vec![format!("{own} | sudo tee {} >/dev/null", quoted(&file.display().to_string())), run]
            }
            File::Give(file) => {
                let file = quoted(&file.display().to_string());
                vec![format!("{own} >{file}"), format!("{run} {file}")]
            }
            File::Remove(file) => vec![format!("sudo rm {}", quoted(&file.display().to_string())), run],
            File::Leave => vec![run],
        }
    }

    /// Whether there is nothing to take away.
    pub(crate) fn is_done(&self) -> bool {
        matches!(&self.file, File::Remove(file) if !file.exists())
    }

    pub(crate) fn carry_out(&self, certificate: &str) -> Result<(), Failure> {
        // Removed when it is dropped.
        let mut given = None;
        match &self.file {
            File::Write(file) => write(file, certificate)?,
            File::Give(_) => given = Some(give(certificate)?),
            File::Remove(file) => {
                fs::remove_file(file).map_err(|error| Failure::io("remove", file, &error))?;
            }
            File::Leave => {}
        }
        let (program, arguments) = self.run.split_first().expect("a plan names a program");
        let given = given.as_ref().map(|file| file.path());
        let run = Command::new(program).args(arguments).args(given).output();
        let run = run.map_err(|error| Failure::new(Exit::NotFound, format!("cannot run {program}: {error}")))?;
        if run.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&run.stderr);
        let reason = said.lines().last().unwrap_or("it said nothing").trim();
        Err(Failure::new(Exit::Unexpected, format!("{program} failed: {reason}")))
    }
}

/// A file that was not there before, under a name that nobody could know, for its maker alone.
fn give(certificate: &str) -> Result<tempfile::NamedTempFile, Failure> {
    let failed = |error: std::io::Error| Failure::io("write", &std::env::temp_dir(), &error);
    let mut file = tempfile::Builder::new().prefix("platformer-").suffix(".pem").tempfile().map_err(failed)?;
    file.write_all(certificate.as_bytes()).map_err(failed)?;
    Ok(file)
}

/// For everybody to read, whatever the mask: programs of all users look at it.
pub(crate) fn write(file: &Path, certificate: &str) -> Result<(), Failure> {
    let opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(file);
    let written = opened.and_then(|mut opened| {
        opened.write_all(certificate.as_bytes())?;
        opened.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
    });
    written.map_err(|error| Failure::io("write", file, &error))
}

/// A word as a shell of the person's takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n";

    fn cluster() -> ClusterId {
        ClusterId::parse("c1").expect("a name")
    }

    #[test]
    fn a_system_is_known_by_its_directory() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(System::find(root.path()), None);
        fs::create_dir_all(root.path().join(FEDORA_ANCHORS)).expect("made");
        assert_eq!(System::find(root.path()), Some(System::Fedora));
        fs::create_dir_all(root.path().join(DEBIAN_ANCHORS)).expect("made");
        assert_eq!(System::find(root.path()), Some(System::Debian));
    }

    #[test]
    fn who_is_not_root_gets_the_commands() {
        let own = "platformctl cert trust --out -";
        let root = Path::new("/");
        let by_hand = |plan: Plan| plan.by_hand(own);
        assert_eq!(
            by_hand(System::Debian.install(root, &cluster())),
            [
                "platformctl cert trust --out - | sudo tee /usr/local/share/ca-certificates/platformer-c1.crt >/dev/null",
                "sudo update-ca-certificates"
            ]
        );
        assert_eq!(
            by_hand(System::Fedora.remove(root, &cluster())),
            ["sudo rm /etc/pki/ca-trust/source/anchors/platformer-c1.pem", "sudo update-ca-trust"]
        );
        assert_eq!(
            by_hand(System::MacOs.remove(root, &cluster())),
            ["sudo security delete-certificate -t -c 'platformer c1' /Library/Keychains/System.keychain"]
        );
        let add = by_hand(System::MacOs.install(root, &cluster()));
        assert_eq!(add[0], "platformctl cert trust --out - >platformer-c1.pem");
        assert!(add[1].starts_with("sudo security add-trusted-cert -d -r trustRoot -k /Library"), "{add:?}");
        assert!(add[1].ends_with(" platformer-c1.pem"), "{add:?}");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }

    #[test]
    fn a_plan_is_carried_out_and_taken_back() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join(DEBIAN_ANCHORS)).expect("made");
        let file = root.path().join(DEBIAN_ANCHORS).join("platformer-c1.crt");
        let with = |plan: Plan, program: &str| Plan { run: vec![program.to_owned()], ..plan };
        let install = System::Debian.install(root.path(), &cluster());
        with(install.clone(), "true").carry_out(PEM).expect("written");
        assert_eq!(fs::read_to_string(&file).expect("there"), PEM);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o644);
        let failed = with(install.clone(), "false").carry_out(PEM).expect_err("it failed");
        assert_eq!((failed.exit, failed.message.as_str()), (Exit::Unexpected, "false failed: it said nothing"));
        let missing = with(install, "no-such-program").carry_out(PEM).expect_err("not there");
        assert_eq!(missing.exit, Exit::NotFound);
        let remove = with(System::Debian.remove(root.path(), &cluster()), "true");
        assert!(!remove.is_done());
        remove.carry_out("").expect("removed");
        assert!(!file.exists() && remove.is_done());
    }

    #[test]
    fn a_file_that_is_given_is_private_has_another_name_each_time_and_goes() {
        let seen = tempfile::NamedTempFile::new().expect("a file");
        let into = seen.path().display();
        let script = format!("stat -c '%a %n' \"$1\" >>{into}; cat \"$1\" >>{into}");
        let run = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        let install = Plan { run, ..System::MacOs.install(Path::new("/"), &cluster()) };
        install.carry_out(PEM).expect("run");
        install.carry_out(PEM).expect("run");
        let said = fs::read_to_string(&seen).expect("text");
        let named: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("600 ")).collect();
        assert!(named.len() == 2 && named[0] != named[1] && said.contains(PEM), "{said}");
        assert!(named.iter().all(|name| !Path::new(name).exists()), "{said}");
    }
}
