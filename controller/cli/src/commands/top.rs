//! `top [APP]`

use std::time::Duration;

use appbase_core::AppName;
use clap::Args;

use crate::error::{Exit, Failure};
use crate::rates::Rates;
use crate::render::top::{Filter, document, top};
use crate::session::Session;

/// Load balancers speak every two seconds, and at each change.
const LOOK_PAUSE: Duration = Duration::from_millis(1_000);
/// So often until each of them spoke twice, and no longer: one may be gone.
const FIRST_LOOKS_MAX: u32 = 6;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: Option<AppName>,
    /// Print it once, over the last two seconds; so is it where stdout is no terminal
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let output = session.output;
    let is_live = output.terminal.stdout && !output.json && !arguments.once;
    let filter = Filter { app: arguments.app.as_ref(), environment: session.global.environment.as_ref() };
    let mut rates = Rates::default();
    let mut looks = 0;
    loop {
        rates.take(session.traffic().await?);
        looks += 1;
        let is_due = is_live || output.json && !arguments.once || rates.are_known() || looks >= FIRST_LOOKS_MAX;
        if is_due && looks > 1 {
            let status = session.platform().await?;
            if output.json {
                output.record(&document(&status, &rates, &filter))?;
            } else {
                // Over what was there, without a flash of nothing: each line is ended anew, then all below.
                let text = top(&status, &rates, &filter, output.width(), output.paint);
                let text = if is_live { format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")) } else { text };
                output.data(&text)?;
            }
            if !is_live && (!output.json || arguments.once) {
                return Ok(Exit::Done);
            }
        } else if is_live {
            output.data("\x1b[2J\x1b[H")?;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
