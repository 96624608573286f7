//! `HttpServer` under attack: what clients send that they should not, what they do not send, and what foreign code
//! in handlers, bodies and services does. In virtual time, over connections in memory.

mod bodies;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod foreign;
mod heads;
#[path = "../common/http.rs"]
mod http;
mod http2;
mod secure;
mod slow;

use std::cell::RefCell;
use std::rc::Rc;

use waterspout::{Exception, IoLoop};

pub(crate) use self::http::{Client, Inside, SECOND};

/// Runs `attack` on a loop of its own and gives what the loop was told of.
pub(crate) fn reported<F: Future>(attack: impl FnOnce() -> F) -> Vec<String> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hears = heard.clone();
    let hear = move |exception: &Exception| hears.borrow_mut().push(exception.to_string());
    let io_loop = IoLoop::builder().virtual_time().on_exception(hear).build().unwrap();
    io_loop.run_sync(attack).unwrap();
    drop(io_loop);
    heard.take()
}

/// Runs `attack`, of which nothing is to be reported.
#[track_caller]
pub(crate) fn unharmed<F: Future>(attack: impl FnOnce() -> F) {
    let reported = reported(attack);
    assert!(reported.is_empty(), "{reported:?}");
}
