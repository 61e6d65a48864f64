//! `events`

use clap::Args;
use controller_core::v1::api::EventView;

use crate::error::{Exit, Failure};
use crate::follow::Stream;
use crate::render::event;
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// How many of the last events
    #[arg(short = 'n', long, default_value_t = 20)]
    last: u64,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let path = format!("/v1/events?last={}", arguments.last);
    let page: Vec<EventView> = session.controller.get(&path, ANSWER_LIMIT).await?;
    for view in &page {
        print(session, view)?;
    }
    if arguments.follow {
        let after = page.last().map_or(0, |view| view.number);
        let mut stream = Stream::of_all(&session.controller, after);
        loop {
            print(session, &stream.next().await?)?;
        }
    }
    Ok(Exit::Done)
}

fn print(session: &Session<'_>, view: &EventView) -> Result<(), Failure> {
    if session.output.json {
        return session.output.record(view);
    }
    session.output.line(&event::event(view, session.output.paint))
}
