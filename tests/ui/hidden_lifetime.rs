use std::cell::Ref;

// Nothing in these tokens tells that the type borrows; the compiler knows.
#[waterspout::coroutine]
async fn show(value: Ref<u8>) -> u8 {
    *value
}

fn main() {}
