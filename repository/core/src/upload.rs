//! An upload: bytes that come in one or many requests, strictly in order.
//!
//! ```text
//!            begin                     end (done or cut)
//! waiting ──────────► receiving{left} ───────────────► waiting, offset moved
//!    │ close                │ received: offset moves
//!    ▼
//! closed
//! ```

use std::fmt;

/// 32 lower-case hex digits, made by chance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadId(String);

impl UploadId {
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    #[error("chunk begins at byte {start}, the upload is at byte {offset}: send from there")]
    OutOfOrder { start: u64, offset: u64 },
    #[error("content range \"{0}\" is not \"<first byte>-<last byte>\"")]
    Range(String),
    #[error("chunk has not the {declared} bytes that its content range says: send from byte {offset}")]
    Length { declared: u64, offset: u64 },
    #[error("blob is larger than {bytes_max} bytes, the most that is stored here")]
    TooLarge { bytes_max: u64 },
    #[error("another request is writing to this upload")]
    Busy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// `left`: bytes still to come, when the request said how many.
    Receiving {
        left: Option<u64>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    offset: u64,
    bytes_max: u64,
    phase: Phase,
}

impl Upload {
    /// `offset`: bytes already stored; 0 for a new one.
    pub fn at(offset: u64, bytes_max: u64) -> Self {
        Self { offset, bytes_max, phase: Phase::Waiting }
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The `Range` header of an answer. With nothing stored it is `0-0`, as all registries say it.
    pub fn range(&self) -> String {
        range(self.offset)
    }

    /// A request wants to send a chunk. `content_range` as in OCI (`0-99`, `bytes ` before and `/…` after are
    /// tolerated); Docker sends neither range nor length.
    pub fn begin(&mut self, content_range: Option<&str>, content_length: Option<u64>) -> Result<(), UploadError> {
        if self.phase != Phase::Waiting {
            return Err(UploadError::Busy);
        }
        let mut left = content_length;
        if let Some(text) = content_range {
            let (first, last) = parse_range(text)?;
            if first != self.offset {
                return Err(UploadError::OutOfOrder { start: first, offset: self.offset });
            }
            let declared = last - first + 1;
            if content_length.is_some_and(|length| length != declared) {
                return Err(UploadError::Length { declared, offset: self.offset });
            }
            left = Some(declared);
        }
        self.fits(left.unwrap_or(0))?;
        self.phase = Phase::Receiving { left };
        Ok(())
    }

    /// May `bytes` more be written? Ask before writing, then say [`Upload::received`].
    pub fn admits(&self, bytes: u64) -> Result<(), UploadError> {
        match self.phase {
            Phase::Receiving { left: Some(left) } if bytes > left => {
                Err(UploadError::Length { declared: left, offset: self.offset })
            }
            Phase::Receiving { .. } => self.fits(bytes),
            Phase::Waiting => Err(UploadError::Busy),
        }
    }

    /// `bytes` more are in the file.
    pub fn received(&mut self, bytes: u64) {
        self.offset = self.offset.saturating_add(bytes);
        if let Phase::Receiving { left: Some(left) } = &mut self.phase {
            *left = left.saturating_sub(bytes);
        }
    }

    /// The request ended. What was received stays, whether or not it was all.
    pub fn end(&mut self) -> Result<(), UploadError> {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Receiving { left: Some(left) } if left > 0 => {
                Err(UploadError::Length { declared: left, offset: self.offset })
            }
            Phase::Receiving { .. } | Phase::Waiting => Ok(()),
        }
    }

    fn fits(&self, bytes: u64) -> Result<(), UploadError> {
        match self.offset.checked_add(bytes) {
            Some(end) if end <= self.bytes_max => Ok(()),
            _ => Err(UploadError::TooLarge { bytes_max: self.bytes_max }),
        }
    }
}

/// The `Range` header for an upload that holds `offset` bytes.
pub fn range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn parse_range(text: &str) -> Result<(u64, u64), UploadError> {
    let wrong = || UploadError::Range(text.chars().take(60).collect::<String>().escape_debug().to_string());
    let plain = text.strip_prefix("bytes ").unwrap_or(text);
    let plain = plain.split_once('/').map_or(plain, |(range, _)| range);
    let (first, last) = plain.split_once('-').ok_or_else(wrong)?;
    let number = |digits: &str| {
        let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        all_digits.then(|| digits.parse::<u64>().ok()).flatten().ok_or_else(wrong)
    };
    let (first, last) = (number(first)?, number(last)?);
    if last < first || last == u64::MAX {
        return Err(wrong());
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_in_order() {
        let mut upload = Upload::at(0, 1000);
        assert_eq!(upload.range(), "0-0");
        upload.begin(Some("0-9"), Some(10)).expect("the first chunk");
        upload.admits(10).expect("as declared");
        upload.received(10);
        upload.end().expect("complete");
        assert_eq!(upload.range(), "0-9");

        for (range, error) in [
            ("11-20", UploadError::OutOfOrder { start: 11, offset: 10 }),
            ("0-9", UploadError::OutOfOrder { start: 0, offset: 10 }),
            ("10-", UploadError::Range("10-".to_owned())),
            ("20-10", UploadError::Range("20-10".to_owned())),
            ("+10-12", UploadError::Range("+10-12".to_owned())),
            ("0-18446744073709551615", UploadError::Range("0-18446744073709551615".to_owned())),
        ] {
            assert_eq!(upload.begin(Some(range), None), Err(error), "{range}");
        }
        assert_eq!(upload.begin(Some("10-19"), Some(9)), Err(UploadError::Length { declared: 10, offset: 10 }));
        upload.begin(Some("bytes 10-19/*"), None).expect("the web's way of writing it");
    }

    #[test]
    fn a_cut_chunk_keeps_what_came() {
        let mut upload = Upload::at(0, 1000);
        upload.begin(Some("0-99"), None).expect("begins");
        upload.received(40);
        assert_eq!(upload.end(), Err(UploadError::Length { declared: 60, offset: 40 }));
        assert_eq!(upload.offset(), 40);
        upload.begin(Some("40-99"), None).expect("resumes");
    }

    #[test]
    fn one_request_at_a_time_and_no_more_than_allowed() {
        let mut upload = Upload::at(0, 100);
        assert_eq!(upload.begin(None, Some(101)), Err(UploadError::TooLarge { bytes_max: 100 }));
        upload.begin(None, None).expect("of unknown length");
        assert_eq!(upload.begin(None, None), Err(UploadError::Busy));
        upload.admits(100).expect("exactly the limit");
        assert_eq!(upload.admits(101), Err(UploadError::TooLarge { bytes_max: 100 }));
        upload.received(100);
        assert!(upload.admits(1).is_err());
        assert_eq!(upload.admits(u64::MAX), Err(UploadError::TooLarge { bytes_max: 100 }));
    }

    #[test]
    fn more_than_declared_is_refused() {
        let mut upload = Upload::at(0, 100);
        upload.begin(Some("0-9"), None).expect("begins");
        assert!(matches!(upload.admits(11), Err(UploadError::Length { .. })));
    }

    #[test]
    fn ids_are_file_names() {
        assert!(UploadId::parse(&"a0".repeat(16)).is_some());
        for bad in ["", "..", &"A0".repeat(16), &"a".repeat(33), "../../../../../../../../../etc/pw"] {
            assert!(UploadId::parse(bad).is_none(), "{bad}");
        }
    }
}
