#[waterspout::coroutine]
async fn moved(text: String, missing_mut: Vec<u8>) -> String {
    missing_mut.push(1);
    drop(text);
    text
}

fn main() {}
