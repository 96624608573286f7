//! What may go to another thread, and what futures may be awaited by those who want them `Send`.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use waterspout::concurrent::Executor;
use waterspout::coroutine::{moment, sleep, sleep_until, with_timeout};
use waterspout::net::{
    OverrideResolver, Resolver, TcpClient, TcpListener, TcpStream, ThreadedResolver, UdpSocket,
    UnixDatagram, UnixListener, UnixStream,
};

fn is_send<F: Send>(_: &F) {}

/// Names a value that is never made.
fn some<T>() -> T {
    unreachable!("only its type is looked at")
}

/// axum's handlers, tonic's services and `#[async_trait]` want `Send` of what they await.
#[test]
fn what_opens_a_connection_sleeps_or_works_elsewhere_is_send() {
    let _never_called = || {
        is_send(&TcpStream::connect("localhost:80"));
        is_send(&TcpStream::connect(some::<SocketAddr>()));
        is_send(&TcpStream::connect((String::new(), 80)));
        is_send(&TcpStream::connect_socket(some::<std::os::fd::OwnedFd>(), some::<SocketAddr>()));
        is_send(&TcpListener::bind("localhost:80"));
        is_send(&UdpSocket::bind("localhost:80"));
        is_send(&UnixStream::connect("path"));
        is_send(&some::<TcpListener>().accept());
        is_send(&some::<UnixListener>().accept());
        is_send(&some::<TcpStream>().read(&mut [0]));
        is_send(&some::<TcpStream>().write(&[0]));
        is_send(&some::<TcpStream>().readable());
        is_send(&some::<UdpSocket>().recv_from(&mut [0]));
        is_send(&some::<UdpSocket>().send_to(&[0], "localhost:80"));
        is_send(&some::<UdpSocket>().connect("localhost:80"));
        is_send(&some::<UnixDatagram>().recv_from(&mut [0]));
        is_send(&TcpClient::new().connect("localhost", 80));
        is_send(&TcpClient::new().timeout(Duration::ZERO).connect("localhost", 80));
        let resolver = OverrideResolver::new(ThreadedResolver);
        is_send(&resolver.resolve("localhost", 80));
        is_send(&TcpClient::new().resolver(resolver).connect("localhost", 80));
        is_send(&sleep(Duration::ZERO));
        is_send(&sleep_until(some::<std::time::Instant>()));
        is_send(&moment());
        is_send(&with_timeout(Duration::ZERO, sleep(Duration::ZERO)));
        is_send(&Executor::shared().spawn_blocking(|| 1));
    };
}

/// What a type is: a name that is an inherent constant goes before one of a trait.
struct Of<T>(PhantomData<T>);

trait IsNot {
    const SEND: bool = false;
    const SYNC: bool = false;
}

impl<T> IsNot for Of<T> {}

impl<T: Send> Of<T> {
    const SEND: bool = true;
}

impl<T: Sync> Of<T> {
    const SYNC: bool = true;
}

fn is_unpin<T: Unpin>() {}

/// The marker traits of types, all of which are `Unpin`.
macro_rules! are {
    ($($ty:ty),+ $(,)?) => {{
        $(is_unpin::<$ty>();)+
        [$((stringify!($ty), (Of::<$ty>::SEND, Of::<$ty>::SYNC))),+]
    }};
}

#[track_caller]
fn all_are<const N: usize>(expected: (bool, bool), types: [(&str, (bool, bool)); N]) {
    for (name, send_and_sync) in types {
        assert_eq!(send_and_sync, expected, "{name}");
    }
}

/// Sockets are plain data, and so are errors and what is for other threads.
#[test]
fn sockets_errors_and_what_is_for_other_threads_are_send_and_sync() {
    all_are(
        (true, true),
        are![
            waterspout::net::TcpStream,
            waterspout::net::TcpListener,
            waterspout::net::UdpSocket,
            waterspout::net::UnixStream,
            waterspout::net::UnixListener,
            waterspout::net::UnixDatagram,
            waterspout::net::pipe::PipeReader,
            waterspout::net::pipe::PipeWriter,
            waterspout::net::AsyncFd<std::fs::File>,
            waterspout::net::BindOptions,
            waterspout::net::TcpClient,
            waterspout::net::ThreadedResolver,
            waterspout::net::OwnedReadHalf<waterspout::net::TcpStream>,
            waterspout::net::OwnedWriteHalf<waterspout::net::TcpStream>,
            waterspout::net::ReuniteError<waterspout::net::TcpStream>,
            waterspout::LoopHandle,
            waterspout::HeldTime,
            waterspout::Counters,
            waterspout::CoroutineInfo,
            waterspout::Interest,
            waterspout::TimerId,
            waterspout::Exception,
            waterspout::StartError,
            waterspout::LoopClosed,
            waterspout::TimedOut,
            waterspout::StreamError,
            waterspout::concurrent::Executor,
            waterspout::concurrent::ExecutorBuilder,
            waterspout::concurrent::Sender<u8>,
            waterspout::concurrent::Receiver<u8>,
            waterspout::coroutine::Blocking<u8>,
            waterspout::coroutine::Answer<u8>,
            waterspout::coroutine::Sleep,
            waterspout::coroutine::Moment,
            waterspout::iostream::Options,
            waterspout::locks::ReleasedTooOften,
            waterspout::queues::QueueClosed,
            waterspout::channels::RecvError,
            waterspout::channels::TryRecvError,
            waterspout::channels::SendError<u8>,
            waterspout::channels::TrySendError<u8>,
            waterspout::channels::broadcast::RecvError,
            waterspout::channels::broadcast::TryRecvError,
            waterspout::process::Subprocess,
        ],
    );
}

/// hyper's upgrades want their stream `Send`.
#[cfg(feature = "hyper")]
#[test]
fn what_hyper_is_given_is_send_and_sync() {
    use waterspout::hyper::{Io, OnLoop};
    all_are((true, true), are![Io<TcpStream>, Io<UnixStream>, OnLoop]);
}

/// An acceptor and a connector are for all threads, and streams over TLS go where what they are over goes.
#[cfg(feature = "tls")]
#[test]
fn what_is_for_tls_is_send_and_sync() {
    use waterspout::tls::{Roots, Tls, TlsAcceptor, TlsConnector, TlsStream};
    all_are(
        (true, true),
        are![Tls, TlsAcceptor, TlsConnector, Roots, TlsStream<TcpStream>, TlsStream<UnixStream>],
    );
    let _never_called = || {
        let (acceptor, connector) = (some::<TlsAcceptor>(), some::<TlsConnector>());
        is_send(&acceptor.accept(some::<TcpStream>()));
        is_send(&connector.connect("localhost", some::<TcpStream>()));
        is_send(&TcpClient::new().connect_tls(&connector, "localhost", 443));
    };
}

/// What belongs to a thread stays there.
#[test]
fn what_belongs_to_a_loop_is_neither_send_nor_sync() {
    all_are(
        (false, false),
        are![
            waterspout::IoLoop,
            waterspout::PeriodicCallback,
            waterspout::Coroutine<u8>,
            waterspout::coroutine::JoinHandle<u8>,
            waterspout::coroutine::TaskGroup,
            waterspout::coroutine::CancelToken,
            waterspout::coroutine::WaitIterator<waterspout::Coroutine<u8>>,
            waterspout::concurrent::Future<u8>,
            waterspout::concurrent::Promise<u8>,
            waterspout::iostream::IoStream<waterspout::net::TcpStream>,
            waterspout::iostream::Write,
            waterspout::locks::Event,
            waterspout::locks::Condition,
            waterspout::locks::Semaphore,
            waterspout::locks::BoundedSemaphore,
            waterspout::locks::Permit,
            waterspout::locks::Lock<u8>,
            waterspout::queues::Queue<u8>,
            waterspout::queues::PriorityQueue<u8>,
            waterspout::queues::LifoQueue<u8>,
            waterspout::channels::mpsc::Sender<u8>,
            waterspout::channels::mpsc::Receiver<u8>,
            waterspout::channels::oneshot::Sender<u8>,
            waterspout::channels::oneshot::Receiver<u8>,
            waterspout::channels::watch::Sender<u8>,
            waterspout::channels::watch::Receiver<u8>,
            waterspout::channels::broadcast::Sender<u8>,
            waterspout::channels::broadcast::Receiver<u8>,
            waterspout::net::TcpServer,
            waterspout::net::UnixServer,
            waterspout::net::TcpClient<Rc<ThreadedResolver>>,
        ],
    );
}
