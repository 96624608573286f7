//! How long a test may take: 5 s, what its attribute says, or what the environment says.

use std::future::pending;
use std::process::Command;

/// Runs one of the tests below in a process of its own and gives what it printed.
fn run(test: &str, limit: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command.env_remove("ASYNC_TEST_TIMEOUT");
    if let Some(limit) = limit {
        command.env("ASYNC_TEST_TIMEOUT", limit);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_environment_sets_the_limit_of_tests_that_set_none() {
    let (passed, text) = run("hangs", Some("0.02"));
    assert!(
        !passed && text.contains("`timeouts::hangs`: operation timed out after 20ms"),
        "{text}"
    );
    assert!(text.contains("stuck: `timeouts::hangs` started at tests/timeouts.rs"), "{text}");
}

#[test]
fn an_attribute_goes_before_the_environment() {
    let (passed, text) = run("hangs_for_a_moment", Some("60"));
    assert!(!passed && text.contains("timed out after 30ms"), "{text}");
}

#[test]
fn what_is_no_number_of_seconds_is_not_heeded() {
    for limit in ["", "soon", "-1", "0"] {
        let (passed, text) = run("ends", Some(limit));
        assert!(passed, "{text}");
    }
}

#[waterspout::test]
#[ignore = "run by the tests above, in a process of its own"]
async fn hangs() {
    pending().await
}

#[waterspout::test(timeout = 0.03)]
#[ignore = "run by the tests above, in a process of its own"]
async fn hangs_for_a_moment() {
    pending().await
}

#[waterspout::test]
#[ignore = "run by the tests above, in a process of its own"]
async fn ends() {}
