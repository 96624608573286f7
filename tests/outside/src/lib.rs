//! Other crates on waterspout, by its public API alone: what a service is made of. See `tests/`.
//!
//! [`quinn`] and [`hickory`] are adapters, each a file to copy. `examples/` has a program that uses it.

pub mod hickory;
pub mod quinn;
mod services;

use std::path::PathBuf;

pub use services::Server;

/// Where cargo puts an example: beside the directory of the test that asks.
///
/// # Panics
///
/// If it was not built: `cargo test` builds the examples, `cargo test --test NAME` does not.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "no {}: run `cargo build --examples` first", path.display());
    path
}
