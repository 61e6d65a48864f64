//! WebSocket: echoes what comes; when the app stops, it says goodbye with 1001.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use crate::answers::{App, Body, text};

const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long a client has to confirm a goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// The answer that switches the connection over; the echo goes on beside it.
pub(crate) fn accept(app: &App, request: &mut Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n".to_owned());
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(request);
    let stopping = app.stopping.clone();
    app.tasks.spawn(async move {
        let Ok(connection) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config)).await;
        echo(socket, stopping).await;
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).expect("base64 is a header value"));
    response
}

async fn echo<S>(mut socket: WebSocketStream<S>, stopping: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = stopping.cancelled() => {
                let goodbye = CloseFrame { code: CloseCode::Away, reason: "stopping".into() };
                let _ = socket.close(Some(goodbye)).await;
                // Until the other side has said goodbye as well.
                let last = async { while let Some(Ok(_)) = socket.next().await {} };
                let _ = tokio::time::timeout(GOODBYE_MAX, last).await;
                return;
            }
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // Pings are answered and closes confirmed by the library when it is polled again.
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}
