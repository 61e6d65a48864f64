//! Certificates that people upload, and what there is to see of all. A key comes in here and never goes out.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use appbase_core::SectionKey;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use controller_core::acme::acme_id;
use controller_core::certificates::{Offer, SHOWN_BYTES_MAX, Uploaded, id, is_overdue, live_routes, local_id};
use controller_core::v1::api::{AuthorityView, CertificateAnswer, CertificateRequest, CertificateView};
use controller_core::v1::state::{AcmeRecord, CertificateRecord, EventKind};
use kit::problem::Problem;

use super::{Answer, App};
use crate::access::Caller;
use crate::journal::About;
use crate::reconcile::in_words;
use crate::records::{Records, Write, lock};
use crate::tables::Rendered;
use crate::x509;

/// Enough for every name of one cluster.
const CERTIFICATES_MAX: usize = 1000;
/// Of all together, keys included.
const BYTES_MAX: usize = 8 << 20;

pub(super) async fn add(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CertificateRequest>,
) -> Result<(StatusCode, Json<CertificateAnswer>), Problem> {
    let _pen = shared.pen.lock().await;
    let now = shared.clock.unix_ms();
    let record = x509::uploaded(&request.chain, &request.key.0, now).map_err(|error| {
        let (code, hint) = error.code();
        let status = if code == "certificate-too-large" { 413 } else { 422 };
        Problem::new(status, code, error.to_string()).hint(hint)
    })?;
    let id = id(&record.certificate.names);
    let (outcome, status) = {
        let records = lock(&shared.records);
        match records.certificates.records().get(&id) {
            Some(known) if *known == record => ("unchanged", StatusCode::OK),
            known => {
                refuse_too_much(&records.certificates, &id, &record)?;
                refuse_unsound(&shared, &records, &id, &record)?;
                if known.is_some() { ("replaced", StatusCode::OK) } else { ("added", StatusCode::CREATED) }
            }
        }
    };
    if outcome != "unchanged" {
        let names = in_words(&record.certificate.names);
        shared.commit(vec![Write::Certificate(id.clone(), Box::new(record.clone()))]).await?;
        let text = format!("certificate {id} for {names} {outcome} by {}", caller.name);
        shared.journal.write(now, &About::default(), EventKind::Changed, &text);
        publish(&shared).await;
    }
    let apps = shown_for(&lock(&shared.records)).remove(&id).unwrap_or_default();
    let certificate = view(id, "uploaded", &record, apps);
    Ok((status, Json(CertificateAnswer { outcome: outcome.to_owned(), certificate })))
}

fn refuse_too_much(uploaded: &Uploaded, id: &str, record: &CertificateRecord) -> Result<(), Problem> {
    let size = |record: &CertificateRecord| record.certificate.bytes();
    let others = uploaded.records().iter().filter(|(other, _)| *other != id);
    let (count, bytes) = others.fold((0, 0), |(count, bytes), (_, other)| (count + 1, bytes + size(other)));
    if count < CERTIFICATES_MAX && bytes + size(record) <= BYTES_MAX {
        return Ok(());
    }
    let title = format!("at most {CERTIFICATES_MAX} certificates, and {BYTES_MAX} bytes of all together");
    Err(Problem::new(409, "too-many-certificates", title).hint("remove what ended: platformctl cert ls"))
}

/// What lb would refuse is not stored: it takes a table whole or not at all.
fn refuse_unsound(shared: &App, records: &Records, id: &str, record: &CertificateRecord) -> Result<(), Problem> {
    let mut uploaded = records.certificates.clone();
    uploaded.insert(id.to_owned(), record.clone());
    let rendered = Rendered::with(records, &shared.config, &uploaded);
    let offer = Offer { uploaded: Some(&uploaded), ..Offer::default() };
    let bytes = rendered.routes.values().map(|section| offer.uploaded_bytes(&section.routes)).sum::<usize>();
    if bytes > SHOWN_BYTES_MAX {
        let title = format!("the certificates for all hosts would be {bytes} bytes, {SHOWN_BYTES_MAX} are the most");
        return Err(Problem::new(409, "too-many-certificates", title).hint(
            "a route for every host shows every certificate: name its hosts, or remove some: platformctl cert ls",
        ));
    }
    let refused = lb_core::Table::new(&rendered.routes).err();
    refused.map_or(Ok(()), |error| {
        Err(Problem::new(422, "unsound", "lbs would refuse a table with this certificate").detail(error.to_string()))
    })
}

pub(super) async fn list(State(shared): State<App>) -> Answer<Vec<CertificateView>> {
    let records = lock(&shared.records);
    let mut apps = shown_for(&records);
    let uploaded = records.certificates.records().iter();
    let mut views: Vec<CertificateView> = uploaded
        .map(|(id, record)| view(id.clone(), "uploaded", record, apps.remove(id).unwrap_or_default()))
        .collect();
    views.extend(records.leaves.iter().map(|(key, record)| {
        let id = local_id(key);
        let apps = apps.remove(&id).unwrap_or_default();
        view(id, "local", record, apps)
    }));
    views.extend(records.acme.iter().map(|(host, record)| {
        let apps = apps.remove(&acme_id(host)).unwrap_or_default();
        acme_view(host, record, apps, shared.clock.unix_ms())
    }));
    Ok(Json(views))
}

pub(super) async fn remove(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<()> {
    let _pen = shared.pen.lock().await;
    {
        let records = lock(&shared.records);
        if records.leaves.keys().any(|key| local_id(key) == id) {
            let title = "a certificate of the local authority is there as long as its app has hosts for it";
            return Err(Problem::new(409, "local-certificate", title)
                .hint("upload one for the same names, and that is shown: platformctl cert add"));
        }
    }
    let host = host_of(&lock(&shared.records), &id);
    let write = match &host {
        Some(host) => Write::ForgetAcme(host.clone()),
        None if lock(&shared.records).certificates.records().contains_key(&id) => Write::ForgetCertificate(id.clone()),
        None => return Err(unknown_certificate()),
    };
    shared.commit(vec![write]).await?;
    let text = format!("certificate {id} removed by {}", caller.name);
    shared.journal.write(shared.clock.unix_ms(), &About::default(), EventKind::Changed, &text);
    publish(&shared).await;
    shared.acme_again.notify_one();
    Ok(Json(()))
}

fn unknown_certificate() -> Problem {
    Problem::new(404, "unknown-certificate", "there is no such certificate").hint("see: platformctl cert ls")
}

/// The host of a certificate of an ACME authority, also of one that there is not yet.
fn host_of(records: &Records, id: &str) -> Option<String> {
    id.strip_prefix(acme_id("").as_str()).filter(|host| records.acme.contains_key(*host)).map(str::to_owned)
}

/// Asks the authority now for a host that it was asked for in vain.
pub(super) async fn retry(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<()> {
    let is_off = shared.config.acme_directory.as_ref().is_none_or(|directory| directory.is_empty());
    if is_off {
        return Err(Problem::new(409, "no-acme", "the controller is told of no ACME authority")
            .hint("set PLATFORMER_ACME_DIRECTORY and start it again"));
    }
    let _pen = shared.pen.lock().await;
    let host = host_of(&lock(&shared.records), &id).ok_or_else(unknown_certificate)?;
    let record = lock(&shared.records).acme.get(&host).cloned().unwrap_or_default();
    if record.failures == 0 {
        return Err(Problem::new(409, "not-failed", format!("no order for {host} failed since its last certificate"))
            .hint("a certificate is renewed by itself; for another key: platformctl cert rm"));
    }
    let record = AcmeRecord { retry_unix_ms: 0, ..record };
    shared.commit(vec![Write::Acme(host.clone(), Box::new(record))]).await?;
    let text = format!("certificate for {host} asked for again by {}", caller.name);
    shared.journal.write(shared.clock.unix_ms(), &About::default(), EventKind::Changed, &text);
    shared.acme_again.notify_one();
    Ok(Json(()))
}

pub(super) async fn authority(State(shared): State<App>) -> Answer<AuthorityView> {
    let records = lock(&shared.records);
    let Some(authority) = &records.authority else {
        return Err(Problem::new(404, "no-authority", "the controller has made no authority yet")
            .hint("it does so when it decides for the first time: ask again in some seconds"));
    };
    Ok(Json(AuthorityView {
        cluster: records.cluster.id.clone(),
        certificate: authority.certificate.clone(),
        fingerprint: authority.fingerprint,
        domains: authority.domains.clone(),
        from_unix_ms: authority.from_unix_ms,
        until_unix_ms: authority.until_unix_ms,
    }))
}

/// By id, the apps for whose hosts each certificate is shown.
fn shown_for(records: &Records) -> BTreeMap<String, Vec<SectionKey>> {
    let (mut apps, none): (BTreeMap<String, Vec<SectionKey>>, _) = (BTreeMap::new(), BTreeMap::new());
    for (key, run) in &records.runs {
        let routes = live_routes(run, records.releases.get(key).unwrap_or(&none));
        let offer = records.offer(key);
        let local = offer.shows_local(routes).then(|| local_id(key));
        let acme = offer.acme_hosts(routes).into_iter().map(|host| acme_id(&host));
        for id in offer.chosen(routes).into_iter().map(str::to_owned).chain(acme).chain(local) {
            apps.entry(id).or_default().push(key.clone());
        }
    }
    apps
}

fn view(id: String, source: &str, record: &CertificateRecord, apps: Vec<SectionKey>) -> CertificateView {
    CertificateView {
        id,
        names: record.certificate.names.clone(),
        source: source.to_owned(),
        issuer: record.issuer.clone(),
        from_unix_ms: record.from_unix_ms,
        until_unix_ms: record.until_unix_ms,
        fingerprint: Some(record.fingerprint),
        apps,
        problem: None,
    }
}

fn acme_view(host: &str, record: &AcmeRecord, apps: Vec<SectionKey>, now_unix_ms: u64) -> CertificateView {
    let id = acme_id(host);
    let is_late = record.certificate.as_ref().is_some_and(|certificate| is_overdue(certificate, now_unix_ms));
    let problem = record.problem.clone().or_else(|| is_late.then(|| "not renewed in time".to_owned()));
    match &record.certificate {
        Some(certificate) => CertificateView { problem, ..view(id, "acme", certificate, apps) },
        None => CertificateView {
            id,
            names: [host.to_owned()].into(),
            source: "acme".to_owned(),
            issuer: String::new(),
            from_unix_ms: 0,
            until_unix_ms: 0,
            fingerprint: None,
            apps,
            problem,
        },
    }
}

/// With the pen held by the caller: people do not wait for a look at the engine.
async fn publish(shared: &App) {
    if shared.decides.load(Ordering::Relaxed)
        && let Err(error) = shared.publish().await
    {
        tracing::error!(%error, "tables not published; the loop tries again");
    }
    shared.look_again.notify_one();
}
