//! What waits says where: in the list of coroutines, and so in the message of a test that hangs, each
//! is listed with the line in which its user waits.

use std::future::{pending, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use waterspout::channels::{broadcast, mpsc, oneshot, watch};
use waterspout::concurrent::{Executor, channel, promise};
use waterspout::coroutine::{
    CancelToken, JoinSet, TaskGroup, WaitIterator, moment, multi, multi_quiet, sleep, spawn, start,
    try_multi, with_timeout,
};
use waterspout::iostream::IoStream;
use waterspout::locks::{BoundedSemaphore, Condition, Event, Lock, Semaphore};
use waterspout::net::{
    CachingResolver, OverrideResolver, Resolver, TcpClient, TcpListener, TcpServer, TcpStream,
    UdpSocket, UnixListener, UnixStream,
};
use waterspout::process::Subprocess;
use waterspout::queues::{LifoQueue, PriorityQueue, Queue};
use waterspout::signal::{self, Signal};
use waterspout::{Coroutine, IoLoop};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs a test on a loop.
fn run<F: Future>(body: impl FnOnce() -> F) -> F::Output {
    IoLoop::new().unwrap().run_sync_timeout(Duration::from_secs(60), body).unwrap()
}

/// The line of this file in which a coroutine waits.
#[track_caller]
fn line_of<T>(coroutine: &Coroutine<T>, what: &str) -> u32 {
    assert!(!coroutine.done(), "{what} does not wait");
    let info = coroutine.info();
    let place = info.waiting_at.unwrap_or_else(|| panic!("{what} does not say where: {info}"));
    assert_eq!(place.file(), file!(), "{what}");
    assert!(info.to_string().contains(&format!("waiting at {}", file!())), "{info}");
    place.line()
}

/// Whoever awaits this is told to wait in the lines of this call.
macro_rules! waits {
    ($what:literal, $future:expr) => {{
        let coroutine = start(async move {
            let _ = $future.await;
        });
        let (line, begin) = (line_of(&coroutine, $what), line!());
        assert!((begin..begin + 5).contains(&line), "{} waits at line {line}, not {begin}", $what);
        coroutine.cancel();
    }};
}

#[test]
fn whoever_waits_for_a_lock_says_where() {
    run(async || {
        let lock = Lock::new(());
        let _held = lock.acquire().await;
        waits!("Lock::acquire", lock.acquire());
        waits!("Semaphore::acquire", Semaphore::new(0).acquire());
        waits!("BoundedSemaphore::acquire", BoundedSemaphore::new(0).acquire());
        waits!("Event::wait", Event::new().wait());
        waits!("Condition::wait", Condition::new().wait());
    });
}

#[test]
fn whoever_waits_for_a_queue_says_where() {
    run(async || {
        waits!("Queue::get", Queue::<u8>::new(0).get());
        waits!("PriorityQueue::get", PriorityQueue::<u8>::new(0).get());
        waits!("LifoQueue::get", LifoQueue::<u8>::new(0).get());
        let queue = Queue::new(1);
        queue.put_nowait(1).unwrap();
        let full = queue.clone();
        waits!("Queue::put", full.put(2));
        waits!("Queue::join", queue.join());
        waits!("a queue as a stream", Queue::<u8>::new(0).next());
        waits!("a queue as a sink", async {
            let mut queue = Queue::new(1);
            queue.feed(1).await.unwrap();
            queue.send(2).await
        });
    });
}

#[test]
fn whoever_waits_in_a_channel_says_where() {
    run(async || {
        let (sender, _receiver) = mpsc::channel(1);
        sender.try_send(1).unwrap();
        let full = sender.clone();
        waits!("mpsc::Sender::send", full.send(2));
        waits!("mpsc::Sender::closed", sender.closed());
        let (_sender, mut receiver) = mpsc::channel::<u8>(1);
        waits!("mpsc::Receiver::recv", receiver.recv());
        waits!("an mpsc::Receiver as a stream", {
            let (sender, receiver) = mpsc::channel::<u8>(1);
            std::mem::forget(sender);
            receiver.into_future()
        });
        waits!("a oneshot::Receiver", {
            let (sender, receiver) = oneshot::channel::<u8>();
            std::mem::forget(sender);
            receiver
        });
        let (sender, _receiver) = oneshot::channel::<u8>();
        waits!("oneshot::Sender::closed", sender.closed());
        let (sender, mut receiver) = watch::channel(1);
        let mut changes = receiver.clone();
        waits!("watch::Receiver::changed", changes.changed());
        waits!("watch::Receiver::wait_for", receiver.wait_for(|n| *n == 2));
        let _receiver = sender.subscribe();
        waits!("watch::Sender::closed", sender.closed());
        let (sender, mut receiver) = broadcast::channel::<u8>(1);
        waits!("broadcast::Receiver::recv", receiver.recv());
        let _receiver = sender.subscribe();
        waits!("broadcast::Sender::closed", sender.closed());
    });
}

#[test]
fn whoever_waits_for_a_result_says_where() {
    run(async || {
        // A future is not told where it is awaited: it says where it was made.
        waits!("a promise's future", {
            let (promise, future) = promise::<()>();
            std::mem::forget(promise);
            future.clone()
        });
        let (sender, receiver) = channel(1);
        sender.send(1).await.unwrap();
        waits!("Sender::send", sender.send(2));
        drop(receiver);
        let (_sender, mut receiver) = channel::<u8>(1);
        waits!("Receiver::recv", receiver.recv());
        waits!("a receiver as a stream", {
            let (sender, receiver) = channel::<u8>(1);
            std::mem::forget(sender);
            receiver.into_future()
        });
    });
}

#[test]
fn whoever_waits_for_coroutines_says_where() {
    run(async || {
        waits!("Coroutine", spawn(pending::<()>()));
        waits!("CancelOnDrop", spawn(pending::<()>()).cancel_on_drop());
        let joined = spawn(pending::<()>());
        waits!("Coroutine::join", joined.join());
        waits!("sleep", sleep(HOUR));
        waits!("moment", moment());
        let untold = pending::<Result<(), ()>>;
        waits!("multi of a list", multi([untold(), untold()]));
        waits!("multi of a tuple", multi((untold(), untold())));
        waits!("multi_quiet", multi_quiet([untold(), untold()]));
        waits!("try_multi", try_multi([spawn(untold())]));
        waits!("WaitIterator::next", WaitIterator::new([untold()]).next());
        waits!("a WaitIterator as a stream", StreamExt::next(&mut WaitIterator::new([untold()])));
        waits!("with_timeout", with_timeout(HOUR, untold()));
        waits!("CancelToken::cancelled", CancelToken::new().cancelled());
        waits!("CancelToken::run", CancelToken::new().run(untold()));
        let group = || {
            let group = TaskGroup::<()>::new();
            group.start(pending());
            group
        };
        let (one, other) = (group(), group());
        waits!("TaskGroup::join", one.join());
        let mut set = JoinSet::new();
        set.spawn(pending::<()>());
        waits!("JoinSet::join_next", set.join_next());
        waits!("TaskGroup::shutdown", other.shutdown(HOUR));
        let handle = IoLoop::current().handle();
        waits!("LoopHandle::spawn", handle.spawn(pending::<()>).unwrap());
    });
}

#[test]
fn whoever_waits_for_other_threads_and_processes_says_where() {
    run(async || {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let executor = Executor::builder().threads(1).build();
        executor.run(move || released.recv());
        let busy = executor.clone();
        waits!("Executor::run", busy.run(|| ()));
        IoLoop::current().set_default_executor(executor.clone());
        waits!("run_in_executor", IoLoop::current().run_in_executor(|| ()));
        // So does the coroutine that stands for the work.
        let work = executor.run(|| ());
        line_of(&work, "the work");
        waits!("a name to connect to", TcpStream::connect(("localhost", 1)));
        waits!("a name to bind to", TcpListener::bind(("localhost", 0)));
        waits!("a name of a datagram's", UdpSocket::bind(("localhost", 0)));
        waits!("TcpClient::connect", TcpClient::new().connect("localhost", 1));
        waits!("a look-up", waterspout::net::ThreadedResolver.resolve("localhost", 1));
        let resolver = OverrideResolver::new(Silent);
        waits!("an overriding look-up", resolver.resolve("localhost", 1));
        let resolver = CachingResolver::new(Silent, HOUR);
        waits!("a caching look-up", resolver.resolve("localhost", 1));
        let child = || Subprocess::spawn(Command::new("sleep").arg("100")).unwrap();
        let mut child = child().kill_on_drop();
        waits!("Subprocess::wait_for_exit", child.wait_for_exit());
        let mut signals = signal::stream(Signal::USER1).unwrap();
        waits!("SignalStream::recv", signals.recv());
        waits!("signals as a stream", signal::stream(Signal::USER1).unwrap().next());
        waits!("ctrl_c", signal::ctrl_c());
        release.send(()).unwrap();
    });
}

/// Never answers.
struct Silent;

impl Resolver for Silent {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        pending().await
    }
}

#[test]
fn whoever_waits_for_a_stream_says_where() {
    run(async || {
        let pair = || {
            let (here, there) = UnixStream::pair().unwrap();
            std::mem::forget(there);
            IoStream::new(here)
        };
        let io = pair();
        waits!("read_bytes", io.read_bytes(1));
        let io = pair();
        waits!("read_some", io.read_some(1));
        let io = pair();
        waits!("read_into", io.read_into(&mut [0; 1]));
        let io = pair();
        waits!("read_some_into", io.read_some_into(&mut [0; 1]));
        let io = pair();
        waits!("read_until", io.read_until(b"\n", 10));
        let io = pair();
        waits!("read_until_close", io.read_until_close());
        let io = pair();
        waits!("lines", io.lines(10).next());
        let io = pair();
        waits!("closed", io.closed());
        let io = pair();
        waits!("write", io.write(vec![0; 10_000_000]));
        let io = pair();
        let (_write, line) = (io.write(vec![0; 10_000_000]), line!());
        moment().await;
        let listed = IoLoop::current().coroutines();
        let sends = listed.iter().find(|info| info.started_at.line() == line).unwrap();
        assert_eq!(sends.waiting_at, Some(sends.started_at), "what sends in the background");
    });
}

#[test]
fn whoever_waits_for_connections_says_where() {
    run(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        waits!("TcpListener::accept", listener.accept());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        waits!("TcpListener::incoming", listener.incoming().next());
        let path = std::env::temp_dir().join(format!("waterspout-waiting-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        waits!("UnixListener::incoming", listener.incoming().next());
    });
}

#[test]
fn whoever_waits_for_a_server_to_drain_says_where() {
    run(async || {
        let server = TcpServer::new(async |_, _: SocketAddr| pending::<io::Result<()>>().await);
        let port = server.listen_on("127.0.0.1", 0).unwrap();
        let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        while server.connections() == 0 {
            moment().await;
        }
        waits!("TcpServer::drain", server.drain(HOUR));
    });
}

/// What the user calls for within the call wins, for that is the line in question.
#[test]
fn what_is_awaited_within_says_where_and_not_what_is_around_it() {
    run(async || {
        let event = Event::new();
        let untold = pending::<Result<(), ()>>;
        let around = [
            start(within(|inner| with_timeout(HOUR, inner), event.clone())),
            start(within(|inner| CancelToken::new().run(inner), event.clone())),
            start(within(|inner| multi([inner]), event.clone())),
            start(within(move |inner| multi((inner, untold())), event.clone())),
        ];
        for (n, coroutine) in around.iter().enumerate() {
            assert_eq!(line_of(coroutine, &format!("case {n}")), WITHIN);
        }
    });
}

#[test]
fn a_time_limit_on_what_is_ready_leaves_the_place_to_what_waits() {
    run(async || {
        let limited = with_timeout(HOUR, ready(()));
        let event = Event::new();
        waits!("Event::wait", async { futures::join!(event.wait(), limited) });
    });
}

type Inner = Pin<Box<dyn Future<Output = Result<(), ()>>>>;

const WITHIN: u32 = line!() + 4;
async fn within<F: Future>(around: impl FnOnce(Inner) -> F, event: Event) {
    // The line that counts is that of `wait`.
    let inner: Inner = Box::pin(async move {
        event.wait().await;
        Ok(())
    });
    around(inner).await;
}

#[test]
fn what_has_gone_on_does_not_say_where_it_was() {
    run(async || {
        let event = Event::new();
        let waits = event.clone();
        let coroutine = start(async move {
            waits.wait().await;
            pending::<()>().await;
        });
        line_of(&coroutine, "the event");
        event.set();
        moment().await;
        assert!(coroutine.info().waiting_at.is_none());
    });
}

#[test]
fn a_time_out_lists_where_each_coroutine_waits() {
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    let error = io_loop.run_sync_timeout(HOUR, async || {
        let lock = Lock::new(());
        let _held = lock.acquire().await;
        let theirs = lock.clone();
        coroutine_that_waits(theirs).await;
    });
    let message = error.unwrap_err().to_string();
    assert_eq!(message.matches("stuck: ").count(), 2, "{message}");
    assert_eq!(message.matches(&format!("waiting at {}:", file!())).count(), 2, "{message}");
}

#[waterspout::coroutine]
async fn coroutine_that_waits(lock: Lock<()>) {
    let _again = lock.acquire().await;
}
