//! Phase: what becomes of the connections that lb has.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serves,
    /// A newer lb takes what comes. The connections that are here end when it suits their clients.
    HandedOver,
    /// The process ends, and with it every connection on which nothing is under way.
    Stops,
}
