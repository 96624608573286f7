const NAME: &str = "session";

#[waterspout::coroutine(name = NAME)]
async fn session() {}

#[waterspout::engine(name = 5)]
async fn five() {}

trait Store {
    #[waterspout::coroutine(name = "load")]
    async fn load(self);
}

fn main() {
    session();
    five();
}
