//! quinn's QUIC on a loop.
//!
//! quinn asks its `Runtime` for three things: somebody who runs its futures, timers, and UDP sockets. An
//! endpoint is one coroutine that receives, and each of its connections is one that sends. All of them run
//! on the loop where [`OnLoop::current`] was called. What users hold (`Endpoint`, `Connection`, the streams)
//! only talks to these, so it may be used on any thread.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{self, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use waterspout::coroutine::{Sleep, now, sleep_until, spawn};
use waterspout::net::AsyncFd;
use waterspout::{IoLoop, LoopHandle};

/// The loop that runs an endpoint.
///
/// The socket belongs to the loop that is current when quinn gets it. So make the endpoint on its own loop, and
/// call `rebind` only there: with the socket of another loop, all its connections end.
#[derive(Debug)]
pub struct OnLoop(LoopHandle);

impl OnLoop {
    pub fn current() -> Arc<OnLoop> {
        Arc::new(OnLoop(IoLoop::current().handle()))
    }
}

impl Runtime for OnLoop {
    fn new_timer(&self, when: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(sleep_until(when)))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // By the handle, since whoever connects may be on another thread or loop. On a closed loop, the
        // future is dropped here, and quinn says that the endpoint is stopping.
        let _ = self.0.add_callback(|| drop(spawn(future)));
    }

    fn wrap_udp_socket(&self, socket: net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Socket { fd: AsyncFd::new(socket)?, state }))
    }

    fn now(&self) -> Instant {
        now()
    }
}

#[derive(Debug)]
struct Timer(Sleep);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, when: Instant) {
        self.0.reset(when);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

#[derive(Debug)]
struct Socket {
    fd: AsyncFd<net::UdpSocket>,
    /// What the system can do: several datagrams by one call, and marks of congestion.
    state: UdpSocketState,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, waiting: Mutex::new(None) })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.fd.try_write_with(|socket| self.state.send(socket.into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.fd.poll_read_with(cx, |socket| self.state.recv(socket.into(), bufs, meta))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits until there is room to send. Each connection has one, and all of one endpoint may wait at once: so
/// it is a future, and not a poll function, which wakes only the last who called it.
struct Room {
    socket: Arc<Socket>,
    /// Never locked: quinn wants this `Sync`, but uses it by `&mut` only.
    waiting: Mutex<Option<BoxFuture<'static, io::Result<()>>>>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Room { socket, waiting } = &mut *self;
        let waiting = waiting.get_mut().unwrap();
        let wait = || {
            let socket = socket.clone();
            async move { socket.fd.writable().await }.boxed()
        };
        let result = ready!(waiting.get_or_insert_with(wait).as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.socket).finish()
    }
}
