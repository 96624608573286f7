//! What is awaited together is a vector, an array, a map or a tuple, and the compiler says so.

use waterspout::coroutine::{multi, multi_outputs, sleep, try_multi};

#[waterspout::coroutine]
async fn fetch(n: u32) -> Result<u32, String> {
    Ok(n)
}

#[waterspout::coroutine]
async fn of_an_iterator() {
    let _ = multi((1..4).map(fetch));
}

#[waterspout::coroutine]
async fn of_what_is_no_future() {
    let _ = multi_outputs((fetch(1), 5));
}

#[waterspout::coroutine]
async fn of_what_cannot_be_cancelled() {
    let _ = try_multi([async { Ok::<u8, ()>(1) }]);
}

#[waterspout::coroutine]
async fn of_what_cannot_fail() {
    let _ = try_multi(vec![waterspout::coroutine::start(sleep(std::time::Duration::ZERO))]);
}

fn main() {}
