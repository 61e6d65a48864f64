//! Preview: a release that is live or not, seen by who knows the app's secret.
//!
//! A table holds the SHA-256 of a secret, and what a request brings is looked up by its own: how long that takes tells
//! nothing of a secret, and a table that leaks gives none away. A secret has 26 letters and digits; those that `platformctl`
//! makes are hexadecimal, 104 bits.

use std::borrow::Cow;
use std::sync::Arc;

use appbase_core::{Digest, ReleaseNumber, Slot};

use crate::route;
use crate::rule::{Ask, Rule};
use crate::table::{Section, Table};

pub const SECRET_CHARS: usize = 26;
/// Its value is `<secret>-<slot>`.
const HEADER: &str = "x-platform-preview";

/// What a request says to see a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    secret: &'a str,
    slot: Slot,
}

impl<'a> Key<'a> {
    /// `<secret>-<slot>`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (secret, slot) = text.split_at_checked(SECRET_CHARS)?;
        let slot = match slot {
            "-blue" => Slot::Blue,
            "-green" => Slot::Green,
            _ => return None,
        };
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        secret.bytes().all(is_plain).then_some(Self { secret, slot })
    }
}

/// By the first label of a canonical host: the domain behind it says nothing.
pub fn by_host<'a>(table: &'a Table, host: &str) -> Option<(&'a Arc<Section>, ReleaseNumber)> {
    let (label, _) = host.split_once('.')?;
    by_key(table, Key::parse(label)?)
}

pub fn by_key<'a>(table: &'a Table, key: Key<'_>) -> Option<(&'a Arc<Section>, ReleaseNumber)> {
    let section = table.previews.get(&Digest::of(key.secret.as_bytes()))?;
    let release = section.published.preview.as_ref()?.slots.get(&key.slot)?;
    Some((section, *release))
}

/// A host as it may be written down: without its secret.
pub fn masked(host: &str) -> Cow<'_, str> {
    match host.split_once('.').and_then(|(label, domain)| Some((Key::parse(label)?, domain))) {
        Some((key, domain)) => Cow::Owned(format!("(preview)-{}.{domain}", key.slot)),
        None => Cow::Borrowed(host),
    }
}

/// The rule for a request, and the release it asked to see when it knows a secret.
pub fn find<'a>(table: &'a Table, ask: &Ask<'_>) -> Option<(&'a Arc<Rule>, Option<ReleaseNumber>)> {
    if !table.has_previews() {
        return Some((route::find(table, ask)?, None));
    }
    if let Some((section, release)) = ask.host.and_then(|host| by_host(table, host)) {
        return Some((route::find_in(table.previewed(&section.key), ask)?, Some(release)));
    }
    let rule = route::find(table, ask)?;
    let said = ask.fields.iter().find(|field| field.name.eq_ignore_ascii_case(HEADER));
    let key = said.and_then(|field| Key::parse(std::str::from_utf8(field.value).ok()?));
    let shown = key.and_then(|key| by_key(table, key));
    let release = shown.filter(|(section, _)| section.key == rule.section.key).map(|(_, release)| release);
    Some((rule, release))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::table::tests::section;
    use crate::v1::Preview;

    const SECRET: &str = "abcdefghijklmnopqrstuvwx12";

    fn table() -> Table {
        let (key, mut published) = section("shop", &[(None, "/")]);
        published.preview =
            Some(Preview { secret: Digest::of(SECRET.as_bytes()), slots: [(Slot::Blue, 1), (Slot::Green, 2)].into() });
        Table::new(&BTreeMap::from([(key, published)])).expect("sound")
    }

    #[test]
    fn only_the_whole_secret_leads_to_a_slot() {
        let table = table();
        let release = |host: &str| by_host(&table, host).map(|(_, release)| release);
        assert_eq!(release(&format!("{SECRET}-blue.platform")), Some(1));
        assert_eq!(release(&format!("{SECRET}-green.localhost")), Some(2));
        assert_eq!(masked(&format!("{SECRET}-green.any.test")), "(preview)-green.any.test");
        assert_eq!(masked("shop.any.test"), "shop.any.test");
        for other in [
            format!("www.{SECRET}-green.platform"),
            format!("{SECRET}-red.platform"),
            format!("{SECRET}.platform"),
            format!("{}3-blue.platform", &SECRET[..25]),
            "shop-blue.platform".to_owned(),
            "platform".to_owned(),
        ] {
            assert_eq!(release(&other), None, "{other}");
        }
    }

    #[test]
    fn two_apps_have_two_secrets() {
        let table = table();
        let (key, mut other) = section("other", &[]);
        other.preview = table.sections().next().and_then(|section| section.published.preview.clone());
        let mut sections: BTreeMap<_, _> =
            table.sections().map(|section| (section.key.clone(), section.published.clone())).collect();
        sections.insert(key, other);
        assert!(Table::new(&sections).expect_err("refused").to_string().contains("preview"));
    }
}
