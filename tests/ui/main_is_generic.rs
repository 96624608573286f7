#[waterspout::main]
async fn main<T>() {}
