//! Orders for a thread that must not wait, from threads that may be put aside at any moment.
//!
//! What is put in stays its writer's: the reader looks at it in place, and the writers take it out again.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};

struct Shared<T> {
    orders: Vec<T>,
    /// So many of them have been read.
    read: usize,
    closed: bool,
}

/// Where orders are put in; the last one to go closes it.
pub(crate) struct Orders<T>(Arc<Mutex<Shared<T>>>);

/// Where they are read.
pub(crate) struct Letters<T>(Arc<Mutex<Shared<T>>>);

/// An empty one.
pub(crate) fn open<T>() -> (Orders<T>, Letters<T>) {
    let shared = Arc::new(Mutex::new(Shared {
        orders: Vec::new(),
        read: 0,
        closed: false,
    }));
    (Orders(shared.clone()), Letters(shared))
}

impl<T> Orders<T> {
    /// Puts one in.
    pub(crate) fn put(&self, order: T) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = std::mem::take(&mut shared.read);
        drop(shared.orders.drain(..read));
        shared.orders.push(order);
    }
}

impl<T> Drop for Orders<T> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

impl<T> Letters<T> {
    /// Reads what is new, unless somebody is just putting something in: that is there the next time. Whether more may
    /// come.
    pub(crate) fn read(&self, look: impl FnMut(&T)) -> bool {
        let mut shared = match self.0.try_lock() {
            Ok(shared) => shared,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return true,
        };
        shared
            .orders
            .get(shared.read..)
            .unwrap_or_default()
            .iter()
            .for_each(look);
        shared.read = shared.orders.len();
        !shared.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(letters: &Letters<u8>) -> (Vec<u8>, bool) {
        let mut seen = Vec::new();
        let open = letters.read(|order| seen.push(*order));
        (seen, open)
    }

    #[test]
    fn each_order_is_read_once_and_the_end_is_seen() {
        let (orders, letters) = open();
        assert_eq!(read(&letters), (vec![], true));
        orders.put(1);
        orders.put(2);
        assert_eq!(read(&letters), (vec![1, 2], true));
        orders.put(3);
        assert_eq!(read(&letters), (vec![3], true));
        orders.put(4);
        drop(orders);
        assert_eq!(read(&letters), (vec![4], false));
    }

    /// A writer that is put aside with the lock in its hand.
    #[test]
    fn the_reader_does_not_wait() {
        let (orders, letters) = open();
        orders.put(1);
        let held = orders.0.lock().unwrap();
        assert_eq!(read(&letters), (vec![], true));
        drop(held);
        assert_eq!(read(&letters), (vec![1], true));
    }
}
