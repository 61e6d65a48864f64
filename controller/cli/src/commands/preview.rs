//! `preview APP`

use appbase_core::{AppName, Slot};
use clap::Args;
use controller_core::v1::api::AppStatus;
use serde_json::json;

use crate::api::operation;
use crate::error::{Exit, Failure};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    /// Make a new secret: the addresses until now lead nowhere
    #[arg(long, conflicts_with = "off")]
    new: bool,
    /// Nobody sees either slot any more
    #[arg(long)]
    off: bool,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let app = &arguments.app;
    let status = session.app(app).await?;
    let known = status.preview.clone().filter(|_| !arguments.new);
    if arguments.off || known.is_none() {
        // 26 hexadecimal digits: 104 bits.
        let secret = (!arguments.off).then(kit::random::hex::<13>);
        let params = json!({ "environment": session.environment, "app": app, "secret": secret });
        let answer = session.change_in_force(vec![operation("app", "preview", params)]).await?;
        if arguments.off {
            session.output.show(&answer, || format!("{app}: no preview\n"))?;
            return Ok(Exit::Done);
        }
        return show(session, &status, &secret.unwrap_or_default()).await;
    }
    show(session, &status, &known.unwrap_or_default()).await
}

async fn show(session: &Session<'_>, status: &AppStatus, secret: &str) -> Result<Exit, Failure> {
    let info = session.info().await?;
    let lb = reqwest::Url::parse(&info.lb).ok();
    let (host, port) = match &lb {
        Some(lb) => (lb.host_str().unwrap_or_default(), lb.port_or_known_default().unwrap_or(80)),
        None => ("", 80),
    };
    // A browser finds every name below localhost on its own machine; elsewhere a name has to lead to lb first.
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    let live = status.live.as_ref().map(|live| live.slot);
    let row = |slot: Slot| {
        let release = match (live == Some(slot), &status.live, &status.staged) {
            (true, Some(live), _) => format!("{}, live", live.version),
            (false, _, Some(staged)) => format!("{}, staged", staged.version),
            _ => match status.instances.iter().find(|instance| instance.slot == slot) {
                Some(instance) => format!("{}, {}", instance.version, instance.state),
                None => "nothing".to_owned(),
            },
        };
        let url = is_here.then(|| format!("http://{secret}-{slot}.localhost:{port}/"));
        json!({ "slot": slot, "release": release, "url": url, "header": format!("X-Platform-Preview: {secret}-{slot}") })
    };
    let rows = [row(Slot::Blue), row(Slot::Green)];
    let text = || {
        let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let line = |row: &serde_json::Value| {
            let words = [text(row, "slot"), format!("({})", text(row, "release")), text(row, "url")];
            format!("{:<5}  {}  {}", words[0], words[1], words[2]).trim_end().to_owned() + "\n"
        };
        let headers = rows.iter().map(|row| format!("       -H '{}'\n", text(row, "header")));
        rows.iter().map(line).zip(headers).map(|(line, header)| line + &header).collect()
    };
    session.output.show(&rows, text)?;
    Ok(Exit::Done)
}
