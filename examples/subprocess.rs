//! Child processes: their pipes, their end, and one that takes too long.
//!
//! ```text
//! $ cargo run --example subprocess
//! ```

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use waterspout::coroutine::{multi, with_timeout};
use waterspout::process::Subprocess;
use waterspout::signal::Signal;

/// Sorts lines by the program `sort`. The lines are written while the output is being read: a child whose
/// output nobody reads may stop reading its input.
#[waterspout::coroutine]
async fn sort(lines: String) -> io::Result<String> {
    let mut command = Command::new("sort");
    let mut child = Subprocess::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let write = async move {
        stdin.write_all(lines.as_bytes()).await // and then drops `stdin`, which closes it
    };
    let (_, output) = futures::future::try_join(write, child.wait_with_output()).await?;
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

/// Runs a shell script and tells how it ended. After a second, the shell is sent `SIGTERM`.
#[waterspout::coroutine]
async fn run(script: &'static str) -> io::Result<String> {
    let mut child = Subprocess::spawn(Command::new("sh").args(["-c", script]))?.kill_on_drop();
    let status = match with_timeout(Duration::from_secs(1), child.wait_for_exit()).await {
        Ok(status) => status?,
        Err(_) => {
            child.send_signal(Signal::TERMINATE)?;
            child.wait_for_exit().await?
        }
    };
    Ok(format!("`{script}`: {status}"))
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    print!("{}", sort("pear\napple\nquince\n".into()).await?);
    // The three children run at the same time.
    for line in multi(vec![run("exit 0"), run("exit 3"), run("exec sleep 60")]).await? {
        println!("{line}");
    }
    Ok(())
}
