//! Each misuse of an attribute gets one error, and the error says what to write instead.
//!
//! `ui/*.rs` are the misuses and `ui/*.stderr` what the compiler prints, letter for letter. Half of
//! each message is the compiler's own, so the files hold for the one release named below. After a
//! change: `TRYBUILD=overwrite cargo test --test ui`, and read what came out as a user would.

use std::process::Command;

/// The release whose messages are on file.
const RELEASE: &str = "rustc 1.95.";

#[test]
fn misuse_is_explained() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("rustc runs").stdout;
    let version = String::from_utf8_lossy(&version);
    if !version.starts_with(RELEASE) {
        println!("not compared: the messages on file are those of {RELEASE}*, this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
