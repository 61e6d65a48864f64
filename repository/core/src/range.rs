//! Which bytes of a blob a `Range` request header means.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// No range, or one that is not understood: the whole blob, as HTTP asks for.
    Whole,
    /// First and last byte, both within the blob.
    Bytes { first: u64, last: u64 },
    /// 416: nothing of it is within the blob.
    Outside,
}

impl Part {
    pub fn of(header: Option<&str>, size: u64) -> Self {
        let Some(text) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Self::Whole };
        let Some((first, last)) = text.split_once('-') else { return Self::Whole };
        // Several ranges would need a multipart answer; ignoring the header is allowed.
        match (first.parse::<u64>(), last.parse::<u64>()) {
            (Err(_), Ok(suffix)) if first.is_empty() => match suffix.min(size) {
                0 => Self::Outside,
                length => Self::Bytes { first: size - length, last: size - 1 },
            },
            (Ok(first), Ok(last)) if last < first => Self::Whole,
            (Ok(first), Ok(last)) if first < size => Self::Bytes { first, last: last.min(size - 1) },
            (Ok(first), Err(_)) if last.is_empty() && first < size => Self::Bytes { first, last: size - 1 },
            (Ok(_), Ok(_)) => Self::Outside,
            (Ok(_), Err(_)) if last.is_empty() => Self::Outside,
            _ => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let bytes = |first, last| Part::Bytes { first, last };
        for (header, size, part) in [
            (None, 10, Part::Whole),
            (Some("bytes=0-3"), 10, bytes(0, 3)),
            (Some("bytes=5-"), 10, bytes(5, 9)),
            (Some("bytes=5-99"), 10, bytes(5, 9)),
            (Some("bytes=-3"), 10, bytes(7, 9)),
            (Some("bytes=-30"), 10, bytes(0, 9)),
            (Some("bytes=10-"), 10, Part::Outside),
            (Some("bytes=-0"), 10, Part::Outside),
            (Some("bytes=0-0"), 0, Part::Outside),
            (Some("bytes=3-1"), 10, Part::Whole),
            (Some("bytes=0-1,3-4"), 10, Part::Whole),
            (Some("lines=0-1"), 10, Part::Whole),
            (Some("bytes=x"), 10, Part::Whole),
            (Some("bytes=-"), 10, Part::Whole),
        ] {
            assert_eq!(Part::of(header, size), part, "{header:?} of {size}");
        }
    }
}
