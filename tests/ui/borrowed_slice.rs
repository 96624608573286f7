#[waterspout::coroutine]
async fn send(packets: &[Vec<u8>], into: &mut [u8]) -> usize {
    packets.len() + into.len()
}

fn main() {
    send(&[], &mut []);
}
