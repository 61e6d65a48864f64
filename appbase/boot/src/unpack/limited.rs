//! A reader that ends with an error once too much came out of it.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// How much may still be read, shared by all readers of one budget.
#[derive(Debug, Clone)]
pub(super) struct Spent {
    left: Rc<Cell<Option<u64>>>,
}

impl Spent {
    pub(super) fn new(max: u64) -> Self {
        Self { left: Rc::new(Cell::new(Some(max))) }
    }

    pub(super) fn exceeded(&self) -> bool {
        self.left.get().is_none()
    }
}

pub(super) struct Limited<R> {
    inner: R,
    spent: Spent,
}

impl<R> Limited<R> {
    pub(super) fn new(inner: R, spent: Spent) -> Self {
        Self { inner, spent }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.spent.left.get().and_then(|left| left.checked_sub(read as u64));
        self.spent.left.set(left);
        if left.is_none() {
            return Err(io::Error::other("too large"));
        }
        Ok(read)
    }
}
