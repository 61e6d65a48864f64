//! `split APP PERCENT`

use std::collections::BTreeMap;

use appbase_core::AppName;
use clap::Args;
use serde_json::{Value, json};

use crate::api::operation;
use crate::args::Pair;
use crate::error::{Exit, Failure};
use crate::render::plural;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    /// Of the clients, so many in 100 get the staged release and keep it; 0 with nothing else takes everything back
    #[arg(value_parser = clap::value_parser!(u8).range(0..=99))]
    percent: u8,
    /// And whoever sends this; `text*` for one that begins so
    #[arg(long = "header", value_name = "NAME=PATTERN")]
    headers: Vec<Pair>,
    #[arg(long = "cookie", value_name = "NAME=PATTERN")]
    cookies: Vec<Pair>,
    /// And whoever comes from there
    #[arg(long = "network", value_name = "RANGE")]
    networks: Vec<String>,
    /// And whatever is below this path
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    /// Copies of so many in 100 of what only reads go to it as well; its answers are thrown away
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    mirror: u8,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { app, percent, mirror, .. } = &arguments;
    let staged = session.app(app).await?.staged;
    // Whether there is one is the controller's to say.
    let release = staged.as_ref().map_or(0, |staged| staged.release);
    let cohorts = cohorts(&arguments);
    let given = cohorts.len();
    let params = json!({ "environment": session.environment, "app": app, "release": release, "percent": percent,
                         "cohorts": cohorts, "mirror": mirror });
    let answer = session.change_in_force(vec![operation("app", "split", params)]).await?;
    let version = staged.map(|staged| staged.version.to_string()).unwrap_or_default();
    session.output.show(&answer, || {
        let mut words = vec![format!("{version} gets {percent} % of the clients")];
        words.extend((given > 0).then(|| plural(given as u64, "cohort")));
        words.extend((*mirror > 0).then(|| format!("copies of {mirror} % of the reads")));
        format!("{app}: {}\n", words.join(", "))
    })?;
    session.output.hint("all of it", &format!("platformctl activate {app}"));
    Ok(Exit::Done)
}

/// Each condition is a cohort of its own: who fits one of them gets the release.
fn cohorts(arguments: &Arguments) -> Vec<Value> {
    let pair = |key: &'static str| move |pair: &Pair| json!({ key: BTreeMap::from([(&pair.0, &pair.1)]) });
    let headers = arguments.headers.iter().map(pair("headers"));
    let cookies = arguments.cookies.iter().map(pair("cookies"));
    let networks = arguments.networks.iter().map(|network| json!({ "networks": [network] }));
    let paths = arguments.paths.iter().map(|path| json!({ "path": path }));
    headers.chain(cookies).chain(networks).chain(paths).collect()
}
