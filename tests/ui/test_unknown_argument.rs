#[waterspout::test(start_paused = true)]
async fn unknown() {}

#[waterspout::test(virtual_time = true)]
async fn no_flag() {}

fn main() {}
