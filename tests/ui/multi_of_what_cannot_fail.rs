//! Futures that cannot fail are for `multi_outputs`, and the compiler says so.

use waterspout::coroutine::multi;

#[waterspout::coroutine]
async fn fetch(n: u32) -> u32 {
    n
}

#[waterspout::coroutine]
async fn both() {
    multi(vec![fetch(1), fetch(2)]).await;
}

fn main() {}
