struct Session;

impl Session {
    #[waterspout::coroutine]
    async fn run(&self) {}

    #[waterspout::coroutine]
    async fn named<'a>(&'a self) {}

    #[waterspout::coroutine]
    async fn typed(self: &Self) {}
}

fn main() {
    Session.run();
}
