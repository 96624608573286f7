//! What several test files share: a diary, values that note their own end, ways to poll and to let
//! others run, and sockets.

// Each test file is a crate of its own and uses its part of this.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Display;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use socket2::{Domain, Socket, Type};
use waker_fn::waker_fn;
use waterspout::coroutine::moment;
use waterspout::iostream::Pipe;
use waterspout::net::pipe;
use waterspout::{Builder, Exception, IoLoop};

/// A free port of the loopback, to bind to.
pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A link-local address of this machine, if it has one, and its interface's number and name.
pub fn link_local() -> Option<(Ipv6Addr, u32, String)> {
    let known = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    let line = known.lines().find(|line| line.starts_with("fe80"))?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let ip = u128::from_str_radix(fields[0], 16).ok()?;
    let scope = u32::from_str_radix(fields[1], 16).ok()?;
    Some((ip.into(), scope, fields[5].to_owned()))
}

/// A directory that goes with its owner.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("waterspout-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Words in the order in which they were written.
#[derive(Clone, Default)]
pub struct Diary(Rc<RefCell<Vec<String>>>);

impl Diary {
    pub fn new() -> Diary {
        Diary::default()
    }

    pub fn write(&self, word: impl Display) {
        self.0.borrow_mut().push(word.to_string());
    }

    /// What has been written since this was last called.
    pub fn read(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut())
    }

    /// A callback that writes `word`.
    pub fn writing(&self, word: impl Display + 'static) -> impl FnOnce() + 'static {
        let diary = self.clone();
        move || diary.write(word)
    }

    /// A value that writes `word` when it is dropped.
    pub fn at_end<W: Display>(&self, word: W) -> AtDrop<impl FnMut() + use<W>> {
        let diary = self.clone();
        AtDrop(move || diary.write(&word))
    }

    /// Gives a builder an exception handler that writes here.
    pub fn exceptions_of(&self, builder: Builder) -> Builder {
        let diary = self.clone();
        builder.on_exception(move |exception| diary.write(&exception.info))
    }
}

/// Runs `body` on a loop of its own and gives what the loop was told of.
pub fn exceptions<F: Future>(builder: Builder, body: impl FnOnce() -> F) -> Vec<String> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hears = heard.clone();
    let hear = move |exception: &Exception| hears.borrow_mut().push(exception.to_string());
    let io_loop = builder.on_exception(hear).build().unwrap();
    // The limit is only a guard against hanging.
    io_loop.run_sync_timeout(Duration::from_secs(120), body).unwrap();
    drop(io_loop);
    heard.take()
}

/// Polls `future` to its end on this thread, as `futures::executor::block_on` does.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (wake, woken) = mpsc::channel();
    // It may come when nobody waits any more.
    let waker = waker_fn(move || _ = wake.send(()));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => woken.recv_timeout(Duration::from_secs(30)).expect("it hangs"),
        }
    }
}

/// Runs its function when it is dropped.
pub struct AtDrop<F: FnMut()>(pub F);

impl<F: FnMut()> AtDrop<F> {
    /// Moves the whole value into a closure that mentions it.
    pub fn keep(&self) {}
}

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub fn virtual_loop() -> IoLoop {
    IoLoop::builder().virtual_time().build().unwrap()
}

/// A waker that panics.
pub fn panicking_waker() -> Waker {
    waker_fn(|| panic!("a waker"))
}

thread_local! {
    static WHEN_CLONED: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// What the waker of `poll_acting_when_cloned` does when a clone of it is next dropped.
    pub static WHEN_DROPPED: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// How often the waker of `poll_acting_when_cloned` was woken.
    pub static WOKEN: Cell<u32> = const { Cell::new(0) };
}

/// Polls once, by a waker that runs `act` when it is first cloned.
#[expect(unsafe_code, reason = "no other waker is told that it is cloned")]
pub fn poll_acting_when_cloned<F: Future + Unpin>(
    future: &mut F,
    act: impl FnOnce() + 'static,
) -> Poll<F::Output> {
    fn clone(_: *const ()) -> RawWaker {
        if let Some(act) = WHEN_CLONED.take() {
            act();
        }
        RAW
    }
    fn wake(_: *const ()) {
        WOKEN.set(WOKEN.get() + 1);
    }
    fn forget(_: *const ()) {
        if let Some(act) = WHEN_DROPPED.take() {
            act();
        }
    }
    const RAW: RawWaker = RawWaker::new(std::ptr::null(), &VTABLE);
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, forget);
    WHEN_CLONED.set(Some(Box::new(act)));
    // SAFETY: none of the functions uses the pointer.
    let waker = unsafe { Waker::from_raw(RAW) };
    poll_for(future, &waker)
}

/// Counts that it is dropped, and panics.
pub struct Bomb(pub Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a destructor");
    }
}

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Polls once, for nobody.
pub fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_for(future, Waker::noop())
}

pub fn poll_for<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Polls once, for the task that awaits this.
pub async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// So many turns of the loop. While others are ready, it looks at its sockets only now and then, but
/// within 64 entries of its queue.
pub async fn turns(n: usize) {
    for _ in 0..n {
        moment().await;
    }
}

/// Turns until something is so that no event tells of.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        moment().await;
    }
}

/// Closes a file and gives its number to another one. (Just to close it and open the other would not do:
/// tests that run beside open files, too.)
pub fn give_number<G, F>(gone: G, fresh: F) -> F
where
    OwnedFd: From<G> + From<F>,
    F: From<OwnedFd>,
{
    let mut number = OwnedFd::from(gone);
    rustix::io::dup2(OwnedFd::from(fresh), &mut number).unwrap();
    number.into()
}

/// A number that `fd` has beside its own, and no other test will get: far from the lowest free ones.
pub fn remote_number(fd: impl AsFd) -> OwnedFd {
    static NEXT: AtomicI32 = AtomicI32::new(500);
    rustix::io::fcntl_dupfd_cloexec(fd, NEXT.fetch_add(10, Ordering::Relaxed)).unwrap()
}

/// Suspends once, waking itself.
pub async fn suspend() {
    let mut suspended = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut suspended, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Polls again as long as it is woken meanwhile, as some combinators do.
pub async fn polled_again<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let woken = Arc::new(AtomicBool::new(false));
        let (wakes, outer) = (woken.clone(), cx.waker().clone());
        let waker = waker_fn(move || {
            wakes.store(true, Ordering::Relaxed);
            outer.wake_by_ref();
        });
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending if woken.swap(false, Ordering::Relaxed) => {}
                polled => return polled,
            }
        }
    })
    .await
}

/// An executor that knows no loop: polls those who were woken, in order, until nobody is.
pub fn run_elsewhere(futures: impl IntoIterator<Item = LocalBoxFuture<'static, ()>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    let woken = Arc::new(Mutex::new((0..futures.len()).collect::<VecDeque<_>>()));
    while let Some(n) = { woken.lock().unwrap().pop_front() } {
        let wakes = woken.clone();
        let waker = waker_fn(move || wakes.lock().unwrap().push_back(n));
        let done = futures[n].as_mut().map(|future| poll_for(future, &waker).is_ready());
        if done == Some(true) {
            futures[n] = None;
        }
    }
    assert!(futures.iter().all(Option::is_none), "somebody waits for ever");
}

/// The waker of the task that awaits this.
pub async fn own_waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

/// The message of the panic in which `run` ends.
pub fn panic_of<T>(run: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => payload.downcast_ref::<&str>().unwrap().to_string(),
        },
    }
}

/// Runs the loop for one turn: what is queued now, no more.
pub fn one_turn(io_loop: &IoLoop) {
    let inner = io_loop.clone();
    io_loop.add_callback(move || inner.stop());
    io_loop.start().unwrap();
}

/// The kind of the error that this was.
#[track_caller]
pub fn kind<T>(result: io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("there is no error"),
        Err(error) => error.kind(),
    }
}

/// Somebody who listens, and where.
pub fn open(address: SocketAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that refuses, and that nobody else gets meanwhile: bound, and nobody listens.
pub fn refusing(address: SocketAddr) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// The two ends of a stream over two pipes.
pub fn pipes() -> (Pipe, Pipe) {
    let (one_writes, other_reads) = pipe::pair().unwrap();
    let (other_writes, one_reads) = pipe::pair().unwrap();
    (Pipe::from((one_reads, one_writes)), Pipe::from((other_reads, other_writes)))
}

/// Bytes that repeat only after a while, so that what is missing or twice shows.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}
