//! Tables that are refused, whole.

use std::collections::BTreeMap;

use appbase_core::{AppName, EnvironmentName, SectionKey};

use super::file;
use crate::v1::{NameSection, TableFile};
use crate::{Table, TableError};

fn refused(change: impl FnOnce(&mut TableFile)) -> TableError {
    let mut file = file();
    change(&mut file);
    match file.sections() {
        Ok(sections) => Table::new(&sections).expect_err("a fault"),
        Err(error) => error,
    }
}

#[test]
fn faults_are_named() {
    assert_eq!(Table::new(&BTreeMap::new()), Err(TableError::NoPlatform));
    for domain in ["", "a b", "x.local", "onion", "10.in-addr.arpa", &"a.".repeat(80)] {
        let error = refused(|file| file.platform.domain = domain.to_owned());
        assert!(matches!(error, TableError::Domain { .. }), "{domain}: {error}");
    }
    let error = refused(|file| file.platform.views[0].sources = vec!["10.0.0.0/99".to_owned()]);
    assert!(matches!(error, TableError::Source { .. }), "{error}");
    let error = refused(|file| {
        let view = file.platform.views[0].clone();
        file.platform.views = vec![view; 65];
    });
    assert_eq!(error, TableError::Views { count: 65 });
    let error = refused(|file| {
        file.platform.views[0].parts.insert("no name".to_owned(), Vec::new());
    });
    assert!(matches!(error, TableError::Name { .. }), "{error}");
}

#[test]
fn names_that_would_answer_for_one_another_are_refused() {
    let error = refused(|file| file.apps[1].app = AppName::parse("staging").expect("a name"));
    assert!(matches!(error, TableError::Collision { first: "an app", second: "an environment", .. }), "{error}");
    let error = refused(|file| {
        file.platform.views[0].parts.insert("queue".to_owned(), Vec::new());
    });
    assert!(matches!(error, TableError::Collision { .. }), "{error}");
    let error = refused(|file| {
        for instance in file.apps[0].instances.values_mut() {
            (instance.release, instance.number) = (7, 1);
        }
    });
    assert!(matches!(error, TableError::Twice { number: 1, .. }), "{error}");
    let error = refused(|file| file.apps.push(file.apps[0].clone()));
    assert!(matches!(error, TableError::Key { .. }), "{error}");
}

#[test]
fn a_section_under_a_wrong_key_is_refused() {
    let mut sections = file().sections().expect("no app twice");
    let environment = EnvironmentName::parse("staging").expect("a name");
    let key = SectionKey::app(&environment, &AppName::parse("other").expect("a name"));
    let platform = sections[&SectionKey::Platform].clone();
    for (_, section) in sections.clone() {
        sections.insert(key.clone(), section);
        assert!(matches!(Table::new(&sections), Err(TableError::Key { .. })));
    }
    assert!(matches!(platform, NameSection::Platform(_)));
}

#[test]
fn a_domain_of_several_labels_makes_no_names_above_it() {
    let mut file = file();
    file.platform.domain = "Apps.Example.COM".to_owned();
    let table = super::table_of(file);
    assert_eq!(super::ask(&table, super::HOST, "hello.apps.example.com", "A"), "NOERROR | A 127.0.0.1");
    for foreign in ["example.com", "com", "other.example.com"] {
        assert_eq!(super::ask(&table, super::STAGING, foreign, "A"), "REFUSED", "{foreign}");
    }
}

#[test]
fn live_releases_are_told() {
    let live: Vec<String> = super::table().live().iter().map(|(key, release)| format!("{key} {release}")).collect();
    assert_eq!(live, ["production/hello 7", "staging/hello 3"]);
}
