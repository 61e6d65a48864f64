//! `dns dig NAME [TYPE]`

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use clap::{Args, Subcommand};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde::Serialize;

use crate::error::{Exit, Failure};
use crate::session::Session;

/// One try takes no longer; there are two.
const TRY: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 4096;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Ask for a name as an app would
    Dig {
        name: String,
        #[arg(default_value = "A", value_name = "TYPE")]
        kind: String,
    },
}

#[derive(Debug, Serialize)]
struct Dug {
    status: String,
    answers: Vec<String>,
    authority: Vec<String>,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let Verb::Dig { name, kind } = arguments.verb;
    let server = session.info().await?.dns;
    let address: SocketAddr = server
        .parse()
        .map_err(|_| Failure::new(Exit::Unexpected, format!("the controller names no DNS address (\"{server}\")")))?;
    let dug = tokio::task::spawn_blocking(move || dig(address, &name, &kind))
        .await
        .map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))??;
    let found = !dug.answers.is_empty();
    session.output.show(&dug, || {
        let lines = if found { &dug.answers } else { &dug.authority };
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if found { lines } else { format!("no answer ({})\n{lines}", dug.status) }
    })?;
    Ok(if found { Exit::Done } else { Exit::NotFound })
}

fn dig(server: SocketAddr, name: &str, kind: &str) -> Result<Dug, Failure> {
    let parsed = Name::from_ascii(name).map_err(|error| Failure::input(format!("\"{name}\" is no name: {error}")))?;
    let kind: RecordType =
        kind.to_uppercase().parse().map_err(|_| Failure::input(format!("\"{kind}\" is no record type")))?;
    let mut question = Message::new(u16::from_be_bytes(kit::random::bytes()), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.queries.push(Query::query(parsed, kind));
    let bytes = question.to_vec().map_err(|error| Failure::input(error.to_string()))?;
    let failed =
        |error: std::io::Error| Failure::new(Exit::Unreachable, format!("DNS at {server} does not answer: {error}"));
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    socket.connect(server).map_err(failed)?;
    socket.set_read_timeout(Some(TRY)).map_err(failed)?;
    let mut buffer = [0; ANSWER_BYTES_MAX];
    let mut last = None;
    for _ in 0..2 {
        socket.send(&bytes).map_err(failed)?;
        match socket.recv(&mut buffer) {
            Ok(length) => return answer(&buffer[..length]),
            Err(error) => last = Some(error),
        }
    }
    Err(failed(last.unwrap_or_else(|| std::io::ErrorKind::TimedOut.into())))
}

fn answer(bytes: &[u8]) -> Result<Dug, Failure> {
    let message = Message::from_vec(bytes)
        .map_err(|error| Failure::new(Exit::Unexpected, format!("DNS answered something unreadable: {error}")))?;
    let lines = |records: &[hickory_proto::rr::Record]| records.iter().map(ToString::to_string).collect();
    Ok(Dug {
        status: message.metadata.response_code.to_string(),
        answers: lines(&message.answers),
        authority: lines(&message.authorities),
    })
}
