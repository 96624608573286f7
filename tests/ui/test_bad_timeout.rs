#[waterspout::test(timeout = 0)]
async fn no_time() {}

#[waterspout::test(timeout = -1.5)]
async fn less_than_none() {}

#[waterspout::test(timeout = "5s")]
async fn not_a_number() {}

#[waterspout::test(timeout)]
async fn no_value() {}

fn main() {}
