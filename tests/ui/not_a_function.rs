#[waterspout::coroutine]
struct Session {
    id: u32,
}

#[waterspout::engine]
const LIMIT: usize = 5;

#[waterspout::test]
mod tests {}

fn main() {
    let _ = Session { id: LIMIT as u32 }.id;
}
