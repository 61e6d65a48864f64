//! Certificates: what they are for and how long they last.

use std::collections::BTreeSet;

use controller_core::certificates::ends_soon;
use controller_core::v1::api::{CertificateAnswer, CertificateView};

use super::table::{Cell, Column, cell, table, toned};
use super::{Paint, Tone, number};
use crate::safe;

const DAY_MS: u64 = 86_400_000;

pub(crate) fn list(certificates: &[CertificateView], now_unix_ms: u64, width: usize, paint: Paint) -> String {
    // Only who asks an authority of the world can have some.
    let has_problems = certificates.iter().any(|one| one.problem.is_some());
    let mut columns = vec![
        Column::Id("CERTIFICATE"),
        Column::Text("NAMES"),
        Column::Text("ISSUER"),
        Column::Id("ENDS"),
        Column::Text("SHOWN FOR"),
    ];
    columns.extend(has_problems.then_some(Column::Text("PROBLEM")));
    let rows: Vec<Vec<Cell>> = certificates
        .iter()
        .map(|one| {
            let tone = match one.until_unix_ms {
                0 => Tone::Plain,
                until if until <= now_unix_ms => Tone::Bad,
                until if ends_soon(until, now_unix_ms) => Tone::Warn,
                _ => Tone::Plain,
            };
            let apps = one.apps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let ends = match one.until_unix_ms {
                0 => String::new(),
                until => left(until, now_unix_ms),
            };
            let mut row =
                vec![cell(&one.id), cell(words(&one.names)), cell(&one.issuer), toned(tone, ends), cell(apps)];
            row.extend(has_problems.then(|| toned(Tone::Bad, one.problem.clone().unwrap_or_default())));
            row
        })
        .collect();
    table(&columns, &rows, width, paint)
}

/// `in 12 d`, `in 5 h`, `3 d ago`.
pub(crate) fn left(until_unix_ms: u64, now_unix_ms: u64) -> String {
    match until_unix_ms.checked_sub(now_unix_ms) {
        Some(left) if left < 2 * DAY_MS => format!("in {} h", left / 3_600_000),
        Some(left) => format!("in {} d", left / DAY_MS),
        None => format!("{} d ago", (now_unix_ms - until_unix_ms) / DAY_MS),
    }
}

pub(crate) fn added(answer: &CertificateAnswer) -> String {
    let one = &answer.certificate;
    let (names, until) = (safe::line(&words(&one.names)), number::time(one.until_unix_ms));
    let apps = one.apps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let shown = if apps.is_empty() { String::new() } else { format!(", shown for {apps}") };
    format!("certificate {} for {names} {}: until {until}{shown}\n", safe::line(&one.id), safe::line(&answer.outcome))
}

pub(crate) fn words(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn certificates_and_when_they_end() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let view = |id: &str, names: &[&str], days: u64, apps: &[&str]| {
            json!({"id": id, "names": names, "source": "uploaded", "issuer": "Example CA", "from_unix_ms": 0,
                "until_unix_ms": days * DAY_MS, "fingerprint": digest, "apps": apps})
        };
        let views: Vec<CertificateView> = serde_json::from_value(json!([
            view("shop.example-1", &["shop.example", "www.shop.example"], 100, &["production/shop"]),
            view("soon.example-2", &["soon.example"], 12, &[]),
            view("over.example-3", &["over.example"], 7, &[]),
        ]))
        .expect("certificates");
        assert_eq!(
            list(&views, 10 * DAY_MS, usize::MAX, Paint::OFF),
            "\
CERTIFICATE     NAMES                           ISSUER      ENDS     SHOWN FOR
shop.example-1  shop.example, www.shop.example  Example CA  in 90 d  production/shop
soon.example-2  soon.example                    Example CA  in 2 d   -
over.example-3  over.example                    Example CA  3 d ago  -
"
        );
        let painted = list(&views[1..], 10 * DAY_MS, usize::MAX, Paint { on: true });
        assert!(painted.contains("\u{1b}[33min 2 d") && painted.contains("\u{1b}[31m3 d ago"), "{painted:?}");
        assert_eq!(left(3_600_000 * 5, 0), "in 5 h");
        let failed = json!({"id": "acme:shop.example", "names": ["shop.example"], "source": "acme", "issuer": "",
            "from_unix_ms": 0, "until_unix_ms": 0, "apps": [], "problem": "dns: no address"});
        let failed: Vec<CertificateView> = serde_json::from_value(json!([failed, views[1]])).expect("certificates");
        assert_eq!(
            list(&failed, 10 * DAY_MS, usize::MAX, Paint::OFF),
            "\
CERTIFICATE        NAMES         ISSUER      ENDS    SHOWN FOR  PROBLEM
acme:shop.example  shop.example  -           -       -          dns: no address
soon.example-2     soon.example  Example CA  in 2 d  -          -
"
        );
        let answer = CertificateAnswer { outcome: "added".to_owned(), certificate: views[0].clone() };
        assert_eq!(
            added(&answer),
            "certificate shop.example-1 for shop.example, www.shop.example added: until 1970-04-11 00:00:00Z, shown for production/shop\n"
        );
    }
}
