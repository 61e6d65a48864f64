//! What a tar says of the next entry in an entry before it: GNU long names and PAX records. The tar crate would read
//! them whole into memory, however large; here they have a limit.

use std::io::{self, Read};

use tar::EntryType;

/// Room for a path, a link and a few attributes.
const RECORD_BYTES_MAX: u64 = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

pub(super) enum TakeError {
    Read(io::Error),
    Wrong(&'static str),
}

pub(super) fn is(kind: EntryType) -> bool {
    matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader)
}

impl Extended {
    pub(super) fn take(&mut self, kind: EntryType, entry: &mut impl Read) -> Result<(), TakeError> {
        let mut bytes = Vec::new();
        entry.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(TakeError::Read)?;
        if bytes.len() as u64 > RECORD_BYTES_MAX {
            return Err(TakeError::Wrong("is followed by a name or record longer than 256 KiB"));
        }
        match kind {
            EntryType::GNULongName => self.path = Some(until_zero(bytes)),
            EntryType::GNULongLink => self.link = Some(until_zero(bytes)),
            EntryType::XHeader => self.take_records(&bytes)?,
            // Global records carry comments (git archive); none of them names a file.
            _ => {}
        }
        Ok(())
    }

    /// `<length> <key>=<value>\n`, the length counting the whole record; values may hold any byte.
    fn take_records(&mut self, mut rest: &[u8]) -> Result<(), TakeError> {
        while !rest.is_empty() {
            let (record, after) = split_record(rest).ok_or(TakeError::Wrong("is followed by a damaged PAX record"))?;
            rest = after;
            let Some(equals) = record.iter().position(|b| *b == b'=') else { continue };
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size = Some(number.ok_or(TakeError::Wrong("is followed by a size that is no number"))?);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(TakeError::Wrong("is followed by a sparse file: pack without --sparse"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(12).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &bytes[length..]))
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    bytes
}
