//! hickory's DNS look-ups on the current loop, and as a `Resolver` of this crate.
//!
//! hickory asks its `RuntimeProvider` for somebody who runs its futures, timers, and sockets. Its traits and
//! our sockets are both from elsewhere, so the sockets get types of their own here, which hand on every call.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::io::{AsyncRead, AsyncWrite};
use hickory_resolver::Resolver;
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};
use waterspout::coroutine::{sleep, spawn, with_timeout};
use waterspout::net::{self, TcpClient, TcpStream, UdpSocket};

/// The current loop. A resolver keeps connections, so each loop should have one of its own.
#[derive(Clone, Copy, Debug)]
pub struct OnLoop;

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for OnLoop {
    type Handle = OnLoop;
    type Timer = OnLoop;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> OnLoop {
        OnLoop
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        source: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Boxed<Tcp> {
        let mut client = TcpClient::new().timeout(limit.unwrap_or(Duration::from_secs(5)));
        if let Some(source) = source {
            client = client.source(source);
        }
        Box::pin(
            async move { Ok(Tcp(client.connect(&server.ip().to_string(), server.port()).await?)) },
        )
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Boxed<Udp> {
        Box::pin(async move { Ok(Udp(UdpSocket::bind(local).await?)) })
    }
}

impl Spawn for OnLoop {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        drop(spawn(future));
    }
}

#[async_trait]
impl Time for OnLoop {
    async fn delay_for(duration: Duration) {
        sleep(duration).await;
    }

    async fn timeout<F: Future + Send + 'static>(
        duration: Duration,
        future: F,
    ) -> io::Result<F::Output> {
        Ok(with_timeout(duration, future).await?)
    }
}

pub struct Udp(UdpSocket);

impl DnsUdpSocket for Udp {
    type Time = OnLoop;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.0.poll_recv_from(cx, buf)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send_to(cx, buf, target)
    }
}

pub struct Tcp(TcpStream);

impl DnsTcpStream for Tcp {
    type Time = OnLoop;
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// What a [`TcpClient`] looks names up by: `TcpClient::new().resolver(Hickory(resolver))`.
#[derive(Clone)]
pub struct Hickory(pub Resolver<OnLoop>);

impl net::Resolver for Hickory {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = self.0.lookup_ip(host).await.map_err(io::Error::other)?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}
