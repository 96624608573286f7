//! Waiting until a thread sleeps in the system, a loop in its selector for one: what it does when it is
//! woken from there can be tested without a guess at how long it takes to get there.

use std::fs;
use std::thread;

use rustix::thread::Pid;

/// Waits until a thread of this process sleeps; for ever if it never does.
pub fn wait_until_asleep(thread: Pid) {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    let is_asleep = || {
        let stat = fs::read_to_string(&path).expect("the thread is there");
        // After its name, which is in parentheses and may have some itself.
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    };
    while !is_asleep() {
        thread::yield_now();
    }
}
