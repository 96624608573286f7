//! What is said of the handle is said once, and where there is one.

#[waterspout::coroutine(cancel_on_drop, must_use)]
async fn both() {}

#[waterspout::coroutine(cancel_on_drop = true)]
async fn value() {}

#[waterspout::engine(cancel_on_drop)]
async fn tied_engine() {}

#[waterspout::engine(must_use)]
async fn used_engine() {}

#[waterspout::engine(detached)]
async fn detached_engine() {}

fn main() {}
