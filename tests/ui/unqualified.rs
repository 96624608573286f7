// The compiler keeps the bare word `coroutine` for an attribute of its own, so ours needs its path.
use waterspout::coroutine;

#[coroutine]
async fn session() {}

fn main() {}
