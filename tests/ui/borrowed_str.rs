#[waterspout::coroutine]
async fn greet(name: &str) -> usize {
    name.len()
}

fn main() {
    greet("world");
}
