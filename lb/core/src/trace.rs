//! Trace: which trace a request belongs to (W3C Trace Context, level 1: `traceparent`).
//!
//! ```text
//! 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//!    trace                            span             sampled
//! ```

use std::fmt;

use crate::http1::{Fields, Known};
use crate::pick::Seeds;

/// A request's place in its trace, as it is told to the app: the span is lb's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    /// The client's span; none: the trace begins here.
    pub parent: Option<u64>,
    pub is_sampled: bool,
}

impl Context {
    /// Goes on with the client's trace, where it has one, or begins another. Whether it is sampled is not the client's to say,
    /// but it follows from the trace alone: all that sample the same share of traces sample the same ones.
    pub fn of(fields: &Fields, seeds: &mut Seeds, share: Share) -> Self {
        let (trace, parent) = match parent(fields) {
            Some((trace, span)) => (trace, Some(span)),
            None => (u128::from(seeds.draw()) << 64 | u128::from(seeds.draw().max(1)), None),
        };
        Self { trace, span: seeds.draw().max(1), parent, is_sampled: share.takes(trace as u64) }
    }
}

/// As the value of `traceparent`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// A part of all: from 0, none, to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    pub const ALL: Self = Self(1.0);

    /// None: it is no number from 0 to 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    pub fn part(self) -> f64 {
        self.0
    }

    pub fn is_all(self) -> bool {
        self.0 >= 1.0
    }

    /// Whether what this number was drawn for is in it.
    pub fn takes(self, drawn: u64) -> bool {
        // Numbers that others chose may be anything but even.
        self.is_all() || (Seeds(drawn).draw() as f64) < self.0 * u64::MAX as f64
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| "a share is a number from 0 to 1, as 0.05".to_owned())
    }
}

/// Trace and span that the client names. Two such lines name nobody.
fn parent(fields: &Fields) -> Option<(u128, u64)> {
    let mut lines = fields.all(Known::TraceParent);
    match (lines.next(), lines.next()) {
        (Some(line), None) => read(line.value),
        _ => None,
    }
}

/// Later versions may have more to say, behind what this one has.
fn read(value: &[u8]) -> Option<(u128, u64)> {
    let (version, trace, span, flags) = (value.get(..2)?, value.get(3..35)?, value.get(36..52)?, value.get(53..55)?);
    let is_hex = |text: &&[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parted = [2, 35, 52].iter().all(|at| value[*at] == b'-');
    let rest = match version {
        b"ff" => false,
        b"00" => value.len() == 55,
        _ => value.get(55).is_none_or(|next| *next == b'-'),
    };
    if !parted || !rest || ![version, trace, span, flags].iter().all(is_hex) {
        return None;
    }
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let trace = u128::from_str_radix(text(trace)?, 16).ok()?;
    let span = u64::from_str_radix(text(span)?, 16).ok()?;
    (trace != 0 && span != 0).then_some((trace, span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::RequestHead;

    fn context(lines: &str) -> Context {
        let mut head = RequestHead::default();
        head.read(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes()).expect("a head");
        Context::of(&head.fields, &mut Seeds(7), Share::ALL)
    }

    #[test]
    fn a_clients_trace_goes_on() {
        let context = context("TraceParent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n");
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.is_sampled, "that is lb's to say");
        let told = context.to_string();
        assert!(told.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && told.ends_with("-01"), "{told}");
        assert_ne!(context.span, 0x00f0_67aa_0ba9_02b7);
    }

    #[test]
    fn what_names_no_trace_begins_one() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let (zeros, zero) = ("0".repeat(32), "0".repeat(16));
        for value in [
            String::new(),
            "00".to_owned(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-0"),
            format!("00-{trace}-{span}-01-"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("01-{trace}-{span}-01x"),
            format!("0g-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{zeros}-{span}-01"),
            format!("00-{trace}-{zero}-01"),
            format!("00_{trace}-{span}-01"),
            format!("00-{trace}-{span}-01\r\ntraceparent: 00-{trace}-{span}-01"),
        ] {
            assert_eq!(context(&format!("traceparent: {value}\r\n")).parent, None, "{value}");
        }
        assert!(context("").trace > u128::from(u64::MAX));
        for later in ["01", "cc"].map(|version| format!("{version}-{trace}-{span}-01-what")) {
            assert!(context(&format!("traceparent: {later}\r\n")).parent.is_some(), "{later}");
        }
    }

    #[test]
    fn a_share_takes_its_part_of_any_numbers() {
        for (share, wanted) in [(0.0, 0..1), (0.1, 900..1_100), (0.5, 4_800..5_200), (1.0, 10_000..10_001)] {
            let share = Share::new(share).expect("a share");
            for step in [1, 1 << 40] {
                let taken = (0..10_000u64).filter(|number| share.takes(number * step)).count();
                assert!(wanted.contains(&taken), "{share} of 10,000: {taken}");
            }
        }
        for text in ["", "-0.1", "1.1", "NaN", "some"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
