use std::cell::Ref;

#[waterspout::coroutine]
async fn show(value: Ref<'_, u8>) -> u8 {
    *value
}

fn main() {}
