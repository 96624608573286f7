use std::pin::Pin;

struct Session;

impl Session {
    #[waterspout::coroutine]
    async fn run(&mut self) {}

    #[waterspout::coroutine]
    async fn pinned(self: Pin<&mut Self>) {}
}

fn main() {
    Session.run();
}
