#[waterspout::coroutine]
async fn keep<T>(value: T) -> T {
    value
}

#[waterspout::coroutine]
async fn show(value: impl std::fmt::Display) {
    println!("{value}");
}

fn main() {}
