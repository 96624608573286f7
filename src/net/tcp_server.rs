//! `TcpServer`: accepting connections, and living with what goes wrong there.
//!
//! Each listener has a coroutine that accepts, each connection one that handles it. Accepting gives
//! way to the others by the budget that all I/O has. When the process or the system has no more file
//! descriptors, accepting pauses: the connections that it has are served on, those that wait stay in
//! the backlog, and the log gets a line, not a flood.
//!
//! A handler may do anything to its server, in its first step too, which runs inside the coroutine
//! that accepts: so that one looks whether it was stopped before it accepts another.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::panic::{AssertUnwindSafe, Location};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::bind::{BindOptions, bind_sockets};
use super::tcp::{TcpListener, TcpStream};
use crate::coroutine::{Coroutine, Outcome, TaskGroup, name_of, sleep, spawn_at};
use crate::error::{ExcInfo, StreamError};
use crate::ioloop::{Deadline, IoLoop};
use crate::iostream::{IoStream, Options};
use crate::locks::Semaphore;
use crate::report::{self, Exception};
use crate::resumption;

/// How long accepting pauses when there are no descriptors. (trio's is 100 ms, too.)
const PAUSE: Duration = Duration::from_millis(100);
/// How often such a pause is worth a line in the log.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// A server of TCP connections; each is a coroutine on the current loop. Tornado: `TCPServer`.
///
/// Dropping it stops accepting, cancels the connections and closes their streams;
/// [`drain`](TcpServer::drain) lets them finish.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, iostream::IoStream, net::{TcpClient, TcpServer, TcpStream}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let server = TcpServer::new(|stream: IoStream<TcpStream>, _peer| async move {
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
pub struct TcpServer {
    inner: Rc<Inner>,
    accepting: RefCell<Vec<Accepting>>,
}

/// A coroutine that accepts.
struct Accepting {
    coroutine: Coroutine<()>,
    /// Tells it, if it is what runs now, that it was cancelled.
    stopped: Rc<Cell<bool>>,
}

/// Handles a connection, in a future that only reports how it ended.
type Handler = Box<dyn Fn(IoStream<TcpStream>, SocketAddr) -> Pin<Box<dyn Future<Output = ()>>>>;

struct Inner {
    handle: Handler,
    /// What the handler is called, and where the server was made: the name and place of what it runs.
    name: fn() -> &'static str,
    place: &'static Location<'static>,
    connections: TaskGroup,
    accepted: Cell<u64>,
    settings: Cell<Settings>,
    limit: RefCell<Option<Semaphore>>,
    told: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, Default)]
struct Settings {
    stream: Options,
}

impl TcpServer {
    /// A server whose connections `handle_stream` handles. It listens nowhere yet.
    ///
    /// The future that `handle_stream` makes is a coroutine of the connection's own; an `Err` or a
    /// panic of it is reported with the address of the other side, and ends that connection only. So
    /// a handler may use `?` on its stream: [`StreamError::Closed`] without an error is a client that
    /// hung up, which is reported to nobody, also within an [`io::Error`] or a boxed error. Tornado:
    /// overriding `handle_stream`.
    ///
    /// A connection that was *reset*, or that timed out, is reported: that is `Closed` with the error. What
    /// was sent to that client may have been lost, and nobody else would hear of it. A handler to which that
    /// is all the same gives `Ok` for any `Closed`.
    ///
    /// The connection has ended when its handler has, and what that wrote has been sent.
    #[track_caller]
    pub fn new<H, F>(handle_stream: H) -> TcpServer
    where
        H: Fn(IoStream<TcpStream>, SocketAddr) -> F + 'static,
        F: Future<Output: Outcome> + 'static,
    {
        let handle_stream = Rc::new(handle_stream);
        let place = Location::caller();
        let handle: Handler = Box::new(move |stream, peer| {
            let handle_stream = handle_stream.clone();
            Box::pin(async move {
                // Called in here, so that a panic of the call itself is the connection's, too.
                let handling = async move {
                    let outcome = handle_stream(stream, peer).await;
                    outcome.error().filter(|_| !is_hang_up(&outcome))
                };
                let info = match AssertUnwindSafe(handling).catch_unwind().await {
                    Ok(error) => error.map(ExcInfo::error),
                    Err(panic) => Some(ExcInfo::from_panic(&*panic)),
                };
                if let Some(info) = info {
                    let what = "a connection handler";
                    let info = ExcInfo::error(format!("{info}, with {peer}"));
                    let name = Some(name_of::<H>());
                    report::report(Exception { what, name, location: Some(place), info });
                }
            })
        });
        let inner = Inner {
            handle,
            name: name_of::<H>,
            place,
            connections: TaskGroup::independent(),
            accepted: Cell::new(0),
            settings: Cell::new(Settings::default()),
            limit: RefCell::new(None),
            told: Cell::new(None),
        };
        TcpServer { inner: Rc::new(inner), accepting: RefCell::new(Vec::new()) }
    }

    /// Sets the limits of the streams that are accepted from now on.
    #[must_use]
    pub fn stream_options(self, options: Options) -> TcpServer {
        self.inner.settings.set(Settings { stream: options });
        self
    }

    /// Serves at most so many connections at a time; more wait in the backlog.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> TcpServer {
        *self.inner.limit.borrow_mut() = Some(Semaphore::new(connections));
        self
    }

    /// Listens on a port of all addresses of the machine, and tells which one it is: 0 takes a free
    /// one. May be called again for others. Connections send small writes at once (`TCP_NODELAY`).
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

    /// [`listen`](TcpServer::listen) on some addresses of the machine only: those of `address`, a name
    /// or a numeric one.
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

    fn listen_with(&self, port: u16, options: &BindOptions) -> io::Result<u16> {
        let sockets = bind_sockets(port, options)?;
        let port = sockets[0].local_addr()?.port();
        self.add_sockets(sockets)?;
        Ok(port)
    }

    /// Accepts from sockets that listen already, from [`bind_sockets`] say, which also makes ones whose
    /// connections have Nagle's algorithm. Tornado: `add_sockets`.
    ///
    /// # Errors
    ///
    /// If one cannot be watched: those before it are.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`].
    pub fn add_sockets(
        &self,
        sockets: impl IntoIterator<Item = net::TcpListener>,
    ) -> io::Result<()> {
        for socket in sockets {
            let listener = TcpListener::from_std(socket)?;
            let stopped = Rc::new(Cell::new(false));
            // Not started here and now: it has to be in the list before a handler runs, which may
            // stop the server.
            let accepting = accept(self.inner.clone(), listener, stopped.clone());
            let coroutine = spawn_at(self.inner.place, accepting);
            self.accepting.borrow_mut().push(Accepting { coroutine, stopped });
        }
        Ok(())
    }

    /// Stops accepting and closes the listeners; connections go on. Twice does no harm. Tornado:
    /// `stop`.
    pub fn stop(&self) {
        for Accepting { coroutine, stopped } in self.accepting.take() {
            stopped.set(true);
            coroutine.cancel();
        }
    }

    /// Stops accepting and waits until the connections have ended, but no longer than until
    /// `deadline`; then cancels those that have not, closes their streams with what is unsent, and
    /// tells how many that were.
    ///
    /// Cancel safe: given up, it has only stopped accepting. A handler that awaits it waits for itself,
    /// and is among those that are cancelled.
    #[track_caller]
    pub fn drain(&self, deadline: impl Into<Deadline>) -> impl Future<Output = usize> {
        resumption::here(async move {
            self.stop();
            self.inner.connections.shutdown(deadline).await
        })
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

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.stop();
        self.inner.connections.cancel();
    }
}

impl fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpServer")
            .field("listeners", &self.accepting.borrow().len())
            .field("connections", &self.connections())
            .field("accepted", &self.accepted())
            .finish()
    }
}

async fn accept(server: Rc<Inner>, listener: TcpListener, stopped: Rc<Cell<bool>>) {
    while !stopped.get() {
        // A permit is taken for a connection that is there, so that no listener keeps one from the
        // others while it waits.
        let accepted = match listener.readable().await {
            Ok(()) => {
                let limit = server.limit.borrow().clone();
                let permit = match limit {
                    Some(limit) => Some(limit.acquire().await),
                    None => None,
                };
                listener.try_accept().map(|accepted| (accepted, permit))
            }
            Err(error) => Err(error),
        };
        match accepted {
            Ok(((stream, peer), permit)) => {
                server.accepted.set(server.accepted.get() + 1);
                let stream = IoStream::with_options(stream, server.settings.get().stream);
                let kept = stream.keep();
                let handling = (server.handle)(stream, peer);
                server.connections.start_named(server.name, server.place, async move {
                    handling.await;
                    kept.all_sent().await;
                    drop(permit);
                    Ok(())
                });
            }
            // Somebody else has it, or again, please.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            // One connection's trouble, over before it began.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                server.tell(&listener, &error);
                sleep(PAUSE).await;
            }
        }
    }
}

/// Whether a handler ended because the other side had hung up, which is how connections end:
/// [`StreamError::Closed`] without an error, by itself or as an error of the usual kinds.
fn is_hang_up(outcome: &dyn Any) -> bool {
    fn closed(error: &(dyn Error + 'static)) -> bool {
        if let Some(error) = error.downcast_ref::<StreamError>() {
            return matches!(error, StreamError::Closed(None));
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

/// `accept` also tells network errors of the connection that it would have given (see accept(2)).
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

impl Inner {
    /// Says that accepting pauses, now and then.
    fn tell(&self, listener: &TcpListener, error: &io::Error) {
        let now = IoLoop::current().time();
        if self.told.get().is_some_and(|told| now < told + TELL_EVERY) {
            return;
        }
        self.told.set(Some(now));
        let address =
            listener.local_addr().map_or("a socket".into(), |address| address.to_string());
        let connections = self.connections.len();
        report::warn(format_args!(
            "accepting on {address} pauses: {error}; {connections} connections are served on"
        ));
    }
}
