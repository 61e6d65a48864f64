//! Kind: what a head says of how its exchange goes: a request, which ends soon, or one that lasts.

use lb_core::http1::{Known, RequestHead, ResponseHead};

const STREAMS: [&str; 2] = ["text/event-stream", "multipart/x-mixed-replace"];
const CALL: &str = "application/grpc";

/// The request says itself that its answer may be silent for long.
pub(crate) fn asks_for_stream(head: &RequestHead) -> bool {
    is_call(head) || head.fields.all(Known::Accept).any(|accept| contains(accept.value, STREAMS[0].as_bytes()))
}

/// A call of gRPC: either side may say something now and then, or nothing for hours.
pub(crate) fn is_call(head: &RequestHead) -> bool {
    head.fields.get(Known::ContentType).is_some_and(|kind| begins(kind.value, CALL))
}

pub(crate) fn is_stream(head: &ResponseHead) -> bool {
    let kind = head.fields.get(Known::ContentType).map(|field| field.value).unwrap_or_default();
    begins(kind, CALL) || STREAMS.iter().any(|stream| begins(kind, stream))
}

fn begins(value: &[u8], kind: &str) -> bool {
    value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}
