#[waterspout::main]
fn main() -> std::io::Result<()> {
    Ok(())
}
