//! Server-sent events out of a stream of bytes.

/// One event is never larger than this; the rest of such a stream is not believed.
const EVENT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

#[derive(Debug, thiserror::Error)]
#[error("an event of the stream is larger than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

/// Takes bytes as they come, gives whole events.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
    event: Event,
    has_data: bool,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        self.pending.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(length) = self.pending[start..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.pending[start..start + length]).into_owned();
            start += length + 1;
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        self.pending.drain(..start);
        if self.pending.len() + self.event.data.len() > EVENT_BYTES_MAX {
            return Err(TooLarge);
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments (heartbeats) have an empty field name; `event` and `retry` mean nothing here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Option<&str>, data: &str) -> Event {
        Event { id: id.map(str::to_owned), data: data.to_owned() }
    }

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let stream = b": heartbeat\n\nretry: 1000\nid: 1\ndata: {\"a\":\ndata: 1}\n\nid:2\r\nevent: x\r\ndata:b\r\n\r\ndata: torn";
        let expected = [event(Some("1"), "{\"a\":\n1}"), event(Some("2"), "b")];
        for size in 1..stream.len() {
            let mut decoder = Decoder::default();
            let events: Vec<Event> =
                stream.chunks(size).flat_map(|chunk| decoder.push(chunk).expect("small")).collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::default();
        assert!(decoder.push(&vec![b'x'; EVENT_BYTES_MAX]).is_ok());
        assert!(decoder.push(b"xx").is_err());
    }
}
