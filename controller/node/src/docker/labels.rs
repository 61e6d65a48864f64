//! Labels: the truth about an instance, as Docker keeps it with the container. Pure.

use std::collections::BTreeMap;
use std::str::FromStr;

use appbase_core::Slot;
use appbase_core::v1::label;
use controller_core::v1::compute::InstanceLabels;

/// Which part of the platform a container is (`lb`, `dns`, `repository`); set by compose, never on an instance.
pub const PART: &str = "io.platformer.part";
/// The platform on this engine that something belongs to, so that `make down` finds it without asking anyone. Compose
/// marks the parts with a label of its own.
pub const PROJECT: &str = "io.platformer.project";
pub const PROJECT_DEFAULT: &str = "platformer";

/// Whether a label says something about the platform, so that no image may say it.
pub(crate) fn is_reserved(name: &str) -> bool {
    ["io.platformer.", "com.docker.compose."].iter().any(|prefix| name.starts_with(prefix))
}

/// Which label cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label {name} is {found}")]
pub(crate) struct LabelError {
    name: &'static str,
    found: String,
}

pub(crate) fn render(labels: &InstanceLabels) -> BTreeMap<String, String> {
    let mut map = BTreeMap::from([
        (label::CLUSTER, labels.cluster.to_string()),
        (label::ENVIRONMENT, labels.environment.to_string()),
        (label::APP, labels.app.to_string()),
        (label::VERSION, labels.version.to_string()),
        (label::PROCESS, labels.process.to_string()),
        (label::NUMBER, labels.number.to_string()),
        (label::RELEASE, labels.release.to_string()),
        (label::DOCUMENT, labels.document.to_string()),
        (label::SPEC, labels.spec.to_string()),
        (label::SLOT, labels.slot.to_string()),
        (label::SERVER, labels.server.to_string()),
    ]);
    if let Some(address) = labels.address {
        map.insert(label::ADDRESS, address.to_string());
    }
    map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `get` looks one label up.
pub(crate) fn parse<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<InstanceLabels, LabelError> {
    fn read<T: FromStr>(name: &'static str, found: Option<&str>) -> Result<T, LabelError> {
        let text = found.ok_or(LabelError { name, found: "missing".to_owned() })?;
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            LabelError { name, found: format!("unreadable (\"{}\")", shown.escape_debug()) }
        })
    }
    let slot = match get(label::SLOT) {
        Some("blue") => Slot::Blue,
        Some("green") => Slot::Green,
        other => {
            let found = if other.is_some() { "neither blue nor green" } else { "missing" };
            return Err(LabelError { name: label::SLOT, found: found.to_owned() });
        }
    };
    Ok(InstanceLabels {
        cluster: read(label::CLUSTER, get(label::CLUSTER))?,
        environment: read(label::ENVIRONMENT, get(label::ENVIRONMENT))?,
        app: read(label::APP, get(label::APP))?,
        version: read(label::VERSION, get(label::VERSION))?,
        process: read(label::PROCESS, get(label::PROCESS))?,
        number: read(label::NUMBER, get(label::NUMBER))?,
        release: read(label::RELEASE, get(label::RELEASE))?,
        document: read(label::DOCUMENT, get(label::DOCUMENT))?,
        spec: read(label::SPEC, get(label::SPEC))?,
        slot,
        server: read(label::SERVER, get(label::SERVER))?,
        address: match get(label::ADDRESS) {
            None => None,
            found => Some(read(label::ADDRESS, found)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::fixture;

    #[test]
    fn what_is_rendered_is_read_back_and_nothing_less() {
        let labels = fixture::request().labels;
        let map = render(&labels);
        assert_eq!(parse(|name| map.get(name).map(String::as_str)), Ok(labels.clone()));
        for gone in map.keys().filter(|name| *name != label::ADDRESS) {
            let error = parse(|name| map.get(name).filter(|_| name != gone).map(String::as_str)).expect_err(gone);
            assert!(error.to_string().contains(gone.as_str()), "{error}");
        }
        let without = parse(|name| map.get(name).filter(|_| name != label::ADDRESS).map(String::as_str));
        assert_eq!(without, Ok(InstanceLabels { address: None, ..labels }));
        let wrong = parse(|name| if name == label::NUMBER { Some("-1") } else { map.get(name).map(String::as_str) });
        assert!(wrong.is_err());
    }
}
