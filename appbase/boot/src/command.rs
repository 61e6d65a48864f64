//! Command: which program with which environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use appbase_core::v1::{InstanceConfig, InstanceSpec, Value};

/// What an app finds in PATH when nothing says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the app's environment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing but PATH and HOME: on the process engine, what surrounds the controller is none of an app's business.
    Empty,
    /// What boot itself was given: in a container that is the image's own.
    Inherited,
}

/// The command of the release, or `words` where an image brings its own.
pub(crate) fn command(
    config: &InstanceConfig,
    spec: &InstanceSpec,
    words: &[OsString],
    app: &Path,
    base: Base,
) -> Result<Command, String> {
    let own: Vec<OsString>;
    let in_image = !words.is_empty();
    let words = if in_image {
        words
    } else {
        own = spec.command.iter().map(OsString::from).collect();
        &own
    };
    let Some((program, arguments)) = words.split_first() else {
        return Err("the release names no command: set `command` in platform.toml".to_owned());
    };
    let mut command = Command::new(if in_image { program.into() } else { resolve(program, app) });
    command.args(arguments);
    if !in_image {
        command.current_dir(app);
    }
    if base == Base::Empty {
        command.env_clear();
    }
    for (name, value) in [("PATH", OsStr::new(PATH)), ("HOME", app.as_os_str())] {
        if base == Base::Empty || std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    command.envs(environment(config, spec));
    if base == Base::Empty {
        // By this the engine tells an app from a stranger once its boot is gone.
        command.env("PLATFORM_INSTANCE_DIRECTORY", app.parent().unwrap_or(app));
    }
    Ok(command)
}

/// A path is taken from `app/`, and so is a bare name that `app/` holds; any other name is searched for in PATH.
fn resolve(program: &OsStr, app: &Path) -> PathBuf {
    let inside = app.join(program);
    let is_path = program.as_encoded_bytes().contains(&b'/');
    if is_path || inside.is_file() { inside } else { program.into() }
}

/// Who the instance is, then the release's values, then what the controller gave this instance: the last one wins.
fn environment(config: &InstanceConfig, spec: &InstanceSpec) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("PLATFORM_APP".to_owned(), config.app.to_string()),
        ("PLATFORM_ENVIRONMENT".to_owned(), config.environment.to_string()),
        ("PLATFORM_INSTANCE".to_owned(), config.instance.to_string()),
        ("PLATFORM_PROCESS".to_owned(), config.process.to_string()),
        ("PLATFORM_RELEASE".to_owned(), config.release.to_string()),
        ("PLATFORM_VERSION".to_owned(), config.version.to_string()),
    ]);
    all.extend(spec.port.map(|port| ("PORT".to_owned(), port.to_string())));
    for (name, value) in &spec.values {
        if let Value::Plain(text) = value {
            all.insert(name.clone(), text.clone());
        }
    }
    all.extend(config.environment_variables.clone());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> InstanceConfig {
        let digest = appbase_core::Digest::of(b"document");
        let json = serde_json::json!({
            "instance": "shop-v1-r1-web-1", "environment": "production", "app": "shop", "version": "1",
            "process": "web", "number": 1, "release": 1, "document": digest, "repository": "http://repository",
            "environment_variables": {"PORT": "20001", "BOTH": "config"},
        });
        serde_json::from_value(json).expect("a config")
    }

    fn spec(words: &[&str]) -> InstanceSpec {
        let json = serde_json::json!({
            "source": {"kind": "artifact", "layers": []}, "command": words, "port": 8080, "stop_grace_ms": 1000,
            "values": {"BOTH": {"plain": "release"}, "ONE": {"plain": "1"}},
        });
        serde_json::from_value(json).expect("a spec")
    }

    #[test]
    fn programs_are_found_in_the_artifact_first() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("serve"), "").expect("written");
        let program = |words: &[&str]| {
            let command = command(&config(), &spec(words), &[], directory.path(), Base::Empty).expect("a command");
            assert_eq!(command.get_current_dir(), Some(directory.path()));
            PathBuf::from(command.get_program())
        };
        assert_eq!(program(&["./bin/x", "y"]), directory.path().join("./bin/x"));
        assert_eq!(program(&["bin/x"]), directory.path().join("bin/x"));
        assert_eq!(program(&["serve"]), directory.path().join("serve"));
        assert_eq!(program(&["python3"]), PathBuf::from("python3"));
        assert_eq!(program(&["/bin/sh"]), PathBuf::from("/bin/sh"));
        assert!(command(&config(), &spec(&[]), &[], directory.path(), Base::Empty).is_err());
    }

    #[test]
    fn an_image_runs_where_it_is() {
        let words = [OsString::from("./entrypoint"), OsString::from("x")];
        let command = command(&config(), &spec(&["ignored"]), &words, Path::new("/a"), Base::Inherited).expect("one");
        assert_eq!((command.get_program(), command.get_current_dir()), (OsStr::new("./entrypoint"), None));
    }

    #[test]
    fn what_the_controller_gives_wins() {
        let all = environment(&config(), &spec(&[]));
        let get = |name: &str| all.get(name).map(String::as_str);
        assert_eq!((get("PORT"), get("BOTH"), get("ONE")), (Some("20001"), Some("config"), Some("1")));
        assert_eq!(get("PLATFORM_INSTANCE"), Some("shop-v1-r1-web-1"));
    }
}
