//! `status [APP]`

use std::time::Duration;

use appbase_core::AppName;
use clap::Args;

use crate::error::{Exit, Failure};
use crate::render::status;
use crate::session::Session;

/// Between two looks of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: Option<AppName>,
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    loop {
        look(session, arguments.app.as_ref(), arguments.watch).await?;
        if !arguments.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

async fn look(session: &Session<'_>, app: Option<&AppName>, clear: bool) -> Result<(), Failure> {
    let output = session.output;
    let (width, paint) = (output.width(), output.paint);
    let clear = if clear && output.terminal.stdout && !output.json { "\x1b[H\x1b[2J" } else { "" };
    match app {
        Some(app) => {
            let view = session.app(app).await?;
            output.show(&view, || format!("{clear}{}", status::app(&view, width, paint)))
        }
        None => {
            let view = session.platform().await?;
            let only = session.global.environment.as_ref();
            output.show(&view, || format!("{clear}{}", status::platform(&view, only, width, paint)))
        }
    }
}
