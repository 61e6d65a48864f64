//! `version`

use crate::error::{Exit, Failure};
use crate::session::Session;

pub(crate) async fn run(session: &Session<'_>) -> Result<Exit, Failure> {
    let controller = session.info().await.ok().map(|info| info.software);
    let own = env!("CARGO_PKG_VERSION");
    let document = serde_json::json!({ "platformctl": own, "controller": controller });
    session.output.show(&document, || {
        let there = controller.as_deref().unwrap_or("does not answer");
        format!("platformctl {own}\ncontroller  {there}\n")
    })?;
    Ok(Exit::Done)
}
