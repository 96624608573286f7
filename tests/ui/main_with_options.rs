#[waterspout::main(threads = 4)]
async fn main() {}

#[waterspout::main(slow_callback = "100 ms")]
async fn no_number() {}

#[waterspout::main(virtual_time = true)]
async fn no_flag() {}

#[waterspout::main(timeout = 5)]
async fn of_a_test() {}
