//! Errors on their way through `?`.

use std::error::Error;
use std::future::pending;
use std::io::{self, ErrorKind};

use waterspout::channels::{RecvError, SendError, broadcast, mpsc, oneshot};
use waterspout::concurrent::{ExcInfo, promise};
use waterspout::coroutine::{spawn, with_timeout};
use waterspout::iostream::IoStream;
use waterspout::queues::{Queue, QueueClosed};
use waterspout::testing::duplex;
use waterspout::{IoLoop, JoinError, RunError, StartError, StreamError, TimedOut};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(1);

/// What an `io::Error` holds, which is the error that it was made of.
fn inner<E: Error + 'static>(error: &io::Error) -> &E {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("the error that it was made of")
}

#[waterspout::test(virtual_time)]
async fn a_time_out_is_an_io_error_of_that_kind() {
    let work = async { Ok::<(), io::Error>(with_timeout(LIMIT, pending()).await?) };
    let error = work.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    inner::<TimedOut>(&error);
}

#[waterspout::test]
async fn a_closed_queue_is_a_broken_pipe_whatever_its_items_are() {
    struct Item(
        #[expect(dead_code, reason = "it makes the item neither Send nor Debug")] *const u8,
    );
    let queue = Queue::new(1);
    queue.close();
    let put = async {
        queue.put(Item(std::ptr::null())).await?;
        Ok::<(), io::Error>(())
    };
    let get = async {
        queue.get().await?;
        Ok::<(), io::Error>(())
    };
    for error in [put.await.unwrap_err(), get.await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert!(*inner::<QueueClosed>(&error) == QueueClosed(()));
    }
}

#[waterspout::test]
async fn a_channel_whose_other_end_has_gone_is_a_broken_pipe() {
    let send = async {
        let (sender, _) = mpsc::channel(1);
        Ok::<(), io::Error>(sender.send(std::rc::Rc::new(1)).await?)
    };
    let receive = async {
        let (_, receiver) = oneshot::channel();
        Ok::<u8, io::Error>(receiver.await?)
    };
    let hear = async |values: usize| {
        let (sender, mut receiver) = broadcast::channel(1);
        (0..values).for_each(|n| _ = sender.send(n));
        drop(sender);
        Ok::<usize, io::Error>(receiver.recv().await?)
    };
    let (send, receive) = (send.await.unwrap_err(), receive.await.unwrap_err());
    let (ended, lagged) = (hear(0).await.unwrap_err(), hear(2).await.unwrap_err());
    let kinds = [&send, &receive, &ended, &lagged].map(io::Error::kind);
    let broken = ErrorKind::BrokenPipe;
    assert_eq!(kinds, [broken, broken, broken, ErrorKind::Other]);
    inner::<SendError<()>>(&send);
    inner::<RecvError>(&receive);
    assert_eq!(inner::<broadcast::RecvError>(&lagged), &broadcast::RecvError::Lagged(1));
}

#[waterspout::test]
async fn work_that_was_cancelled_or_has_panicked_is_an_io_error_that_is_not_tried_again() {
    let joined = async |cancel: bool| {
        let coroutine = spawn(async { panic!("boom") });
        if cancel {
            coroutine.cancel();
        }
        Ok::<(), io::Error>(coroutine.join().await?)
    };
    let (cancelled, panicked) = (joined(true).await.unwrap_err(), joined(false).await.unwrap_err());
    assert_eq!((cancelled.kind(), panicked.kind()), (ErrorKind::Other, ErrorKind::Other));
    assert!(inner::<JoinError>(&cancelled).is_cancelled());
    assert!(inner::<JoinError>(&panicked).is_panic());
    assert!(panicked.to_string().contains("boom"), "{panicked}");
}

#[waterspout::test]
async fn a_promises_error_keeps_its_kind_and_what_it_was() {
    let of = async |set: fn(waterspout::concurrent::Promise<()>)| {
        let (promise, future) = promise::<()>();
        set(promise);
        Ok::<(), io::Error>(future.await?)
    };
    let refused =
        of(|promise| promise.set_exception(io::Error::from(ErrorKind::ConnectionRefused)));
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(inner::<ExcInfo>(&refused).source().unwrap().is::<io::Error>());
    let failed = of(|promise| promise.set_exception("no")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.to_string().as_str()), (ErrorKind::Other, "no"));
    let abandoned = of(drop).await.unwrap_err();
    assert!(matches!(inner::<ExcInfo>(&abandoned), ExcInfo::Abandoned));
}

#[test]
fn why_a_loop_gave_no_result_is_an_io_error() {
    fn run(io_loop: &IoLoop) -> io::Result<()> {
        io_loop.run_sync_timeout(LIMIT, pending)?;
        Ok(())
    }
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    let error = run(&io_loop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(matches!(inner::<RunError>(&error), RunError::TimedOut { .. }));

    let nested = io_loop.run_sync(|| async { run(&IoLoop::new()?) }).unwrap().unwrap_err();
    assert_eq!(nested.kind(), ErrorKind::Other);
    let start = inner::<RunError>(&nested).source().unwrap();
    assert!(matches!(start.downcast_ref(), Some(StartError::Nested { .. })));

    io_loop.add_callback({
        let io_loop = io_loop.clone();
        move || io_loop.stop()
    });
    let stopped = run(&io_loop).unwrap_err();
    assert!(matches!(inner::<RunError>(&stopped), RunError::Stopped));

    io_loop.close();
    assert_eq!(run(&io_loop).unwrap_err().kind(), ErrorKind::NotConnected);
    let started = || Ok::<(), io::Error>(io_loop.start()?);
    assert_eq!(started().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[waterspout::test(virtual_time)]
async fn a_function_that_gives_stream_errors_may_also_connect_and_have_time_limits() {
    let (ours, _theirs) = duplex(64);
    let stream = IoStream::new(ours);
    let read = async |limited: bool| -> Result<Vec<u8>, StreamError> {
        if !limited {
            Err(io::Error::from(ErrorKind::ConnectionRefused))?;
        }
        with_timeout(LIMIT, stream.read_bytes(5)).await?
    };
    let refused = read(false).await.unwrap_err();
    assert_eq!(refused.real_error().unwrap().kind(), ErrorKind::ConnectionRefused);
    let timed_out = read(true).await.unwrap_err();
    assert!(matches!(timed_out, StreamError::TimedOut));
    assert!(timed_out.source().unwrap().is::<TimedOut>() && !stream.is_closed());
    assert_eq!(io::Error::from(timed_out).kind(), ErrorKind::TimedOut);
}

#[test]
fn a_stream_error_that_was_an_io_error_on_its_way_is_again_what_it_was() {
    let error = StreamError::from(io::Error::from(StreamError::AlreadyReading));
    assert!(matches!(error, StreamError::AlreadyReading));
}
