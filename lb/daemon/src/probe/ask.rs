//! Ask: one probe on a connection of its own, in the way that the app wants.

use std::net::SocketAddr;
use std::time::Duration;

use appbase_core::v1::{Check, Probe, ProbeAnswer, Protocol};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Of the answer's body, so much is kept for people.
const BODY_BYTES_MAX: usize = 512;
/// And so much of why there is none.
const ERROR_CHARS_MAX: usize = 256;
pub(super) const REFUSED: &str = "connection refused";
const USER_AGENT: &str = concat!("platformer-lb/", env!("CARGO_PKG_VERSION"), " (probe)");
const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";

/// Status and the beginning of the body; a check without either has neither.
type Said = (Option<u16>, Vec<u8>);

pub(super) async fn ask(address: SocketAddr, probe: &Probe, protocol: Protocol, host: Option<&str>) -> ProbeAnswer {
    let limit = Duration::from_millis(probe.timeout_ms);
    let mut answer = ProbeAnswer { tries: 0, status: None, body: String::new(), error: None };
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|error| refusal(&error))?;
        match &probe.check {
            Check::Http { path } if protocol == Protocol::H2c => http2(stream, path, &host).await,
            Check::Http { path } => http(stream, path, &host).await,
            Check::Tcp => Ok((None, Vec::new())),
            Check::Grpc { service } => grpc(stream, service, &host).await,
        }
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok((status, body))) => {
            answer.status = status;
            // Control characters take six bytes each on the wire and say nothing to people.
            let text = String::from_utf8_lossy(&body);
            answer.body = text.chars().filter(|char| !char.is_control() || *char == '\n').collect();
            while answer.body.len() > BODY_BYTES_MAX {
                answer.body.pop();
            }
        }
        Ok(Err(error)) => {
            let shown = error.chars().filter(|char| !char.is_control()).take(ERROR_CHARS_MAX);
            answer.error = Some(shown.collect());
        }
        Err(_) => answer.error = Some(format!("no answer in {} ms", probe.timeout_ms)),
    }
    answer
}

pub(super) fn refusal(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        _ => error.to_string(),
    }
}

/// Any 2xx passes, redirects are not followed.
async fn http(stream: TcpStream, path: &str, host: &str) -> Result<Said, String> {
    let request = http::Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, USER_AGENT)
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| kit::problem::chain(&error))?;
    driven(status_and_body(sender.send_request(request)), connection).await
}

/// The same in HTTP/2, without TLS.
async fn http2(stream: TcpStream, path: &str, host: &str) -> Result<Said, String> {
    let request = http::Request::get(format!("http://{host}{path}"))
        .header(http::header::USER_AGENT, USER_AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| kit::problem::chain(&error))?;
    driven(status_and_body(sender.send_request(request)), connection).await
}

async fn status_and_body(
    response: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
) -> hyper::Result<Said> {
    let response = response.await?;
    let (status, mut body) = (response.status().as_u16(), response.into_body());
    Ok((Some(status), beginning(&mut body).await?))
}

/// The health service of gRPC, over HTTP/2 without TLS. `SERVING` passes.
async fn grpc(stream: TcpStream, service: &str, host: &str) -> Result<Said, String> {
    let request = http::Request::post(format!("http://{host}{GRPC_PATH}"))
        .header(http::header::USER_AGENT, USER_AGENT)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(health_request(service)))
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| kit::problem::chain(&error))?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let (parts, mut body) = response.into_parts();
        let (mut message, mut trailers) = (Vec::new(), parts.headers);
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => message.extend_from_slice(&data[..data.len().min(BODY_BYTES_MAX - message.len())]),
                Err(other) => trailers.extend(other.into_trailers().unwrap_or_default()),
            }
        }
        Ok((parts.status.as_u16(), message, trailers))
    };
    let (status, message, trailers) = driven(answered, connection).await?;
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    match (status, text("grpc-status").as_str()) {
        (200, "0") => match serving_status(&message) {
            "SERVING" => Ok((Some(status), Vec::new())),
            other => Err(format!("it says {other}")),
        },
        (200, "") => Err("its answer is not gRPC".to_owned()),
        (200, code) => Err(format!("grpc-status {code} {}", text("grpc-message")).trim_end().to_owned()),
        (status, _) => Err(format!("status {status}, which is not gRPC")),
    }
}

/// `HealthCheckRequest{service}` in a frame of gRPC. The name has less than 16,384 bytes.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        if service.len() >= 128 {
            message.push((service.len() & 0x7f) as u8 | 0x80);
        }
        message.push((if service.len() >= 128 { service.len() >> 7 } else { service.len() }) as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// Of `HealthCheckResponse{status}` in a frame of gRPC.
fn serving_status(frame: &[u8]) -> &'static str {
    match frame.get(5..) {
        Some([0x08, 1, ..]) => "SERVING",
        Some([0x08, 2, ..]) => "NOT_SERVING",
        Some([0x08, 3, ..]) => "SERVICE_UNKNOWN",
        Some([] | [0x08, 0, ..]) => "UNKNOWN",
        _ => "what is no health status",
    }
}

async fn beginning(body: &mut Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut kept = Vec::new();
    while kept.len() < BODY_BYTES_MAX {
        let Some(frame) = body.frame().await else { break };
        match frame?.into_data() {
            Ok(data) => kept.extend_from_slice(&data[..data.len().min(BODY_BYTES_MAX - kept.len())]),
            Err(_) => break,
        }
    }
    Ok(kept)
}

/// The connection makes the request go on; when it ends first, the request says how.
async fn driven<T>(
    answered: impl Future<Output = Result<T, hyper::Error>>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> Result<T, String> {
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = answered => answer.map_err(|error| kit::problem::chain(&error)),
        () = driven => Err("connection ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_grpc() {
        assert_eq!(health_request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("shop").as_ref(), [0, 0, 0, 0, 6, 0x0a, 4, b's', b'h', b'o', b'p']);
        let long = health_request(&"s".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), "SERVING");
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 2]), "NOT_SERVING");
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), "UNKNOWN");
        assert_eq!(serving_status(b""), "what is no health status");
    }
}
