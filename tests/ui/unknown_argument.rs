use waterspout::Coroutine;

#[waterspout::coroutine(label = "session")]
async fn session() {}

#[waterspout::coroutine(name = "a", name = "b")]
async fn twice() {}

#[waterspout::coroutine("session")]
async fn no_word() {}

fn main() {
    let _: [Coroutine<()>; 3] = [session(), twice(), no_word()];
}
