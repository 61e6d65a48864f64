//! `cert ls | add | rm | retry | trust`

use std::io::Read;
use std::path::{Path, PathBuf};

use appbase_core::v1::PrivateKey;
use clap::{Args, Subcommand};
use controller_core::acme::acme_id;
use controller_core::certificates::ends_soon;
use controller_core::v1::api::{AuthorityView, CertificateAnswer, CertificateRequest, CertificateView};
use reqwest::Method;
use serde_json::{Value, json};

use crate::error::{Exit, Failure};
use crate::render::certificate;
use crate::session::{ANSWER_LIMIT, Session};
use crate::trust::{self, Plan, System};

/// The controller takes no more; a larger file is another one than was meant.
const FILE_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Which there are, for which apps they are shown, and when they end
    Ls,
    /// Give one to lb for all hosts that it is for; one with the same names is replaced
    Add {
        /// PEM: the certificate, then those between it and its authority
        chain: PathBuf,
        /// PEM: its key, not encrypted
        key: PathBuf,
    },
    /// Show it no more, and forget its key; a host that an authority is asked for gets another one
    Rm { id: String },
    /// Ask the authority now for a host that it was asked for in vain
    Retry { host: String },
    /// Let this system trust the platform's own authority, for localhost and the platform's domain
    Trust {
        /// Only write its certificate, as PEM (`-`: to stdout)
        #[arg(long, value_name = "FILE", conflicts_with = "remove")]
        out: Option<PathBuf>,
        /// Take it away again
        #[arg(long)]
        remove: bool,
    },
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.verb {
        Verb::Ls => list(session).await,
        Verb::Add { chain, key } => add(session, &chain, &key).await,
        Verb::Rm { id } => {
            let path = format!("/v1/certificates/{}", crate::api::encode(&id));
            let request = session.controller.request(Method::DELETE, &path);
            let response = session.controller.send(request.timeout(ANSWER_LIMIT)).await?;
            let answer: Value = session.controller.json(response).await?;
            session.output.show(&answer, || format!("certificate {id} is removed\n"))?;
            Ok(Exit::Done)
        }
        Verb::Retry { host } => {
            let path = format!("/v1/certificates/{}/retry", crate::api::encode(&acme_id(&host)));
            let answer: Value = session.controller.call(Method::POST, &path, &(), ANSWER_LIMIT).await?;
            session.output.show(&answer, || format!("the authority is asked for {host} now\n"))?;
            session.output.hint("how it goes", "platformctl cert ls, platformctl events");
            Ok(Exit::Done)
        }
        Verb::Trust { out, remove } => {
            let authority: AuthorityView = session.controller.get("/v1/authority", ANSWER_LIMIT).await?;
            let sound = trust::check(&authority, session.clock.unix_ms());
            // What is taken away does no harm any more.
            if let Err(reason) = sound
                && !remove
            {
                let message = format!("what the controller answers is not to be trusted: {reason}");
                return Err(Failure::new(Exit::Unexpected, message));
            }
            match out {
                Some(file) => write_out(session, &authority, &file),
                None => trust_it(session, &authority, remove),
            }
        }
    }
}

async fn list(session: &Session<'_>) -> Result<Exit, Failure> {
    let (output, now) = (session.output, session.clock.unix_ms());
    let certificates: Vec<CertificateView> = session.controller.get("/v1/certificates", ANSWER_LIMIT).await?;
    output.show(&certificates, || certificate::list(&certificates, now, output.width(), output.paint))?;
    for ending in certificates.iter().filter(|one| one.source == "uploaded" && ends_soon(one.until_unix_ms, now)) {
        let (verb, when) =
            (if ending.until_unix_ms <= now { "ended" } else { "ends" }, certificate::left(ending.until_unix_ms, now));
        output.hint("warning", &format!("{} {verb} {when}; a newer one: platformctl cert add CHAIN KEY", ending.id));
    }
    for failed in certificates.iter().filter(|one| one.problem.is_some()) {
        let host = failed.names.first().map(String::as_str).unwrap_or_default();
        output.hint("after the reason is gone", &format!("platformctl cert retry {}", trust::quoted(host)));
    }
    Ok(Exit::Done)
}

async fn add(session: &Session<'_>, chain: &Path, key: &Path) -> Result<Exit, Failure> {
    let request = CertificateRequest { chain: text(chain)?, key: PrivateKey(text(key)?) };
    let output = session.output;
    let answer: CertificateAnswer =
        session.controller.call(Method::POST, "/v1/certificates", &request, ANSWER_LIMIT).await?;
    output.show(&answer, || certificate::added(&answer))?;
    if answer.certificate.apps.is_empty() {
        output.hint("no app has a host of it yet", "platformctl route add APP HOST");
    }
    Ok(Exit::Done)
}

fn text(path: &Path) -> Result<String, Failure> {
    let io = |error: std::io::Error| Failure::io("read", path, &error);
    let mut text = String::new();
    std::fs::File::open(path).map_err(io)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{} is larger than {FILE_BYTES_MAX} bytes: is it the right file?", path.display());
        return Err(Failure::input(message));
    }
    Ok(text)
}

fn write_out(session: &Session<'_>, authority: &AuthorityView, file: &Path) -> Result<Exit, Failure> {
    if file == Path::new("-") {
        session.output.show(authority, || authority.certificate.clone())?;
        return Ok(Exit::Done);
    }
    trust::write(file, &authority.certificate)?;
    let path = file.display().to_string();
    session.output.show(&json!({"file": path, "authority": authority}), || format!("{path}\n"))?;
    Ok(Exit::Done)
}

fn trust_it(session: &Session<'_>, authority: &AuthorityView, remove: bool) -> Result<Exit, Failure> {
    let (output, root, cluster) = (session.output, Path::new("/"), &authority.cluster);
    if !remove && !session.is_near {
        let reason = "whoever is on the way to that controller could answer for it: what this system trusts is not taken from there";
        return Err(Failure::new(Exit::Forbidden, reason)
            .hint("through a tunnel", "ssh -L 8081:127.0.0.1:8081 SERVER, then --url http://127.0.0.1:8081"));
    }
    let Some(system) = System::find(root) else {
        return Err(Failure::new(Exit::NotFound, "how this system keeps the authorities it trusts is not known")
            .hint("by hand", "platformctl cert trust --out FILE, then import it"));
    };
    let plan = if remove { system.remove(root, cluster) } else { system.install(root, cluster) };
    let is_done = plan.is_done();
    if !is_done {
        if !rustix::process::geteuid().is_root() {
            return Err(not_root(session, &plan));
        }
        plan.carry_out(&authority.certificate)?;
    }
    let (cluster, domains) = (authority.cluster.as_str(), certificate::words(&authority.domains));
    output.show(&json!({"trusted": !remove, "authority": authority}), || match (remove, is_done) {
        (true, true) => format!("the authority of {cluster} is not trusted by this system\n"),
        (true, false) => format!("the authority of {cluster} is trusted no more\n"),
        _ => format!("trusted: the authority of {cluster}, for {domains} ({})\n", authority.fingerprint),
    })?;
    if !remove {
        output.hint("try", "curl https://localhost:8443/");
        output
            .hint("Firefox, Java", "they have stores of their own: platformctl cert trust --out FILE, then import it");
        output.hint("take it away", "platformctl cert trust --remove");
    }
    Ok(Exit::Done)
}

fn not_root(session: &Session<'_>, plan: &Plan) -> Failure {
    let mut own = "platformctl".to_owned();
    if let Some(url) = &session.global.url {
        own.push_str(&format!(" --url {}", trust::quoted(url)));
    }
    let files = [("--token-file", &session.global.token_file), ("--keys", &session.global.keys)];
    for (flag, file) in files {
        if let Some(file) = file {
            own.push_str(&format!(" {flag} {}", trust::quoted(&file.display().to_string())));
        }
    }
    own.push_str(" cert trust --out -");
    let failure = Failure::new(Exit::Forbidden, "only root may change what this system trusts");
    plan.by_hand(&own).into_iter().fold(failure, |failure, command| failure.hint("run", command))
}
