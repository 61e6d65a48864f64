//! The verbs.

mod activate;
mod artifact;
mod cancel;
mod cert;
mod config;
mod context;
mod deploy;
mod dns;
mod events;
mod follow;
mod history;
mod hold;
mod login;
mod logs;
mod maintenance;
mod member;
mod notice;
mod plan;
mod preview;
mod rollback;
mod route;
mod scale;
mod split;
mod status;
mod token;
mod top;
mod version;

use clap::Subcommand;

use crate::args::Cli;
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push versions, list them, show one
    Artifact(artifact::Arguments),
    /// Deploy a version: new instances beside the old, then traffic moves at once
    Deploy(deploy::Arguments),
    /// Make the staged version live
    Activate(activate::Arguments),
    /// Give the staged version a share of the traffic
    Split(split::Arguments),
    /// Where either slot can be seen, live or not
    Preview(preview::Arguments),
    /// Go back to the release before, or to a given one
    Rollback(rollback::Arguments),
    /// End a deployment before its traffic moves, or give up what is staged
    Cancel(cancel::Arguments),
    /// Follow a running deployment to its end
    Follow(follow::Arguments),
    /// What runs, and how it is
    Status(status::Arguments),
    /// What the load balancers carry right now, by release and instance
    Top(top::Arguments),
    /// Deployments of an app, newest first
    History(history::Arguments),
    /// What the instances of an app wrote
    Logs(logs::Arguments),
    /// What happened
    Events(events::Arguments),
    /// What the controller would do now, and what it waits for
    Plan(plan::Arguments),
    /// How many instances of a process there are
    Scale(scale::Arguments),
    /// Let requests wait instead of forwarding them
    Hold(hold::Arguments),
    /// Answer 503 with a message instead of forwarding
    Maintenance(maintenance::Arguments),
    /// Tell the app and its clients something
    Notice(notice::Arguments),
    /// Values of an app
    Config(config::Arguments),
    /// Which requests go where
    Route(Box<route::Arguments>),
    /// Ask the platform's DNS
    Dns(dns::Arguments),
    /// The lbs and dnses that follow the controller
    Member(member::Arguments),
    /// Get a token through the platform's own machine and keep it
    Login(login::Arguments),
    /// Tokens of people and pipelines
    Token(token::Arguments),
    /// Certificates of hosts, and the platform's own authority
    Cert(cert::Arguments),
    /// Controllers to talk to
    Context(context::Arguments),
    /// Versions of this program and of the controller
    Version,
}

pub(crate) async fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    let cli = match cli.command {
        Command::Context(arguments) => return context::run(arguments, &cli.global, output),
        Command::Login(arguments) => return login::run(arguments, &cli.global, output).await,
        command => Cli { command, ..cli },
    };
    let session = Session::new(&cli.global, output)?;
    match cli.command {
        Command::Artifact(arguments) => artifact::run(&session, arguments).await,
        Command::Deploy(arguments) => deploy::run(&session, arguments).await,
        Command::Activate(arguments) => activate::run(&session, arguments).await,
        Command::Split(arguments) => split::run(&session, arguments).await,
        Command::Preview(arguments) => preview::run(&session, arguments).await,
        Command::Notice(arguments) => notice::run(&session, arguments).await,
        Command::Rollback(arguments) => rollback::run(&session, arguments).await,
        Command::Cancel(arguments) => cancel::run(&session, arguments).await,
        Command::Follow(arguments) => follow::run(&session, arguments).await,
        Command::Status(arguments) => status::run(&session, arguments).await,
        Command::Top(arguments) => top::run(&session, arguments).await,
        Command::History(arguments) => history::run(&session, arguments).await,
        Command::Logs(arguments) => logs::run(&session, arguments).await,
        Command::Events(arguments) => events::run(&session, arguments).await,
        Command::Plan(arguments) => plan::run(&session, arguments).await,
        Command::Scale(arguments) => scale::run(&session, arguments).await,
        Command::Hold(arguments) => hold::run(&session, arguments).await,
        Command::Maintenance(arguments) => maintenance::run(&session, arguments).await,
        Command::Config(arguments) => config::run(&session, arguments).await,
        Command::Route(arguments) => route::run(&session, *arguments).await,
        Command::Dns(arguments) => dns::run(&session, arguments).await,
        Command::Member(arguments) => member::run(&session, arguments).await,
        Command::Token(arguments) => token::run(&session, arguments).await,
        Command::Cert(arguments) => cert::run(&session, arguments).await,
        Command::Version => version::run(&session).await,
        Command::Context(_) | Command::Login(_) => Ok(Exit::Done),
    }
}
