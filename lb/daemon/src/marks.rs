//! Marks: what a client is told with its answer, so that its next request goes where this one went.

/// The cookie by which a client stays with its instance: its name ends with a number of the process, its value is the hash
/// of the instance's name, both in hexadecimal.
pub(crate) const STICKY_COOKIE: &str = "platformer-instance-";
/// The cookie by which a client keeps its place in the weights, in hexadecimal.
pub(crate) const PLACE_COOKIE: &str = "platformer-place";

/// What the client is told with its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// It stays, of this process, with the instance of this hash.
    pub(crate) sticks_to: Option<(u32, u64)>,
    /// Its place in the weights.
    pub(crate) place: Option<u16>,
    /// What it sees is not for everybody.
    pub(crate) preview: bool,
    /// It asks over TLS alone for so many seconds (RFC 6797); 0: nothing is said of that.
    pub(crate) https_for_s: u64,
}
