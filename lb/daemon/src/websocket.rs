//! WebSocket frames, as far as lb must know them: where one ends, and the frame that asks a client to go.

/// Close, unmasked, status 1001 (going away).
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// Follows the bytes towards a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames {
    header: [u8; 10],
    header_bytes: usize,
    payload_left: u64,
}

impl Frames {
    /// Between two frames: nothing of the next one was sent.
    pub(crate) fn at_boundary(&self) -> bool {
        self.header_bytes == 0 && self.payload_left == 0
    }

    /// Takes note of `bytes` as sent.
    pub(crate) fn advance(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = &rest[taken..];
        }
    }

    /// How many of `bytes` may be sent until the next boundary.
    pub(crate) fn until_boundary(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut at = 0;
        while at < bytes.len() {
            at += ahead.step(&bytes[at..]);
            if ahead.at_boundary() {
                break;
            }
        }
        at
    }

    /// Takes at least one byte, at most to the end of a header or payload.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload_left > 0 {
            let taken = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
            self.payload_left -= taken as u64;
            return taken;
        }
        self.header[self.header_bytes] = bytes[0];
        self.header_bytes += 1;
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.header_bytes >= 2 && self.header_bytes == 2 + extended {
            let length = self.header[2..2 + extended].iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
            let length = if extended == 0 { u64::from(self.header[1] & 0x7f) } else { length };
            // A server must not mask; one that does has four more bytes.
            let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
            self.payload_left = length.saturating_add(mask);
            self.header_bytes = 0;
            self.header = [0; 10];
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_where_frames_end() {
        let (mut bytes, mut boundaries) = (Vec::new(), Vec::new());
        for (length, header) in [(2usize, vec![0x81, 2]), (300, vec![0x82, 126, 1, 44]), (0, vec![0x89, 0])] {
            bytes.extend(header);
            bytes.extend(vec![b'\n'; length]);
            boundaries.push(bytes.len());
        }
        let mut eight = vec![0x82, 127];
        eight.extend(70_000u64.to_be_bytes());
        bytes.extend(eight);
        bytes.extend(vec![0; 70_000]);
        boundaries.push(bytes.len());

        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            frames.advance(&[*byte]);
            if frames.at_boundary() {
                seen.push(at + 1);
            }
        }
        assert_eq!(seen, boundaries);

        let mut frames = Frames::default();
        let mut at = 0;
        for boundary in boundaries {
            let taken = frames.until_boundary(&bytes[at..]);
            frames.advance(&bytes[at..at + taken]);
            at += taken;
            assert_eq!(at, boundary);
        }
    }
}
