//! `Server`: accepts connections, and goes on when that fails.
//!
//! A server has one coroutine for each listener, which accepts, and one for each connection, which runs the
//! handler. A coroutine that accepts spends of its budget for each connection, as with all I/O, and so lets
//! other coroutines run although more connections wait. When the process or the system has no more file
//! descriptors, accepting pauses: the connections that were accepted are served on, those that wait stay in
//! the backlog, and the log gets a line now and then instead of a line for each attempt.
//!
//! A server knows its listeners only as [`Listener`]s, so a listener over TLS, over a proxy, or in the memory
//! of a test is served like those of this crate.
//!
//! A handler may do anything to its server, such as stopping it. It may do so in its first step, which runs
//! inside the coroutine that accepts. Cancelling a coroutine that is running ends it
//! only when it waits next, so the coroutine also looks at a flag, `stopped`, before it accepts another
//! connection.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::net as unix;
use std::panic::{AssertUnwindSafe, Location};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::FusedFuture;

use super::balancer::{Balancer, Counted, Handed, Mail, Seat};
use super::listener::Listener;
use crate::coroutine::{
    Coroutine, Name, Outcome, TaskGroup, name_of, sleep, spawn_at, with_timeout,
};
use crate::ground::error::{ExcInfo, StreamError};
use crate::ground::report::{self, Exception};
use crate::ground::{foreign, resumption};
use crate::ioloop::{Deadline, IoLoop};
use crate::iostream::{IoStream, Options, Transport};
use crate::locks::{Permit, Semaphore};
use crate::sockets::{
    BindOptions, TcpListener, TcpStream, UnixListener, UnixStream, bind_sockets, bind_unix_socket,
};

/// How long accepting pauses after an error such as too many open files. (In trio it is 100 ms, too.)
const PAUSE: Duration = Duration::from_millis(100);
/// A pause that begins sooner than this after the last one that was logged is not logged.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// Accepts connections, and handles each in a coroutine on the current loop. `S` is the type of stream that
/// the listeners give, `A` the type of the other side's address.
///
/// [`TcpServer`] and [`UnixServer`] are servers over the sockets of this crate;
/// [`add_listener`](Server::add_listener) takes any [`Listener`]. How the server is made says what its
/// handler gets:
///
/// | made by | the handler gets |
/// | --- | --- |
/// | [`new`](Server::new), Tornado's form | an [`IoStream`] over the connection |
/// | [`bare`](Server::bare) | the connection as it is, for protocols that have buffers of their own (HTTP, gRPC) |
/// | `tls`, with the feature of that name | an [`IoStream`] over TLS |
/// | [`wrapping`](Server::wrapping) | what a handshake, which has a time limit, has made of the connection |
///
/// Dropping the server stops accepting, cancels the connections and closes their streams.
/// [`drain`](Server::drain) lets the connections finish.
pub struct Server<S, A = SocketAddr> {
    inner: Rc<Inner<S, A>>,
    accepting: RefCell<Vec<Accepting>>,
}

/// A server of TCP connections. Tornado: `TCPServer`.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, iostream::IoStream, net::{TcpClient, TcpServer}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let server = TcpServer::new(async |stream, _peer| {
///     while let Ok(line) = stream.read_until(b"\n", 1024).await {
///         stream.write(line).await?;
///     }
///     Ok::<(), std::io::Error>(())
/// });
/// let port = server.listen_on("127.0.0.1", 0)?;
///
/// let client = IoStream::new(TcpClient::new().connect("127.0.0.1", port).await?);
/// client.write("hello\n").await?;
/// assert_eq!(client.read_until(b"\n", 1024).await?, b"hello\n");
/// client.close();
/// server.drain(Duration::from_secs(5)).await;
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type TcpServer = Server<TcpStream, SocketAddr>;

/// A server of connections to Unix sockets. Tornado: `TCPServer` over `bind_unix_socket`.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, iostream::IoStream, net::{UnixServer, UnixStream}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let server = UnixServer::new(async |stream, _peer| stream.write("welcome\n").await);
/// let path = std::env::temp_dir().join(format!("waterspout-{}", std::process::id()));
/// server.listen(&path, 0o600)?;
///
/// let client = IoStream::new(UnixStream::connect(&path).await?);
/// assert_eq!(client.read_until(b"\n", 1024).await?, b"welcome\n");
/// server.drain(Duration::from_secs(5)).await;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type UnixServer = Server<UnixStream, unix::SocketAddr>;

/// A coroutine that accepts from one listener.
struct Accepting {
    coroutine: Coroutine<()>,
    /// Tells the coroutine to end before it accepts again. If it is running just now, cancelling it would end
    /// it only when it waits next, and it might have accepted by then.
    stopped: Rc<Cell<bool>>,
}

/// Makes the future that handles a connection, and that itself reports an error or a panic of the handler.
type Handler<S, A> = Box<dyn Fn(S, A, Options) -> Pin<Box<dyn Future<Output = ()>>>>;

struct Inner<S, A> {
    handle: Handler<S, A>,
    made: Made,
    connections: TaskGroup,
    accepted: Cell<u64>,
    options: Cell<Options>,
    /// Has a permit for each connection that there may be at a time.
    limit: RefCell<Option<Semaphore>>,
    /// How many that are.
    most: Cell<usize>,
    /// Its place at a balancer, if it has one.
    seat: RefCell<Option<Seat<S, A>>>,
    /// When a pause was last logged.
    warned_at: Cell<Option<Instant>>,
}

/// The name of the handler, and where the server was made: the name and the place of the server's coroutines.
#[derive(Clone, Copy)]
pub(crate) struct Made {
    pub(crate) name: fn() -> &'static str,
    pub(crate) place: &'static Location<'static>,
}

impl<S: 'static, A: Clone + fmt::Debug + 'static> Server<S, A> {
    /// A server that calls `handle_stream` for each connection. It listens nowhere yet. Tornado: overriding
    /// `handle_stream`.
    ///
    /// Each call's future runs in a coroutine of its own. An `Err` or a panic in it is reported with the
    /// address of the other side, and ends that connection only.
    ///
    /// A client that hung up is not reported, so a handler may use `?` on its stream: hanging up is
    /// [`StreamError::Closed`] without an error in it, also if that is within an [`io::Error`] or a boxed
    /// error. A connection that was *reset*, or that timed out, is reported; this is `Closed` with the
    /// error in it. What was sent to that client may have been lost, and nobody else would hear of it. A
    /// handler that does not care about this returns `Ok` for any `Closed`.
    ///
    /// A connection has ended when its handler has ended and everything that the handler wrote has been sent.
    #[track_caller]
    pub fn new<H, R>(handle_stream: H) -> Server<S, A>
    where
        H: AsyncFn(IoStream<S>, A) -> R + 'static,
        R: Outcome + 'static,
        S: Transport,
    {
        let made = Made { name: name_of::<H>, place: Location::caller() };
        let handle_stream = Rc::new(handle_stream);
        Server::of(made, move |stream, peer: A, options| {
            let stream = IoStream::with_options(stream, options);
            let (closing, handle_stream) = (stream.close_on_drop(), handle_stream.clone());
            Box::pin(async move {
                let from = peer.clone();
                let handling = pin!(async { Some(handle_stream(stream, peer).await) });
                made.report(&from, handling).await;
                closing.all_sent().await;
            })
        })
    }

    /// A server whose handler gets the connections as they were accepted, without a buffer: hyper, rustls and
    /// the like want them so. It listens nowhere yet.
    ///
    /// Errors and panics are reported as in [`new`](Server::new). A connection has ended when its handler
    /// has ended. The server does not wait for bytes that are then still unsent: the handler has to flush
    /// whatever buffers it used.
    ///
    /// ```
    /// use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    /// use waterspout::{IoLoop, net::{TcpServer, TcpStream}};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let server = TcpServer::bare(async |mut stream: TcpStream, _peer| {
    ///     let mut request = [0; 4];
    ///     stream.read_exact(&mut request).await?;
    ///     stream.write_all(&request).await
    /// });
    /// let port = server.listen_on("127.0.0.1", 0)?;
    ///
    /// let mut client = TcpStream::connect(("127.0.0.1", port)).await?;
    /// client.write_all(b"ping").await?;
    /// let mut answer = Vec::new();
    /// client.read_to_end(&mut answer).await?;
    /// assert_eq!(answer, b"ping");
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn bare<H, R>(handle: H) -> Server<S, A>
    where
        H: AsyncFn(S, A) -> R + 'static,
        R: Outcome + 'static,
    {
        let made = Made { name: name_of::<H>, place: Location::caller() };
        let handle = Rc::new(handle);
        Server::of(made, move |stream, peer: A, _| {
            let handle = handle.clone();
            Box::pin(async move {
                let from = peer.clone();
                let handling = pin!(async { Some(handle(stream, peer).await) });
                made.report(&from, handling).await;
            })
        })
    }

    /// A server whose connections go through a handshake before they are handled: TLS, say, or the header
    /// of a proxy. `handle` gets what `handshake` has made of the connection. It listens nowhere yet.
    ///
    /// Neither accepting nor another handshake waits for a handshake. One that has not ended after `limit` is
    /// dropped, and its connection with it. A connection in its handshake counts as a connection.
    ///
    /// Anybody may connect and send anything, so a handshake that fails is no exception: it is a line of
    /// the log at the level `info`. A panic in a handshake is an exception.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterspout::{IoLoop, iostream::{IoStream, StreamError}, net::{TcpClient, TcpServer, TcpStream}};
    ///
    /// // The first line of a connection says for whom a proxy has made it.
    /// async fn proxied(
    ///     stream: TcpStream,
    ///     _proxy: std::net::SocketAddr,
    /// ) -> Result<(IoStream<TcpStream>, String), StreamError> {
    ///     let stream = IoStream::new(stream);
    ///     let client = stream.read_until(b"\n", 128).await?;
    ///     Ok((stream, String::from_utf8_lossy(&client).trim().to_owned()))
    /// }
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let limit = Duration::from_secs(10);
    /// let server = TcpServer::wrapping(limit, proxied, async |(stream, client)| {
    ///     stream.write(format!("hello {client}\n")).await
    /// });
    /// let port = server.listen_on("127.0.0.1", 0)?;
    ///
    /// let client = IoStream::new(TcpClient::new().connect("127.0.0.1", port).await?);
    /// client.write("192.0.2.1\n").await?;
    /// assert_eq!(client.read_until(b"\n", 128).await?, b"hello 192.0.2.1\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn wrapping<W, T, E, H, R>(limit: Duration, handshake: W, handle: H) -> Server<S, A>
    where
        W: AsyncFn(S, A) -> Result<T, E> + 'static,
        E: fmt::Debug,
        H: AsyncFn(T) -> R + 'static,
        R: Outcome + 'static,
    {
        let made = Made { name: name_of::<H>, place: Location::caller() };
        let both = Rc::new((handshake, handle));
        Server::of(made, move |stream, peer: A, _| {
            let both = both.clone();
            Box::pin(async move {
                let from = peer.clone();
                let handling = pin!(async {
                    let (handshake, handle) = &*both;
                    let handshake = async {
                        match with_timeout(limit, handshake(stream, peer)).await {
                            Ok(done) => done.map_err(|error| foreign::debug(&error)),
                            Err(_) => Err(format!("it took longer than {limit:?}")),
                        }
                    };
                    Some(handle(shake_hands(&from, handshake).await?).await)
                });
                made.report(&from, handling).await;
            })
        })
    }

    pub(crate) fn of(
        made: Made,
        handle: impl Fn(S, A, Options) -> Pin<Box<dyn Future<Output = ()>>> + 'static,
    ) -> Server<S, A> {
        let inner = Inner {
            handle: Box::new(handle),
            made,
            connections: TaskGroup::independent(),
            accepted: Cell::new(0),
            options: Cell::new(Options::default()),
            limit: RefCell::new(None),
            most: Cell::new(usize::MAX),
            seat: RefCell::new(None),
            warned_at: Cell::new(None),
        };
        Server { inner: Rc::new(inner), accepting: RefCell::new(Vec::new()) }
    }

    /// Also accepts from `listener`, until the server is stopped. It does so on the current loop, which has
    /// to be the listener's. Tornado: `add_socket`.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn add_listener(&self, listener: impl Listener<Stream = S, Address = A>) {
        self.accept_from(listener, false);
    }

    /// Accepts from `listener`. If `is_mail`, what it gives was handed over by other servers.
    fn accept_from(&self, listener: impl Listener<Stream = S, Address = A>, is_mail: bool) {
        let stopped = Rc::new(Cell::new(false));
        // Queued, not started here and now: a handler may stop the server as soon as it runs, and that ends
        // only the coroutines that are in the list by then.
        let accepting = accept(self.inner.clone(), listener, is_mail, stopped.clone());
        let coroutine = spawn_at(self.inner.made.place, accepting);
        self.accepting.borrow_mut().push(Accepting { coroutine, stopped });
    }
}

impl<S, A> Server<S, A> {
    /// Sets the limits of the [`IoStream`]s that a server made by [`new`](Server::new) gives to its
    /// handler, for the connections that are accepted from now on.
    #[must_use]
    pub fn stream_options(self, options: Options) -> Server<S, A> {
        self.inner.options.set(options);
        self
    }

    /// Serves at most this many connections at a time. Further ones wait in the backlog of their listener.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Server<S, A> {
        *self.inner.limit.borrow_mut() = Some(Semaphore::new(connections));
        self.inner.most.set(connections);
        if let Some(seat) = &*self.inner.seat.borrow() {
            seat.set_most(connections);
        }
        self
    }

    /// Stops accepting and closes the listeners; connections go on. Calling it twice does no harm. A server that
    /// shares a balancer leaves it, and serves what was handed over to it before.
    /// Tornado: `stop`.
    pub fn stop(&self) {
        let seat = self.inner.seat.take();
        let handed: Vec<_> = seat.iter().flat_map(Seat::leave).collect();
        self.stop_accepting();
        // Whoever has handed it over counts on its being served.
        for (stream, peer) in handed {
            self.inner.start(stream, peer, None, None);
        }
    }

    fn stop_accepting(&self) {
        for Accepting { coroutine, stopped } in self.accepting.take() {
            stopped.set(true);
            coroutine.cancel();
        }
    }

    /// Stops accepting and waits until the connections have ended, but no longer than until `deadline`.
    /// Then it cancels the connections that have not ended and closes their streams; what is unsent there
    /// is lost. Gives the number of connections that it has cancelled.
    ///
    /// Cancel safe: if the future was polled and is dropped before it is ready, the server has stopped
    /// accepting, and the connections go on. A handler that awaits this waits for itself, and is cancelled
    /// at the deadline.
    #[track_caller]
    pub fn drain(&self, deadline: impl Into<Deadline>) -> impl FusedFuture<Output = usize> {
        resumption::here(async move {
            self.stop();
            self.inner.connections.shutdown(deadline).await
        })
    }

    /// Has the coroutines of all connections resumed soon, so that they look at a flag that was set for them.
    #[cfg(feature = "server")]
    pub(crate) fn wake_connections(&self) {
        self.inner.connections.wake();
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.inner.connections.len()
    }

    /// How many connections were accepted in all.
    pub fn accepted(&self) -> u64 {
        self.inner.accepted.get()
    }
}

impl TcpServer {
    /// Joins the servers that share this balancer, until this server is stopped: see [`Balancer`]. A server is at
    /// one balancer at most, and leaves the one that it joined before. Connections that it has already do not count.
    ///
    /// # Errors
    ///
    /// If the balancer has as many servers as it can.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    ///
    /// ```
    /// use waterspout::{IoLoop, net::{Balancer, TcpServer, TcpStream}};
    ///
    /// # IoLoop::new()?.run_sync(|| async {
    /// let balancer = Balancer::new();
    /// let server = || TcpServer::bare(async |stream: TcpStream, _peer| stream.write_all(b"hello").await);
    /// let (accepting, other) = (server(), server()); // as a rule, on another loop
    /// accepting.balance(&balancer)?;
    /// other.balance(&balancer)?;
    /// let port = accepting.listen_on("127.0.0.1", 0)?;
    /// for _ in 0..10 {
    ///     let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    ///     stream.read_exact(&mut [0; 5]).await?;
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn balance(&self, balancer: &Balancer) -> io::Result<()> {
        let seat = Seat::new(
            balancer,
            self.inner.most.get(),
            |stream: TcpStream, peer| Ok(Handed { socket: stream.into_std()?, peer }),
            |handed| Ok((TcpStream::from_std(handed.socket)?, handed.peer)),
        )?;
        self.accept_from(Mail(seat.clone()), true);
        // The coroutine that takes up the mail of an earlier place has nothing to do any more.
        let earlier = self.inner.seat.replace(Some(seat));
        for (stream, peer) in earlier.iter().flat_map(Seat::leave) {
            self.inner.start(stream, peer, None, None);
        }
        Ok(())
    }

    /// Listens on a port of all addresses of the machine, and returns the port's number; port 0 takes a free
    /// port. Can be called again for more ports. Connections send small writes at once (`TCP_NODELAY`).
    /// Tornado: `listen`.
    ///
    /// # Errors
    ///
    /// As [`bind_sockets`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn listen(&self, port: u16) -> io::Result<u16> {
        self.listen_with(port, &BindOptions::default())
    }

    /// [`listen`](TcpServer::listen) on the addresses of `address` only, which is a name or a numeric address
    /// of the machine.
    ///
    /// # Errors
    ///
    /// As [`bind_sockets`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn listen_on(&self, address: &str, port: u16) -> io::Result<u16> {
        self.listen_with(port, &BindOptions { address: Some(address.into()), ..Default::default() })
    }

    /// [`listen`](TcpServer::listen) with all its options: the addresses and their family, how many
    /// connections may wait to be accepted, whether other sockets share the port. Tornado: the arguments of
    /// `listen`.
    ///
    /// # Errors
    ///
    /// As [`bind_sockets`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn listen_with(&self, port: u16, options: &BindOptions) -> io::Result<u16> {
        let sockets = bind_sockets(port, options)?;
        let port = sockets[0].local_addr()?.port();
        self.add_sockets(sockets)?;
        Ok(port)
    }

    /// Accepts from sockets that listen already: those of [`bind_sockets`], say. Tornado: `add_sockets`.
    ///
    /// # Errors
    ///
    /// If a socket cannot be registered with the loop. The server accepts from the sockets before it.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn add_sockets(
        &self,
        sockets: impl IntoIterator<Item = net::TcpListener>,
    ) -> io::Result<()> {
        for socket in sockets {
            self.add_listener(TcpListener::from_std(socket)?);
        }
        Ok(())
    }
}

impl UnixServer {
    /// Listens on a path, and gives its file the permissions `mode`. Can be called again for more paths. The
    /// file is not removed when the server has gone. Tornado: `add_socket(bind_unix_socket(path, mode))`.
    ///
    /// # Errors
    ///
    /// As [`bind_unix_socket`].
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn listen(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        self.add_listener(UnixListener::from_std(bind_unix_socket(path, mode)?)?);
        Ok(())
    }
}

impl<S, A> Drop for Server<S, A> {
    fn drop(&mut self) {
        if let Some(seat) = self.inner.seat.take() {
            seat.pass_on();
        }
        self.stop_accepting();
        self.inner.connections.cancel();
    }
}

impl<S, A> fmt::Debug for Server<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.accepting.borrow().len())
            .field("connections", &self.connections())
            .field("accepted", &self.accepted())
            .finish()
    }
}

async fn accept<L: Listener>(
    server: Rc<Inner<L::Stream, L::Address>>,
    listener: L,
    is_mail: bool,
    stopped: Rc<Cell<bool>>,
) {
    while !stopped.get() {
        // Spends of the budget for each connection. A user's listener may be ready whenever it is polled, and
        // would otherwise keep the loop for ever.
        poll_fn(|cx| resumption::poll_proceed(cx)).await;
        let accepted = match AssertUnwindSafe(server.next(&listener)).catch_unwind().await {
            Ok(accepted) => accepted,
            Err(panic) => {
                foreign::report_panic("a listener", Some(server.made.place), panic);
                sleep(PAUSE).await;
                continue;
            }
        };
        let seat = server.seat.borrow().clone();
        let to_serve = accepted.and_then(|(stream, peer, permit)| {
            let kept = match &seat {
                Some(seat) if !is_mail => seat.hand_over(stream, peer)?,
                _ => Some((stream, peer)),
            };
            Ok(kept.map(|(stream, peer)| (stream, peer, permit)))
        });
        match to_serve {
            Ok(Some((stream, peer, permit))) => {
                let counted = seat.map(|seat| seat.counted());
                server.start(stream, peer, permit, counted);
            }
            // Another server has it.
            Ok(None) => {}
            // Only that one connection has failed.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                server.warn_of_pause(&listener, &error);
                sleep(PAUSE).await;
            }
        }
    }
}

impl Made {
    /// Awaits `handling`, and reports an error or a panic of it. `None` means that nothing was handled,
    /// because the handshake failed.
    ///
    /// The caller pins `handling` and gives a reference. By value it would be moved from here into the future that
    /// catches its panics, and each such move makes the future of a connection larger by all that the handler keeps, a
    /// buffer for instance.
    pub(crate) async fn report<R: Outcome + 'static>(
        self,
        peer: &dyn fmt::Debug,
        handling: impl Future<Output = Option<R>> + Unpin,
    ) {
        let handling = async {
            let outcome = handling.await?;
            outcome.error().filter(|_| !is_hang_up(&outcome))
        };
        let info = match AssertUnwindSafe(handling).catch_unwind().await {
            Ok(error) => error.map(ExcInfo::error),
            Err(panic) => Some(ExcInfo::from_panic(&*panic)),
        };
        if let Some(info) = info {
            let what = "a connection handler";
            let info = ExcInfo::error(format!("{info}, with {}", foreign::debug(peer)));
            let (name, location) = (Some((self.name)()), Some(self.place));
            report::report(Exception { what, name, location, info });
        }
    }
}

/// Comes to the end of a handshake, or says in the log why it failed.
pub(crate) async fn shake_hands<T>(
    peer: &dyn fmt::Debug,
    handshake: impl Future<Output = Result<T, String>>,
) -> Option<T> {
    let failed = match handshake.await {
        Ok(wrapped) => return Some(wrapped),
        Err(failed) => failed,
    };
    let peer = foreign::debug(peer);
    report::info(report::NET, format_args!("no handshake with {peer}: {failed}"));
    None
}

/// Whether a handler ended because the other side had hung up, which is how connections usually end:
/// whether its error is [`StreamError::Closed`] without an error in it, by itself or within one of the
/// usual error types. A client that hung up without saying so as TLS has it (`UnexpectedEof`) is no more
/// to be reported: nothing that was sent to it is lost.
fn is_hang_up(outcome: &dyn Any) -> bool {
    fn closed(error: &(dyn Error + 'static)) -> bool {
        if let Some(error) = error.downcast_ref::<StreamError>() {
            return match error {
                StreamError::Closed(Some(error)) => error.kind() == io::ErrorKind::UnexpectedEof,
                error => matches!(error, StreamError::Closed(None)),
            };
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| closed(inner))
    }
    fn err<E: 'static>(outcome: &dyn Any) -> Option<&E> {
        outcome.downcast_ref::<Result<(), E>>()?.as_ref().err()
    }
    err::<StreamError>(outcome).is_some_and(|error| closed(error))
        || err::<io::Error>(outcome).is_some_and(|error| closed(error))
        || err::<Box<dyn Error>>(outcome).is_some_and(|error| closed(&**error))
        || err::<Box<dyn Error + Send>>(outcome).is_some_and(|error| closed(&**error))
        || err::<Box<dyn Error + Send + Sync>>(outcome).is_some_and(|error| closed(&**error))
}

/// Whether an error of `accept` is about one connection only. accept(2) also gives the network errors of the
/// connection that it would have returned.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown,
        NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
    )
}

impl<S, A> Inner<S, A> {
    /// Starts the coroutine that handles a connection. When it has ended, it gives back the permit, and is not
    /// counted any more.
    fn start(&self, stream: S, peer: A, permit: Option<Permit>, counted: Option<Counted>) {
        self.accepted.set(self.accepted.get() + 1);
        let handling = (self.handle)(stream, peer, self.options.get());
        let Made { name, place } = self.made;
        self.connections.start_as(Name::Of(name), place, async move {
            handling.await;
            drop((permit, counted));
            Ok(())
        });
    }

    /// The next connection of a listener, and the permit for it.
    ///
    /// A permit is held only while the listener is polled. While it waits, another listener of this server
    /// may need the permit for a connection of its own.
    async fn next<L>(&self, listener: &L) -> io::Result<(S, A, Option<Permit>)>
    where
        L: Listener<Stream = S, Address = A>,
    {
        let mut accepting = pin!(listener.accept());
        loop {
            let limit = self.limit.borrow().clone();
            let permit = match limit {
                Some(limit) => Some(limit.acquire().await),
                None => None,
            };
            let asked = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await;
            if let Poll::Ready(accepted) = asked {
                return accepted.map(|(stream, peer)| (stream, peer, permit));
            }
            drop(permit);
            // The listener has this coroutine's waker by now. So this waits until the waker is woken: it is
            // pending when it is polled for the first time, and ready the next time.
            let mut is_woken = false;
            poll_fn(|_| match std::mem::replace(&mut is_woken, true) {
                false => Poll::Pending,
                true => Poll::Ready(()),
            })
            .await;
        }
    }

    /// Logs that accepting pauses, unless a pause was logged shortly before.
    fn warn_of_pause(&self, listener: &impl Listener, error: &io::Error) {
        let now = IoLoop::current().time();
        if self.warned_at.get().is_some_and(|warned_at| now < warned_at + WARN_EVERY) {
            return;
        }
        self.warned_at.set(Some(now));
        let address = foreign::call("a listener", Some(self.made.place), || {
            listener.local_address().ok().map(|address| format!("{address:?}"))
        });
        let address = address.flatten().unwrap_or("a socket".into());
        let connections = self.connections.len();
        report::warn(
            report::NET,
            format_args!(
                "accepting on {address} pauses: {error}; {connections} connections are served on"
            ),
        );
    }
}
