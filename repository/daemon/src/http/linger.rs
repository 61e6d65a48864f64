//! A refusal reaches who is still sending: what is left of the body is taken in before the connection may close.
//! Otherwise the client sees a broken connection instead of, say, where its upload is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, stream};

use super::App;

/// More than this is not taken in only to be thrown away: twice the largest manifest.
const LINGER_BYTES: usize = 8 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Around every request: lets a refusal linger, and counts the answer.
pub(super) async fn answered(State(app): State<App>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    // Who waits for "100 Continue" has sent nothing yet, and would begin to if the body were looked at.
    let waits = head.headers.contains_key(header::EXPECT);
    let body = Arc::new(Mutex::new(body.into_data_stream()));
    let response = next.run(Request::from_parts(head, shared(&body))).await;
    if response.status().as_u16() >= 400 && !waits {
        let _ = tokio::time::timeout(LINGER_TIME, linger(&body)).await;
    }
    app.store.counters().answered(response.status().as_u16());
    response
}

fn shared(body: &Arc<Mutex<BodyDataStream>>) -> Body {
    let body = Arc::clone(body);
    Body::from_stream(stream::poll_fn(move |context| {
        body.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    }))
}

async fn linger(body: &Arc<Mutex<BodyDataStream>>) {
    let mut rest = shared(body).into_data_stream();
    let mut taken = 0;
    while let Some(Ok(piece)) = rest.next().await {
        taken += piece.len();
        if taken > LINGER_BYTES {
            return;
        }
    }
}
