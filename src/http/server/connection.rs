//! A connection, from its first byte to its last.
//!
//! A connection that waits for a request has no state of hyper's and no buffer: it is *parked*, a socket with
//! a deadline. The first bytes that come tell HTTP/1 from HTTP/2, and hyper is set up with them. When an
//! HTTP/1 connection has been idle for about a second, hyper is taken down again, and gives back the bytes that it
//! has read and not used; there are none unless a client sent a part of its next request just then, and in
//! that case they are what hyper begins with when it is set up again. So nothing is lost, and of ten thousand
//! clients that keep their connection open only those cost memory that are asking for something.
//!
//! (An HTTP/2 connection cannot be parked: both sides remember compressed headers.)

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::hyper::server::conn::http1;
#[cfg(feature = "http2")]
use ::hyper::server::conn::http2;
use ::hyper::service::service_fn;
use bytes::Bytes;

use super::answer::Answer;
use super::exchange::{Asked, exchange};
use super::listeners::Accepted;
#[cfg(feature = "_tls")]
use super::listeners::{Shaken, over_tls};
use super::settings::Settings;
use super::shared::{Serving, Shared};
use super::watch::{Finding, Watch, after};
#[cfg(feature = "http2")]
use super::wire::STREAMS;
use super::wire::{Notes, Socket, Wire};
use crate::coroutine::{now, sleep, sleep_until};
use crate::http::request::{Connected, Peer};
#[cfg(feature = "_tls")]
use crate::tls::TlsAcceptor;

/// How much is read of a connection before hyper is there.
const FIRST: usize = 8 * 1024;
/// How long, and how much, is read and thrown away after the last answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;
/// With this HTTP/2 begins.
#[cfg(feature = "http2")]
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TOO_SLOW_HEAD: &str = "the head of a request took too long";
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What is left of an HTTP/1 connection without hyper.
struct Parked {
    socket: Socket,
    /// What was read and not used.
    received: Bytes,
    /// Since when it has been idle.
    since: Instant,
}

/// A connection that was accepted.
///
/// Its coroutine is as large as the largest of what it ever holds, also while it is parked; and what is moved from
/// one future into another is there twice. So it is a value that futures borrow, and what is needed only for a
/// while (a handshake, hyper, tokio's context) is in boxes.
pub(super) struct Connection<A> {
    /// `None` while hyper has it.
    socket: Option<Socket>,
    #[cfg(feature = "_tls")]
    tls: Option<TlsAcceptor>,
    connected: Rc<Connected>,
    settings: Rc<Settings>,
    serving: Rc<Serving<A>>,
}

impl<A: Answer> Connection<A> {
    pub(super) fn new(accepted: Accepted, peer: Peer, serving: Rc<Serving<A>>) -> Connection<A> {
        let settings = serving.shared.settings.borrow().clone();
        let (tls, believed) = (None, settings.believed.clone());
        Connection {
            socket: Some(accepted.socket),
            #[cfg(feature = "_tls")]
            tls: accepted.tls,
            connected: Rc::new(Connected { peer, tls, made: serving.made, believed }),
            settings,
            serving,
        }
    }

    /// Serves it until it ends, and reports what goes wrong.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its argument twice")]
    pub(super) fn handle(mut self) -> impl Future<Output = ()> {
        async move {
            let connected = self.connected.clone();
            let made = connected.made;
            #[cfg(feature = "tokio-compat")]
            if self.settings.in_tokio {
                let serving = async_compat::Compat::new(Box::pin(self.serve()));
                return made.report(&connected.peer, serving).await;
            }
            made.report(&connected.peer, pin!(self.serve())).await;
        }
    }

    async fn serve(&mut self) -> Option<()> {
        #[cfg(feature = "_tls")]
        if let Some(acceptor) = self.tls.take() {
            let socket = self.socket.take()?;
            let (socket, shown) = self.shake_hands(socket, acceptor).await?;
            self.socket = Some(socket);
            let Connected { peer, made, believed, .. } = &*self.connected;
            let (peer, believed) = (peer.clone(), believed.clone());
            let connected = Connected { peer, tls: Some(shown), made: *made, believed };
            self.connected = Rc::new(connected);
        }
        let mut received = Bytes::new();
        // Until when the next bytes have to come.
        let mut due = after(now(), self.settings.idle);
        // Whether it has not been told yet which protocol this is. A connection does not change it later: what a
        // proxy in front takes for a request of HTTP/1 must not be another protocol here.
        let mut is_fresh = true;
        loop {
            // What was left of an HTTP/1 connection that had been idle is the beginning of a request.
            while received.is_empty() || (is_fresh && is_open(&received)) {
                let bytes = some_bytes(self.socket.as_mut()?, due, &self.serving.shared);
                let Some(bytes) = poll_fn(bytes).await else {
                    if !received.is_empty() && due.is_some_and(|due| now() >= due) {
                        self.serving.shared.complain(&self.connected.peer, &TOO_SLOW_HEAD);
                        refuse_slow(self.socket.as_mut()?).await;
                    }
                    return None;
                };
                if received.is_empty() {
                    received = bytes;
                    due = after(now(), self.settings.head);
                } else {
                    received = [&received[..], &bytes].concat().into();
                }
            }
            let asked = Asked {
                serving: self.serving.clone(),
                settings: self.settings.clone(),
                connected: self.connected.clone(),
                notes: Arc::default(),
            };
            let (socket, first) = (self.socket.take()?, std::mem::take(&mut received));
            #[cfg(feature = "http2")]
            if is_fresh && first.starts_with(PREFACE) {
                Box::pin(http2(socket, first, asked)).await;
                return Some(());
            }
            is_fresh = false;
            let parked = Box::pin(http1(socket, first, asked)).await?;
            due = after(parked.since, self.settings.idle);
            received = parked.received;
            self.socket = Some(parked.socket);
        }
    }
}

#[cfg(feature = "_tls")]
impl<A> Connection<A> {
    /// Comes to the end of a handshake; `None` if it has failed, or was not to be waited for any longer.
    async fn shake_hands(&self, socket: Socket, acceptor: TlsAcceptor) -> Option<Shaken> {
        let shared = &self.serving.shared;
        let mut shaking = over_tls(socket, acceptor);
        let shaken = poll_fn(|cx| match shaking.as_mut().poll(cx) {
            Poll::Ready(shaken) => Poll::Ready(Some(shaken)),
            Poll::Pending if shared.is_draining.get() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let failed = match shaken.await? {
            Ok(shaken) => return Some(shaken),
            Err(failed) => failed,
        };
        shared.complain(&self.connected.peer, &format_args!("no handshake: {failed}"));
        None
    }
}

/// Waits for bytes without a buffer; `None` if none will come, or not in time.
fn some_bytes<'a>(
    socket: &'a mut Socket,
    due: Option<Instant>,
    shared: &'a Shared,
) -> impl FnMut(&mut Context<'_>) -> Poll<Option<Bytes>> + 'a {
    let mut too_late = due.map(sleep_until);
    move |cx| {
        if let Poll::Ready(read) = socket.poll_read(cx, FIRST) {
            let bytes = read.ok().filter(|bytes| !bytes.is_empty());
            return Poll::Ready(bytes.map(|bytes| Bytes::copy_from_slice(&bytes)));
        }
        let is_late = too_late.as_mut().is_some_and(|late| Pin::new(late).poll(cx).is_ready());
        match is_late || shared.is_draining.get() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }
}

/// Whether these may be the first bytes of HTTP/2, or of HTTP/1.
fn is_open(received: &[u8]) -> bool {
    #[cfg(feature = "http2")]
    return received.len() < PREFACE.len() && PREFACE.starts_with(received);
    #[cfg(not(feature = "http2"))]
    return received.is_empty();
}

/// Serves HTTP/1 until the connection ends, or is idle: then it gives what is left.
///
/// What hyper has for the connection is made before the future, not in it: a future keeps what it was given beside
/// what it makes of that.
fn http1<A: Answer>(
    socket: Socket,
    received: Bytes,
    asked: Asked<A>,
) -> impl Future<Output = Option<Parked>> {
    let Asked { serving, settings, connected, notes } = &asked;
    let (shared, connected, notes) = (serving.shared.clone(), connected.clone(), notes.clone());
    let mut watch = Watch::new(settings.clone(), &shared.crowd);
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        // Otherwise hyper listens for the end while a request is answered: see `Wire`.
        .half_close(settings.finishes || socket.tells_end())
        .max_header_size(settings.head_size)
        .max_buf_size(settings.head_size.max(FIRST));
    let wire = Wire::new(socket, received, !settings.finishes, notes.clone());
    let answer = move |request| exchange(&asked, request);
    let mut connection = builder.serve_connection(wire, service_fn(answer)).with_upgrades();

    let mut is_told = false;
    async move {
        let end = poll_fn(|cx| {
            loop {
                if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Err(end));
                }
                if notes.has_hung_up() {
                    return Poll::Ready(Ok(Finding::HungUp));
                }
                if shared.is_draining.get() && !is_told {
                    is_told = true;
                    Pin::new(&mut connection).graceful_shutdown();
                    continue;
                }
                return watch.poll(cx, &notes).map(Ok);
            }
        })
        .await;
        let complain = |why: &dyn std::fmt::Display| shared.complain(&connected.peer, why);
        match end {
            Err(result) => {
                if let Some(error) = result.err().filter(misbehaves) {
                    complain(&error);
                }
                // If there are no parts, it was upgraded.
                let (socket, _) = connection.into_parts()?.io.into_parts();
                linger(socket, &notes).await;
                return None;
            }
            Ok(finding @ (Finding::Idle | Finding::SlowHead)) => {
                let parts = connection.into_parts()?;
                let (mut socket, rest) = parts.io.into_parts();
                // Copied, for it keeps the whole buffer that it is in; and mostly it is empty.
                let received = Bytes::from([parts.read_buf, rest].concat());
                // If there is nothing, what has come was the rest of a body that hyper has thrown away.
                if finding == Finding::Idle || received.is_empty() {
                    return Some(Parked { socket, received, since: watch.idle_since() });
                }
                complain(&TOO_SLOW_HEAD);
                refuse_slow(&mut socket).await;
            }
            Ok(Finding::Stalled) => complain(&"the client does not read its answer"),
            Ok(Finding::TooIdle | Finding::HungUp) => {}
        }
        None
    }
}

/// Tells a client that it sends the head of its request too slowly, and closes the connection.
async fn refuse_slow(socket: &mut Socket) {
    // One try: who sends so slowly need not be waited for.
    poll_fn(|cx| {
        if socket.poll_write(cx, TOO_SLOW).is_ready() {
            let _ = socket.poll_close(cx);
        }
        Poll::Ready(())
    })
    .await;
}

/// Serves HTTP/2 until the connection ends.
#[cfg(feature = "http2")]
async fn http2<A: Answer>(socket: Socket, received: Bytes, asked: Asked<A>) {
    let Asked { serving, settings, connected, notes } = &asked;
    let (shared, settings) = (serving.shared.clone(), settings.clone());
    let (connected, notes) = (connected.clone(), notes.clone());
    let mut builder = http2::Builder::new(settings.executor());
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(settings.head_size).unwrap_or(u32::MAX))
        .enable_connect_protocol();
    let wire = Wire::new(socket, received, false, notes.clone());
    let answer = move |request| exchange(&asked, request);
    let mut connection = builder.serve_connection(wire, service_fn(answer));

    let mut watch = Watch::new(settings, &shared.crowd);
    let mut is_told = false;
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Err(end));
            }
            // Nobody can tell which of the bytes that come begin a head.
            notes.forget_head();
            if shared.is_draining.get() && !is_told {
                is_told = true;
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            match std::task::ready!(watch.poll(cx, &notes)) {
                Finding::Idle => {}
                Finding::TooIdle if !is_told => {
                    is_told = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                finding => return Poll::Ready(Ok(finding)),
            }
        }
    })
    .await;
    let complain = |why: &dyn std::fmt::Display| shared.complain(&connected.peer, why);
    match end {
        Ok(Finding::Stalled) => complain(&"the client does not read its answers"),
        Err(Err(error)) if misbehaves(&error) => complain(&error),
        Ok(_) | Err(_) => {}
    }
}

/// Whether the client has broken the rules of the protocol, and not just hung up. What the user's own body has
/// failed with was reported already.
fn misbehaves(error: &::hyper::Error) -> bool {
    let is_io = error.source().is_some_and(|source| source.is::<io::Error>());
    !(is_io || error.is_user() || error.is_incomplete_message() || error.is_canceled())
}

/// After the last answer: reads what the client still sends, and throws it away. If the socket were closed with
/// bytes unread, the system would tell the client that the connection was reset, and the client might not
/// get to see the answer that says why (that its body is too large, say).
///
/// The client is told first that nothing more will come. hyper has not done that if a body has failed on the
/// way, and who waits for the rest of it would wait for as long as this takes.
async fn linger(mut socket: Socket, notes: &Notes) {
    if notes.has_ended() {
        return;
    }
    let mut too_long = sleep(LINGER);
    let mut left = LINGER_BYTES;
    let mut is_closed = false;
    poll_fn(|cx| {
        is_closed = is_closed || Pin::new(&mut socket).poll_close(cx).is_ready();
        while let Poll::Ready(read) = socket.poll_read(cx, left) {
            match read {
                Ok(bytes) if !bytes.is_empty() && bytes.len() < left => left -= bytes.len(),
                _ => return Poll::Ready(()),
            }
        }
        Pin::new(&mut too_long).poll(cx)
    })
    .await;
}
