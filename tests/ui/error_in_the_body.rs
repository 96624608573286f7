#[waterspout::coroutine]
async fn last_expression() -> u8 {
    let text = "five";
    text
}

#[waterspout::coroutine]
async fn in_a_return(early: bool) -> Option<u8> {
    if early {
        return 5;
    }
    None
}

#[waterspout::coroutine]
async fn no_last_expression() -> u8 {
    5;
}

#[waterspout::coroutine]
async fn no_result_declared() {
    5
}

#[waterspout::coroutine]
async fn in_the_middle(n: u32) -> u32 {
    let text: String = n;
    n + missing
}

#[waterspout::main]
async fn main() -> Result<(), std::num::ParseIntError> {
    let _: u8 = "5".parse()?;
}
