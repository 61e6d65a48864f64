//! The one place that asks the machine for chance.

/// `N` random bytes from the operating system.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .expect("the operating system has a random source; in a container /dev/urandom must exist");
    bytes
}

/// A random id of lower-case hex digits, `2 * N` long.
pub fn hex<const N: usize>() -> String {
    bytes::<N>().iter().map(|byte| format!("{byte:02x}")).collect()
}
