//! Under `#[coroutines]`, a bare word is refused where the attribute by its path is.

#[waterspout::coroutines]
mod service {
    #[coroutine]
    pub struct Session;

    #[engine]
    const LIMIT: usize = 5;

    pub mod names {
        #[coroutine(label = "x")]
        pub async fn first(name: &str) -> u8 {
            name.as_bytes()[0]
        }
    }
}

#[waterspout::coroutines(name = "all")]
impl service::Session {
    #[coroutine]
    async fn wait(&self) {}
}

#[waterspout::coroutines]
trait Peer {
    #[coroutine(name = "x")]
    async fn ping(self);
}

fn main() {}
