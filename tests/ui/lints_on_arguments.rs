#![deny(unused_variables, unused_mut, unused_assignments)]

// What is unused is said to be so, as of any function; nothing else is.
#[waterspout::coroutine]
async fn unused(used: u8, unused: u8, mut also_unused: u8) -> u8 {
    used
}

#[waterspout::coroutine]
async fn needless_mut(mut count: u8) -> u8 {
    count
}

#[waterspout::coroutine]
async fn needed_mut(mut count: u8, _unused: u8, _: u8) -> u8 {
    while count < 200 {
        count += count;
    }
    count
}

fn main() {}
