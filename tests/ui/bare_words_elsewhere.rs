//! What `#[coroutines]` cannot stand on.

#[waterspout::coroutines]
async fn session() {
    #[coroutine]
    async fn inner() {}
    inner();
}

#[waterspout::coroutines]
struct Session;

fn main() {
    session();
    Session;
}
