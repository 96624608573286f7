//! waterspout
#![allow(dead_code)]
mod ioloop {
    mod slots;
    mod timers;
}
