struct Opaque;

#[waterspout::engine]
async fn count() -> usize {
    5
}

#[waterspout::engine]
async fn fails() -> Result<(), Opaque> {
    Err(Opaque)
}

#[waterspout::engine]
async fn iterates() -> impl Iterator<Item = u8> {
    [].into_iter()
}

fn main() {}
