//! Child processes: their pipes, their end, and one that takes too long.
//!
//! ```text
//! $ cargo run --example subprocess
//! ```

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use waterspout::coroutine::{multi, with_timeout};
use waterspout::process::Subprocess;
use waterspout::signal::Signal;

/// Sorts lines by the program of that name. Both pipes are served at once, for a child that is not
/// read from may stop reading.
#[waterspout::coroutine]
async fn sort(lines: String) -> io::Result<String> {
    let mut command = Command::new("sort");
    let mut child = Subprocess::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (mut stdin, mut stdout) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
    let write = async move {
        AsyncWriteExt::write_all(&mut stdin, lines.as_bytes()).await // and closes it
    };
    let mut sorted = String::new();
    let read = async { stdout.read_to_string(&mut sorted).await };
    futures::future::try_join(write, read).await?;
    child.wait_for_exit().await?;
    Ok(sorted)
}

/// How a shell's script ends, and after a second it is told to.
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
    // All three are children at the same time.
    for line in multi(vec![run("exit 0"), run("exit 3"), run("exec sleep 60")]).await? {
        println!("{line}");
    }
    Ok(())
}
