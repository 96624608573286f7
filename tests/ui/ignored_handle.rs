//! A handle that somebody ought to have is not ignored without a warning.

#![deny(unused_must_use)]

#[waterspout::coroutine(must_use)]
async fn save() {}

#[waterspout::coroutine(must_use)]
#[must_use = "it costs a fortune"]
async fn compute() {}

#[waterspout::coroutine(cancel_on_drop)]
async fn watch() {}

trait Store {
    #[waterspout::coroutine(must_use)]
    async fn load(self);
}

impl Store for u8 {
    #[waterspout::coroutine]
    async fn load(self) {}
}

#[waterspout::coroutine]
async fn leave() {
    save();
    compute();
    watch();
    5.load();
    drop(save());
    save().await;
}

fn main() {
    leave();
}
