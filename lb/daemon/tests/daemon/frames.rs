//! HTTP/2 frame by frame: what RFC 9113 and RFC 7541 say of each, one row a case, against a socket.
//!
//! A row says what really happens. Where that is not what the clause asks, the row has a comment; the rest is as asked.

mod blocks;
mod downgrade;
mod floods;
mod format;
mod kinds;
mod messages;
mod states;
mod writer;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::Stage;
use crate::tls::{Secured, shake};
use writer::{ALL, GET, HEADERS, NONE, PING, Seen, block, frame, opening};

/// Error codes (RFC 9113, section 7).
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const CALM: u32 = 11;

/// What must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// GOAWAY with this code, and the end of the connection.
    Gone(u32),
    /// The end of the connection: whoever speaks no HTTP/2 could not read why.
    Closed,
    /// RST_STREAM with this code; other streams go on.
    Reset(u32, u32),
    /// This status; other streams go on.
    Answer(u32, u16),
    /// A body of so many bytes up to its end; other streams go on.
    Body(u32, usize),
    /// So much of a body, and no more of it while its window is shut; other streams go on.
    Held(u32, usize),
    /// This status, and then the end of the connection without an error.
    Last(u32, u16),
    /// Nothing: other streams go on.
    Ignored,
}

use Expect::{Answer, Body, Closed, Gone, Held, Ignored, Last, Reset};

struct Case {
    clause: &'static str,
    name: &'static str,
    /// After the opening, unless the row has one of its own.
    sends: Vec<u8>,
    expect: Expect,
    opens: bool,
}

fn row(clause: &'static str, name: &'static str, sends: impl IntoIterator<Item = Vec<u8>>, expect: Expect) -> Case {
    Case { clause, name, sends: sends.into_iter().flatten().collect(), expect, opens: true }
}

/// A row whose first bytes are the connection's.
fn bare(clause: &'static str, name: &'static str, sends: impl IntoIterator<Item = Vec<u8>>, expect: Expect) -> Case {
    Case { opens: false, ..row(clause, name, sends, expect) }
}

fn cases() -> Vec<Case> {
    [format::rows(), states::rows(), kinds::rows(), messages::rows(), blocks::rows()].into_iter().flatten().collect()
}

/// What a client of HTTP/2 says first, with a request.
pub(crate) fn first_request() -> Vec<u8> {
    [opening(), frame(HEADERS, ALL, 1, &block(&GET))].concat()
}

/// Whether the answer to it is there.
pub(crate) fn is_answered(bytes: &[u8]) -> bool {
    let mut seen = Seen::default();
    seen.take(&mut bytes.to_vec());
    seen.ended.contains(&1)
}

/// The stream on which the others are seen to go on, later than those of all rows.
const WITNESS: u32 = 0x3fff_ffff;
const LIMIT: Duration = Duration::from_secs(10);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Talk {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
    seen: Seen,
}

impl Talk {
    fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), unread: Vec::new(), seen: Seen::default() }
    }

    /// A connection that is refused meanwhile takes not all; what came shows why.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads until it is as wanted (true), the connection ended, or nothing more comes in time.
    async fn until(&mut self, wanted: impl Fn(&Seen) -> bool) -> bool {
        let reading = async {
            while !wanted(&self.seen) {
                match self.stream.read_buf(&mut self.unread).await {
                    Ok(read) if read > 0 => self.seen.take(&mut self.unread),
                    _ => return false,
                }
            }
            true
        };
        tokio::time::timeout(LIMIT, reading).await.unwrap_or(false)
    }

    async fn ended(&mut self) -> bool {
        let ended = tokio::time::timeout(LIMIT, async {
            while self.stream.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0) {
                self.seen.take(&mut self.unread);
            }
        });
        ended.await.is_ok()
    }
}

/// None: it is as the row says.
async fn check(case: &Case, stream: impl Stream + 'static) -> Option<String> {
    let mut talk = Talk::new(stream);
    let sends = if case.opens { [opening(), case.sends.clone()].concat() } else { case.sends.clone() };
    talk.send(&sends).await;
    let as_wanted = match case.expect {
        Closed => talk.ended().await,
        Last(..) => talk.ended().await && has_come(case.expect, &talk.seen) && talk.seen.goaway == Some(0),
        Gone(code) => talk.ended().await && talk.seen.goaway == Some(code),
        other => {
            talk.send(&frame(PING, NONE, 0, b"witness!")).await;
            talk.until(|seen| seen.pongs > 0 && has_come(other, seen)).await;
            // Whatever else were to come of it would come before this.
            talk.send(&frame(HEADERS, ALL, WITNESS, &block(&GET))).await;
            let is_shut = matches!(other, Held(..));
            let goes_on = talk
                .until(|seen| seen.ended.contains(&WITNESS) || (is_shut && seen.statuses.contains_key(&WITNESS)))
                .await;
            let resets = if let Reset(stream, code) = other { vec![(stream, code)] } else { Vec::new() };
            goes_on && has_come(other, &talk.seen) && talk.seen.resets == resets && talk.seen.goaway.is_none()
        }
    };
    let Case { clause, name, expect, .. } = case;
    (!as_wanted).then(|| format!("{clause} {name}: wanted {expect:?}, got {:?}", talk.seen))
}

fn has_come(expect: Expect, seen: &Seen) -> bool {
    match expect {
        Reset(stream, code) => seen.resets.contains(&(stream, code)),
        Answer(stream, status) | Last(stream, status) => {
            seen.statuses.get(&stream) == Some(&status) && seen.ended.contains(&stream)
        }
        Body(stream, bytes) => seen.data.get(&stream).copied().unwrap_or(0) == bytes && seen.ended.contains(&stream),
        Held(stream, bytes) => {
            let came = seen.data.get(&stream).copied().unwrap_or(0);
            came == bytes && seen.statuses.contains_key(&stream) && !seen.ended.contains(&stream)
        }
        Ignored | Gone(_) | Closed => true,
    }
}

#[tokio::test]
async fn every_frame_is_answered_as_the_standard_says() {
    let (stage, _app) = Stage::with_app("one").await;
    let mut breaches = Vec::new();
    for case in cases() {
        let stream = TcpStream::connect(stage.lb.http).await.unwrap();
        breaches.extend(check(&case, stream).await);
    }
    assert!(breaches.is_empty(), "{} rows:\n{}", breaches.len(), breaches.join("\n"));
}

#[tokio::test]
async fn over_tls_frames_are_answered_alike() {
    let secured = Secured::start().await;
    let mut breaches = Vec::new();
    // A sample: the frames are the same ones.
    for case in cases().into_iter().filter(|case| case.expect != Closed).step_by(5) {
        let config = secured.authority.client(&["h2"], None);
        let stream = shake(config, secured.https, "one.example").await.unwrap();
        breaches.extend(check(&case, stream).await);
    }
    assert!(breaches.is_empty(), "{} rows:\n{}", breaches.len(), breaches.join("\n"));
}

#[test]
fn rows_are_many_and_none_is_there_twice() {
    let cases = cases();
    let names: BTreeSet<_> = cases.iter().map(|case| (case.clause, case.name)).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 145, "{}", cases.len());
}
