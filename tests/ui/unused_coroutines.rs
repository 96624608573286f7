#![deny(dead_code)]

use std::rc::Rc;

#[waterspout::coroutine]
async fn unused() -> u8 {
    5
}

#[waterspout::engine]
async fn unused_engine() {}

#[waterspout::main]
async fn unused_main() -> u8 {
    5
}

struct Used(u8);

impl Used {
    #[waterspout::coroutine]
    async fn unused_method(self: Rc<Self>) -> u8 {
        self.0
    }

    fn plain_method(&self) -> u8 {
        self.0
    }

    #[waterspout::coroutine]
    async fn used(self) {}
}

trait Unused {
    #[waterspout::coroutine]
    async fn declared(self: Rc<Self>);
}

impl Unused for Used {
    #[waterspout::coroutine]
    async fn declared(self: Rc<Self>) {}
}

fn main() {
    drop(Used(5).used());
}
