#[waterspout::coroutine]
pub extern "C" fn answer() -> u8 {
    42
}

fn main() {
    answer();
}
