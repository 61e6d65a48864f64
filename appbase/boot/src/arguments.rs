//! Arguments: the two forms in which boot is started.

use std::ffi::OsString;
use std::path::PathBuf;

use appbase_core::AppName;

pub const HELP: &str = "\
usage: boot run --config FILE [--dir DIR] [--session] [-- WORD...]
       boot APP REPOSITORY

  run            starts the instance that FILE (instance.json) describes
    --config     the instance's description, written by the controller
    --dir        the instance's own directory; default: the directory of FILE
    --session    begins a session of its own, keeps the app's log and restarts the app when FILE says so
    -- WORD...   runs these words (an image's own entrypoint) instead of the release's command
  APP REPOSITORY fetches the live release of APP from REPOSITORY (host, host:port or http://host:port) and runs it
                 in the directory that BOOT_DIR names (default /app)
";

/// Where the live form unpacks unless `BOOT_DIR` says otherwise.
const LIVE_DIRECTORY: &str = "/app";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    Start(Job),
    Help,
    Version,
}

/// One start of boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub wanted: WantedFrom,
    pub directory: PathBuf,
    pub session: bool,
    /// An image's own entrypoint and arguments; empty: the release's command.
    pub words: Vec<OsString>,
}

/// Where it stands which release to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedFrom {
    Config(PathBuf),
    /// The release that serves now: its tag is asked at every start.
    Live {
        app: AppName,
        repository: String,
    },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    #[error("nothing to start: name a config, or an app and its repository")]
    Nothing,
    #[error("unknown argument {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value after it")]
    NoValue(&'static str),
    #[error("run needs --config FILE")]
    NoConfig,
    #[error(transparent)]
    App(#[from] appbase_core::name::NameError),
    #[error("repository {0:?} is not a host, host:port or http:// address without a path")]
    Repository(OsString),
}

pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    live_directory: Option<OsString>,
) -> Result<Form, ArgumentError> {
    let mut arguments = arguments.into_iter();
    let first = arguments.next().ok_or(ArgumentError::Nothing)?;
    match first.to_str() {
        Some("-h" | "--help" | "help") => Ok(Form::Help),
        Some("-V" | "--version") => Ok(Form::Version),
        Some("run") => parse_run(arguments),
        _ => {
            let app = AppName::parse(&first.to_string_lossy())?;
            let repository = parse_repository(arguments.next().ok_or(ArgumentError::NoValue("the app's name"))?)?;
            if let Some(more) = arguments.next() {
                return Err(ArgumentError::Unknown(more));
            }
            let directory = live_directory.unwrap_or_else(|| LIVE_DIRECTORY.into()).into();
            let wanted = WantedFrom::Live { app, repository };
            Ok(Form::Start(Job { wanted, directory, session: false, words: Vec::new() }))
        }
    }
}

fn parse_run(mut arguments: impl Iterator<Item = OsString>) -> Result<Form, ArgumentError> {
    let (mut config, mut directory, mut session, mut words) = (None, None, false, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => {
                config = Some(PathBuf::from(arguments.next().ok_or(ArgumentError::NoValue("--config"))?));
            }
            Some("--dir") => {
                directory = Some(PathBuf::from(arguments.next().ok_or(ArgumentError::NoValue("--dir"))?));
            }
            Some("--session") => session = true,
            Some("--") => words = arguments.by_ref().collect(),
            Some("-h" | "--help") => return Ok(Form::Help),
            _ => return Err(ArgumentError::Unknown(argument)),
        }
    }
    let config = config.ok_or(ArgumentError::NoConfig)?;
    let beside = || config.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Into::into);
    let directory = directory.or_else(beside).unwrap_or_else(|| PathBuf::from("."));
    Ok(Form::Start(Job { wanted: WantedFrom::Config(config), directory, session, words }))
}

/// The base URL; a bare host means HTTP.
fn parse_repository(text: OsString) -> Result<String, ArgumentError> {
    let Some(plain) = text.to_str() else { return Err(ArgumentError::Repository(text)) };
    let host = plain.strip_prefix("http://").unwrap_or(plain).trim_end_matches('/');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(allowed) {
        return Err(ArgumentError::Repository(text));
    }
    Ok(format!("http://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Form, ArgumentError> {
        parse(text.split_whitespace().map(OsString::from), None)
    }

    #[test]
    fn run_takes_its_directory_from_the_config() {
        let job = |directory: &str, session, words: &[&str]| {
            let words = words.iter().map(OsString::from).collect();
            Ok(Form::Start(Job {
                wanted: WantedFrom::Config("/i/c.json".into()),
                directory: directory.into(),
                session,
                words,
            }))
        };
        assert_eq!(parsed("run --config /i/c.json"), job("/i", false, &[]));
        assert_eq!(parsed("run --session --config /i/c.json --dir /d"), job("/d", true, &[]));
        assert_eq!(parsed("run --config /i/c.json -- nginx --dir x"), job("/i", false, &["nginx", "--dir", "x"]));
    }

    #[test]
    fn live_form_makes_a_base_url() {
        for text in ["shop repo:8082", "shop http://repo:8082/"] {
            let Ok(Form::Start(job)) = parsed(text) else { panic!("{text}") };
            let app = AppName::parse("shop").expect("a name");
            assert_eq!(job.wanted, WantedFrom::Live { app, repository: "http://repo:8082".to_owned() });
            assert_eq!(job.directory, PathBuf::from("/app"));
        }
    }

    #[test]
    fn what_is_not_a_start_is_refused() {
        for text in
            ["", "run", "run --config", "run --conf x", "shop", "shop a b", "Shop a", "shop https://a", "shop a/b"]
        {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
