//! What a command works with: the controller, the environment and where words go.

use std::time::Duration;

use appbase_core::EnvironmentName;
use controller_core::v1::api::ControllerInfo;
use kit::Clock;
use kit::client::Client;

use crate::args::Global;
use crate::context;
use crate::error::Failure;
use crate::output::Output;

/// Where the controller is when nobody says otherwise.
pub(crate) const URL_DEFAULT: &str = "http://127.0.0.1:8081";

/// An answer that needs no waiting comes within this.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Session<'a> {
    pub(crate) global: &'a Global,
    pub(crate) output: &'a Output,
    pub(crate) controller: Client,
    pub(crate) environment: EnvironmentName,
    pub(crate) clock: Clock,
    token: Option<String>,
}

impl<'a> Session<'a> {
    /// Flag, then environment variable (both are clap's), then context, then default.
    pub(crate) fn new(global: &'a Global, output: &'a Output) -> Result<Self, Failure> {
        let context = match (&global.url, &global.token_file, context::home()) {
            (Some(_), Some(_), _) | (_, _, None) => None,
            (_, _, Some(home)) => context::current(&home)?,
        };
        // A context's token belongs to its own controller and goes to no other.
        let token = match (&global.token_file, &global.url, &context) {
            (Some(file), _, _) => Some(context::token_of(file)?),
            (None, Some(url), Some(context)) if same(url, &context.url) => context.token.clone(),
            (None, Some(_), _) => None,
            (None, None, context) => context.as_ref().and_then(|context| context.token.clone()),
        };
        let url = global.url.clone().or(context.map(|context| context.url)).unwrap_or_else(|| URL_DEFAULT.to_owned());
        check_url("--url", &url)?;
        Ok(Self {
            global,
            output,
            controller: Client::new(&url, token.clone()),
            environment: global.environment(),
            clock: Clock::start(),
            token,
        })
    }

    pub(crate) async fn info(&self) -> Result<ControllerInfo, Failure> {
        Ok(self.controller.get("/v1", ANSWER_LIMIT).await?)
    }

    /// The repository: what was named, else what the controller names.
    pub(crate) async fn repository(&self) -> Result<Client, Failure> {
        let url = match &self.global.repository {
            Some(url) => url.clone(),
            None => self.info().await?.repository,
        };
        check_url("--repository", &url)?;
        Ok(Client::new(&url, self.token.clone()))
    }
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

fn check_url(whose: &str, url: &str) -> Result<(), Failure> {
    match reqwest::Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "http" && parsed.has_host() => Ok(()),
        Ok(parsed) if parsed.scheme() == "https" => Err(Failure::input(format!(
            "{whose} {url}: https is not spoken yet; reach it through an SSH tunnel and use http://127.0.0.1:PORT"
        ))),
        _ => Err(Failure::input(format!("{whose} \"{}\" is not a URL like {URL_DEFAULT}", url.escape_debug()))),
    }
}
