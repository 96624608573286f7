//! Writing your own lock: many readers or one writer, from a `Condition` and a `Cell`.
//!
//! A coroutine is interrupted only where it awaits, so looking at the state and then changing it needs no
//! protection. A waiter that is dropped, by a time limit say, leaves the condition's queue. So whatever can
//! be done with the futures of the crate's own locks can be done with those of this one; its test checks
//! that.
//!
//! ```text
//! $ cargo run --example own_lock
//! ```

use std::cell::Cell;
use std::time::Duration;

use waterspout::coroutine::{moment, with_timeout};
use waterspout::locks::Condition;

#[derive(Default)]
struct RwLock {
    /// How many read; -1 while one writes.
    users: Cell<isize>,
    changed: Condition,
}

/// Gives the lock back when it is dropped, also by a panic.
struct Guard<'a>(&'a RwLock);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.users.set((self.0.users.get() - 1).max(0));
        self.0.changed.notify_all();
    }
}

impl RwLock {
    async fn read(&self) -> Guard<'_> {
        while self.users.get() < 0 {
            self.changed.wait().await;
        }
        self.users.set(self.users.get() + 1);
        Guard(self)
    }

    async fn write(&self) -> Guard<'_> {
        while self.users.get() != 0 {
            self.changed.wait().await;
        }
        self.users.set(-1);
        Guard(self)
    }
}

#[waterspout::main]
async fn main() {
    let lock = RwLock::default();
    let reader = async |name: &str| {
        let _guard = lock.read().await;
        println!("{name} reads, beside {} others", lock.users.get() - 1);
        moment().await;
    };
    let writer = async {
        let _guard = lock.write().await;
        println!("one writes, alone: {}", lock.users.get() == -1);
        let limited = with_timeout(Duration::from_millis(1), lock.read()).await;
        println!("reading meanwhile takes too long: {}", limited.is_err());
    };
    futures::join!(reader("ann"), reader("bob"), writer, reader("eve"));
}

#[cfg(test)] // tests/suites.rs includes this file, and so runs this test
#[test]
fn its_write_lock_is_a_lock() {
    use waterspout::testing::{explore, lock_suite};
    explore(20, || lock_suite(RwLock::default, RwLock::write));
}
