//! Streams over pipes: one direction, or one of each.

use std::io;
#[cfg(feature = "process")]
use std::process::{Command, Stdio};

use futures::FutureExt;
use waterspout::coroutine;
use waterspout::iostream::{Options, PipeIoStream};
use waterspout::net::pipe;

use crate::{assert_clean_end, pattern, real_error, settle};

/// Streams over the two ends of one pipe.
fn one_pipe() -> (PipeIoStream, PipeIoStream) {
    let (writer, reader) = pipe::pair().unwrap();
    (PipeIoStream::from(reader), PipeIoStream::from(writer))
}

#[waterspout::test(timeout = 60.0)]
async fn one_pipe_has_one_direction() {
    let (reader, writer) = one_pipe();
    writer.write("hel");
    writer.write("lo world");
    assert_eq!(reader.read_until(" ", 100).await.unwrap(), b"hello ");
    assert_eq!(reader.read_bytes(3).await.unwrap(), b"wor");
    writer.close();
    assert_eq!(reader.read_until_close().await.unwrap(), b"ld");
    assert!(reader.error().is_none());
}

#[waterspout::test(timeout = 60.0)]
async fn a_large_write_passes_a_pipe() {
    let (reader, writer) = one_pipe();
    writer.write(pattern(1 << 20));
    assert!(reader.read_bytes(1 << 20).await.unwrap() == pattern(1 << 20));
}

#[waterspout::test(timeout = 60.0)]
async fn a_reader_cannot_be_written_to() {
    let (reader, writer) = one_pipe();
    assert_eq!(real_error(reader.write("x").await), io::ErrorKind::Unsupported);
    assert!(reader.is_closed());
    writer.closed().await;
}

#[waterspout::test(timeout = 60.0)]
async fn a_writer_has_nothing_to_read_but_the_end() {
    let (reader, writer) = one_pipe();
    let reading = coroutine::start(writer.read_some(1));
    writer.write("abc").await.unwrap();
    settle().await;
    assert!(!reading.done());
    assert_eq!(reader.read_bytes(3).await.unwrap(), b"abc");
    drop(reader);
    assert_clean_end(reading.await);
}

#[waterspout::test(timeout = 60.0)]
async fn a_writer_notices_that_its_reader_has_gone() {
    for unsent in [0, 1, 1 << 20] {
        let (reader, writer) = one_pipe();
        let written = writer.write(vec![0; unsent]);
        let closed = coroutine::start(writer.closed());
        settle().await;
        assert!(!closed.done());
        drop(reader);
        closed.await;
        assert!(writer.is_closed());
        assert_eq!(written.await.is_err(), unsent > 100_000);
    }
}

#[waterspout::test(timeout = 60.0)]
async fn a_pipe_writer_tells_when_nobody_reads() {
    let (writer, reader) = pipe::pair().unwrap();
    assert!(writer.closed().now_or_never().is_none());
    writer.write_all(b"x").await.unwrap();
    settle().await;
    assert!(writer.closed().now_or_never().is_none());
    drop(reader);
    writer.closed().await.unwrap();
    writer.closed().now_or_never().unwrap().unwrap();
    assert_eq!(writer.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[waterspout::test(timeout = 60.0)]
async fn a_pipe_stream_has_limits_as_others_have() {
    let (writer, reader) = pipe::pair().unwrap();
    let options = Options { max_write_buffer_size: 10, ..Options::default() };
    let writer = PipeIoStream::with_options(writer.into(), options);
    assert!(writer.write([0; 11]).await.is_err());
    writer.write([0; 10]).await.unwrap();
    assert!(writer.with_io(|pipe| pipe.writer().is_some() && pipe.reader().is_none()).unwrap());
    drop(reader);
}

#[cfg(feature = "process")]
#[waterspout::test(timeout = 60.0)]
async fn a_child_is_written_to_and_read_from() {
    use waterspout::process::Subprocess;

    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Subprocess::spawn(&mut command).unwrap();
    let stdin = PipeIoStream::from(child.stdin.take().unwrap());
    let stdout = PipeIoStream::from(child.stdout.take().unwrap());
    stdin.write("hello\n");
    assert_eq!(stdout.read_until("\n", 100).await.unwrap(), b"hello\n");
    // More than the pipes hold, and then the end of the child's input.
    stdin.write(pattern(3_000_000));
    drop(stdin);
    assert!(stdout.read_until_close().await.unwrap() == pattern(3_000_000));
    assert!(child.wait_for_exit().await.unwrap().success());
}

#[cfg(feature = "process")]
#[waterspout::test(timeout = 60.0)]
async fn a_child_is_one_stream_of_two_pipes() {
    use waterspout::process::Subprocess;

    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Subprocess::spawn(&mut command).unwrap().kill_on_drop();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let stream = PipeIoStream::from((stdout, stdin));
    for question in ["one\n", "two\n"] {
        stream.write(question);
        assert_eq!(stream.read_until("\n", 100).await.unwrap(), question.as_bytes());
    }
    let closed = coroutine::start(stream.closed());
    child.kill().unwrap();
    closed.await;
    child.wait_for_exit().await.unwrap();
}
