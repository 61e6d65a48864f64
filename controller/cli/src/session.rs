//! What a command works with: the controller, the environment and where words go.

use std::path::Path;
use std::time::Duration;

use appbase_core::EnvironmentName;
use controller_core::v1::api::{ControllerInfo, RepositoryAccess};
use kit::Clock;
use kit::client::Client;
use kit::keys::KeyDirectory;
use reqwest::Method;

use crate::args::Global;
use crate::context;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Where the controller is when nobody says otherwise.
pub(crate) const URL_DEFAULT: &str = "http://127.0.0.1:8081";

/// No command with the cluster's key runs longer; its token is never written down.
const OWNER_TOKEN_LIFE_S: u64 = 24 * 3600;

/// An answer that needs no waiting comes within this.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Session<'a> {
    pub(crate) global: &'a Global,
    pub(crate) output: &'a Output,
    pub(crate) controller: Client,
    pub(crate) environment: EnvironmentName,
    pub(crate) clock: Clock,
    /// The controller is asked on this machine: nobody is on the way to it.
    pub(crate) is_near: bool,
}

impl<'a> Session<'a> {
    /// Flag, then environment variable (both are clap's), then context, then default.
    pub(crate) fn new(global: &'a Global, output: &'a Output) -> Result<Self, Failure> {
        // The cluster's key is on its controller's machine: a token of it goes to no other one that a context names.
        let given = global.keys.is_some() || (global.url.is_some() && global.token_file.is_some());
        let context = match context::home() {
            Some(home) if !given => context::current(&home)?,
            _ => None,
        };
        // A context's token belongs to its own controller and goes to no other.
        let kept = context.as_ref().filter(|kept| global.url.as_ref().is_none_or(|url| same(url, &kept.url)));
        let token = match (&global.keys, &global.token_file) {
            (Some(keys), _) => Some(owner_token(keys)?),
            (None, Some(file)) => Some(context::token_of(file)?),
            (None, None) => kept.and_then(|context| context.token.clone()),
        };
        let url = global.url.clone().or(context.map(|context| context.url)).unwrap_or_else(|| URL_DEFAULT.to_owned());
        check_url("--url", &url)?;
        Ok(Self {
            global,
            output,
            controller: Client::new(&url, token),
            environment: global.environment(),
            clock: Clock::start(),
            is_near: is_near(&url),
        })
    }

    pub(crate) async fn info(&self) -> Result<ControllerInfo, Failure> {
        Ok(self.controller.get("/v1", ANSWER_LIMIT).await?)
    }

    /// The repository: what was named, else what the controller names; with a token of the controller's for it.
    pub(crate) async fn repository(&self) -> Result<Client, Failure> {
        let access: RepositoryAccess =
            self.controller.call(Method::POST, "/v1/repository-access", &(), ANSWER_LIMIT).await?;
        let url = self.global.repository.as_ref().unwrap_or(&access.url);
        check_url("--repository", url)?;
        Ok(Client::new(url, access.token))
    }
}

/// A token made with the cluster's own key.
pub(crate) fn owner_token(keys: &Path) -> Result<String, Failure> {
    let signer = KeyDirectory::new(keys).signer();
    let signer = signer.map_err(|error| Failure::new(Exit::Forbidden, kit::problem::chain(&error)))?;
    Ok(signer.owner_token(&Clock::start(), OWNER_TOKEN_LIFE_S))
}

fn is_near(url: &str) -> bool {
    let parsed = reqwest::Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

pub(crate) fn check_url(whose: &str, url: &str) -> Result<(), Failure> {
    match reqwest::Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "http" && parsed.has_host() => Ok(()),
        Ok(parsed) if parsed.scheme() == "https" => Err(Failure::input(format!(
            "{whose} {url}: https is not spoken yet; reach it through an SSH tunnel and use http://127.0.0.1:PORT"
        ))),
        _ => Err(Failure::input(format!("{whose} \"{}\" is not a URL like {URL_DEFAULT}", url.escape_debug()))),
    }
}
