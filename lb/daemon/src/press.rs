//! Press: makes an answer's body smaller on its way (gzip). Nothing is held back: whenever the app has nothing more for now,
//! what it sent so far goes out so that the client can read it.

use std::cell::Cell;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use lb_core::compress::{self, Packing};
use lb_core::http1::{BodyLength, RequestHead, ResponseHead};
use lb_core::rule::Rule;

/// Where more work stops saving much: of JSON 0.103 is left at 2, 0.095 at 6 in five times the time; of prose 0.45 and 0.43.
const LEVEL: u32 = 2;
/// At once, per thread: each takes about 270 KiB. More answers go as they are.
const PRESSES_MAX: usize = 128;
/// What is taken at once, so that what comes out has room.
pub(crate) const PIECE_BYTES_MAX: usize = 16 << 10;
/// So much is packed before others on the thread have their turn: about a millisecond.
pub(crate) const TURN_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// On this thread. A connection never leaves its own.
    static PRESSES: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug)]
pub(crate) struct Press {
    encoder: GzEncoder<Vec<u8>>,
    /// How much of what came out has gone.
    sent: usize,
    is_unflushed: bool,
    is_over: bool,
}

/// What becomes of an answer, by the rule that took its request.
pub(crate) fn choose(
    rule: Option<&Rule>,
    request: &RequestHead,
    answer: &ResponseHead,
    body: BodyLength,
) -> (Packing, Option<Box<Press>>) {
    if !rule.is_some_and(|rule| rule.route.compress) {
        return (Packing::None, None);
    }
    match compress::packing(request, answer, body) {
        Packing::Gzip => match Press::new() {
            Some(press) => (Packing::Gzip, Some(Box::new(press))),
            None => (Packing::Varies, None),
        },
        packing => (packing, None),
    }
}

impl Press {
    /// None: there are as many as there may be.
    fn new() -> Option<Self> {
        let count = PRESSES.get();
        (count < PRESSES_MAX).then(|| {
            PRESSES.set(count + 1);
            let encoder = GzEncoder::new(Vec::with_capacity(PIECE_BYTES_MAX), Compression::new(LEVEL));
            Self { encoder, sent: 0, is_unflushed: false, is_over: false }
        })
    }

    /// What came out and has not gone.
    pub(crate) fn ready(&self) -> &[u8] {
        &self.encoder.get_ref()[self.sent..]
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.ready().is_empty() {
            self.encoder.get_mut().clear();
            self.sent = 0;
        }
    }

    pub(crate) fn take(&mut self, data: &[u8]) {
        self.encoder.write_all(data).expect("memory takes everything");
        self.is_unflushed = true;
    }

    /// What was taken can be read by whoever gets it. False: it could already.
    pub(crate) fn flush(&mut self) -> bool {
        let is_unflushed = std::mem::take(&mut self.is_unflushed);
        if is_unflushed {
            self.encoder.flush().expect("memory takes everything");
        }
        is_unflushed
    }

    pub(crate) fn finish(&mut self) {
        self.encoder.try_finish().expect("memory takes everything");
        (self.is_over, self.is_unflushed) = (true, false);
    }

    /// Nothing more comes out.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over && self.ready().is_empty()
    }
}

impl Drop for Press {
    fn drop(&mut self) {
        PRESSES.set(PRESSES.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_flushed_can_be_read_at_once() {
        let mut press = Press::new().expect("room");
        let mut came = Vec::new();
        for part in ["one ", "two ", "three"] {
            press.take(part.as_bytes());
            assert!(press.flush() && !press.flush(), "once each");
            came.extend_from_slice(press.ready());
            press.consume(press.ready().len());
            let mut text = vec![0; 64];
            let read = flate2::read::GzDecoder::new(&came[..]).read(&mut text).expect("readable");
            assert!(String::from_utf8_lossy(&text[..read]).ends_with(part) || read >= part.len());
        }
        assert!(!press.is_over());
        press.finish();
        came.extend_from_slice(press.ready());
        press.consume(press.ready().len());
        assert!(press.is_over());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&came[..]).read_to_string(&mut text).expect("whole");
        assert_eq!(text, "one two three");
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let all: Vec<_> = (0..=PRESSES_MAX).map_while(|_| Press::new()).collect();
        assert_eq!(all.len(), PRESSES_MAX);
        drop(all);
        assert!(Press::new().is_some() && PRESSES.get() == 0);
    }
}
