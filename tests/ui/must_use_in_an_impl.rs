//! The compiler looks for `must_use` on a trait's declaration, and says so.

#![deny(unused_attributes)]

trait Store {
    #[waterspout::coroutine(must_use)]
    async fn load(self);
}

impl Store for u8 {
    #[waterspout::coroutine(must_use)]
    async fn load(self) {}
}

fn main() {}
