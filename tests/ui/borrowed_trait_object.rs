use std::{fmt::Display, path::Path};

#[waterspout::coroutine]
async fn show(value: &dyn Display, other: &impl Display, path: &Path) {
    println!("{value}{other}{path:?}");
}

fn main() {
    show(&1, &2, Path::new("."));
}
