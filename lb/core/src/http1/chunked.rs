//! Chunks (RFC 9112, section 7.1): read strictly, extensions and trailers passed over.
//!
//! ```text
//! Size ──CR LF──► Data ──► DataEnd ──CR LF──► Size …
//!   └──0 CR LF──► Trailer line … ──empty line──► Over
//! ```

use super::field::is_name;

/// Why bytes are no chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a chunk's size is not a hexadecimal number of at most 15 digits")]
    Size,
    #[error("a chunk's size line or a trailer is longer than 4 KiB")]
    TooLong,
    #[error("a chunk's extension or a trailer has a control character, or a line ends with LF alone")]
    Character,
    #[error("a chunk's data is not followed by CR LF")]
    DataEnd,
    #[error("a trailer is not NAME: VALUE, or is a field that belongs in the head")]
    Trailer,
}

/// Extensions and trailers, per line and of all trailers together. Nobody needs long ones.
const LINE_BYTES_MAX: usize = 4 << 10;
/// More than a size could ever mean.
const SIZE_DIGITS_MAX: usize = 15;

/// What to do with the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// So many at the start are framing, and done with.
    pub skip: usize,
    /// So many after them are data; say how many were taken with [`Chunked::took`].
    pub data: usize,
    /// All is over after `skip`.
    pub over: bool,
}

#[derive(Debug, Clone)]
pub struct Chunked {
    state: State,
    /// The line so far: a size with its extension, or a trailer.
    line: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    /// How many of CR LF are still to come.
    DataEnd(u8),
    Trailer,
    Over,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size, line: Vec::new(), trailer_bytes: 0 }
    }
}

impl Chunked {
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Looks at what came. `skip` of it is taken note of; data is not, until [`Self::took`].
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, ChunkError> {
        let mut skip = 0;
        loop {
            let rest = &bytes[skip..];
            match self.state {
                State::Over => return Ok(Step { skip, data: 0, over: true }),
                State::Data(left) if !rest.is_empty() => {
                    let data = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    return Ok(Step { skip, data, over: false });
                }
                _ if rest.is_empty() => return Ok(Step { skip, data: 0, over: false }),
                State::Data(_) => return Ok(Step { skip, data: 0, over: false }),
                State::DataEnd(left) => {
                    let expected = if left == 2 { b'\r' } else { b'\n' };
                    if rest[0] != expected {
                        return Err(ChunkError::DataEnd);
                    }
                    skip += 1;
                    self.state = if left == 2 { State::DataEnd(1) } else { State::Size };
                }
                State::Size | State::Trailer => skip += self.take_line(rest)?,
            }
        }
    }

    /// So much of the data that the last step showed is done with.
    pub fn took(&mut self, data: usize) {
        if let State::Data(left) = self.state {
            let left = left.saturating_sub(data as u64);
            self.state = if left == 0 { State::DataEnd(2) } else { State::Data(left) };
        }
    }

    /// Takes bytes up to the end of a line, and the line when it is whole.
    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        if self.line.len() + taken > LINE_BYTES_MAX {
            return Err(ChunkError::TooLong);
        }
        self.line.extend_from_slice(&bytes[..taken]);
        if end.is_none() {
            return Ok(taken);
        }
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\r\n").ok_or(ChunkError::Character)?;
        if text.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(ChunkError::Character);
        }
        match self.state {
            State::Size => self.state = after_size(text)?,
            _ => self.take_trailer(text)?,
        }
        // Kept for the next line.
        self.line = line;
        self.line.clear();
        Ok(taken)
    }

    fn take_trailer(&mut self, text: &[u8]) -> Result<(), ChunkError> {
        if text.is_empty() {
            self.state = State::Over;
            return Ok(());
        }
        self.trailer_bytes += text.len();
        if self.trailer_bytes > LINE_BYTES_MAX {
            return Err(ChunkError::TooLong);
        }
        let name = text.split(|byte| *byte == b':').next().unwrap_or_default();
        let is_named = name.len() < text.len() && is_name(name);
        let frames = ["content-length", "transfer-encoding", "host"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        if is_named && !frames { Ok(()) } else { Err(ChunkError::Trailer) }
    }
}

fn after_size(text: &[u8]) -> Result<State, ChunkError> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // After the size an extension or nothing; a blank before it is what some old servers send and others do not read.
    let ends = text.get(digits).is_none_or(|byte| *byte == b';');
    if digits == 0 || digits > SIZE_DIGITS_MAX || !ends {
        return Err(ChunkError::Size);
    }
    let size = std::str::from_utf8(&text[..digits]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    match size.ok_or(ChunkError::Size)? {
        0 => Ok(State::Trailer),
        size => Ok(State::Data(size)),
    }
}

/// The line before a chunk of `size` bytes.
pub fn size_line(size: usize, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| HEX[(size >> (4 * digit)) & 15]));
    out.extend_from_slice(b"\r\n");
}

/// What follows a chunk's data.
pub const DATA_END: &[u8] = b"\r\n";
/// The last chunk, without trailers.
pub const LAST: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes`, given in pieces of `piece`, and answers the data and what is left over.
    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Option<Vec<u8>>), ChunkError> {
        let (mut chunked, mut data, mut held) = (Chunked::default(), Vec::new(), Vec::new());
        let mut pieces = bytes.chunks(piece);
        loop {
            let step = chunked.step(&held)?;
            held.drain(..step.skip);
            if step.over {
                held.extend(pieces.flatten());
                return Ok((data, Some(held)));
            }
            if step.data > 0 {
                data.extend(held.drain(..step.data));
                chunked.took(step.data);
                continue;
            }
            match pieces.next() {
                Some(more) => held.extend_from_slice(more),
                None => return Ok((data, None)),
            }
        }
    }

    #[test]
    fn chunks_are_read_however_they_are_cut() {
        let bytes = b"4\r\nWiki\r\n0a;name=\"v\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /";
        for piece in 1..bytes.len() {
            let (data, rest) = read(bytes, piece).expect("chunks");
            assert_eq!((&data[..], rest.as_deref()), (&b"Wiki0123456789"[..], Some(&b"GET /"[..])), "{piece}");
        }
        assert_eq!(read(b"4\r\nWi", 3), Ok((b"Wi".to_vec(), None)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for (bytes, expect) in [
            ("4\nWiki\r\n0\r\n\r\n", ChunkError::Character),
            ("4;a\nb\r\nWiki\r\n", ChunkError::Character),
            ("4;a\rb\r\nWiki\r\n", ChunkError::Character),
            ("0\r\nA: b\n\r\n", ChunkError::Character),
            ("0\r\n\n", ChunkError::Character),
            ("4\r\nWiki0\r\n\r\n", ChunkError::DataEnd),
            ("4\r\nWiki\n0\r\n\r\n", ChunkError::DataEnd),
            ("\r\n", ChunkError::Size),
            ("x\r\n", ChunkError::Size),
            ("0x4\r\n", ChunkError::Size),
            ("+4\r\n", ChunkError::Size),
            (" 4\r\n", ChunkError::Size),
            ("4 \r\n", ChunkError::Size),
            ("4 ;a\r\n", ChunkError::Size),
            ("0000000000000004\r\n", ChunkError::Size),
            ("ffffffffffffffff\r\n", ChunkError::Size),
            ("0\r\nno colon\r\n\r\n", ChunkError::Trailer),
            ("0\r\nContent-Length: 3\r\n\r\n", ChunkError::Trailer),
            ("0\r\ntransfer-encoding: chunked\r\n\r\n", ChunkError::Trailer),
            ("0\r\n: b\r\n\r\n", ChunkError::Trailer),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", ChunkError::Trailer),
        ] {
            for piece in [1, 2, 1000] {
                assert_eq!(read(bytes.as_bytes(), piece), Err(expect), "{bytes:?}");
            }
        }
        let long = format!("4;{}", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(read(long.as_bytes(), 100), Err(ChunkError::TooLong));
        let many = format!("0\r\n{}", "a: b\r\n".repeat(LINE_BYTES_MAX / 4 + 1));
        assert_eq!(read(many.as_bytes(), 100), Err(ChunkError::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(sizes in proptest::collection::vec(1usize..5000, 0..6), piece in 1usize..999) {
            let (mut bytes, mut all) = (Vec::new(), Vec::new());
            for size in sizes {
                size_line(size, &mut bytes);
                let data = vec![b'x'; size];
                bytes.extend_from_slice(&data);
                bytes.extend_from_slice(DATA_END);
                all.extend(data);
            }
            bytes.extend_from_slice(LAST);
            proptest::prop_assert_eq!(read(&bytes, piece), Ok((all, Some(Vec::new()))));
        }

        #[test]
        fn cuts_change_nothing(text in "[0-4a;x\r\n: \t-]{0,40}", piece in 1usize..8) {
            proptest::prop_assert_eq!(read(text.as_bytes(), piece), read(text.as_bytes(), 1));
        }
    }
}
