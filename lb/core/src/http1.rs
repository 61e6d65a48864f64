//! HTTP/1 as bytes (RFC 9112): heads, the framing of bodies, chunks. Read strictly and once.
//!
//! What two programs could read differently is refused, not repaired: a line that ends with LF alone, both lengths, a
//! coding other than `chunked`, a length with a sign. What goes on is written anew, so nothing odd is ever passed on.

pub mod chunked;
pub mod field;
pub mod framing;
pub mod head;

pub use chunked::Chunked;
pub use field::{Field, Fields, Known};
pub use framing::{BodyLength, FramingError};
pub use head::{HEAD_BYTES_MAX, HeadError, HeadScan, RequestHead, ResponseHead};
