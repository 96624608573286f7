//! hyper on each runtime, put together by hand as hyper's documentation shows it.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(super::BODY.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

async fn connection<I: Read + Write + Unpin>(http: Builder, io: I) {
    // Why a connection has ended is nobody's business here.
    let _ = http.serve_connection(io, service_fn(hello)).await;
}

pub(super) async fn waterspout(listener: TcpListener) -> io::Result<()> {
    let server = waterspout::net::TcpServer::bare(async |stream, _peer| {
        connection(Builder::new(), waterspout::hyper::Io::new(stream)).await;
    });
    server.add_sockets([listener])?;
    std::future::pending().await
}

/// hyper's users give it a timer, by which the head of a request has to be read within 30 seconds.
pub(super) async fn tokio(listener: TcpListener) -> io::Result<()> {
    let mut http = Builder::new();
    http.timer(TokioTimer::new());
    on_tokio(listener, http).await
}

/// Without a timer, hyper has no time limit.
pub(super) async fn tokio_without_timer(listener: TcpListener) -> io::Result<()> {
    on_tokio(listener, Builder::new()).await
}

async fn on_tokio(listener: TcpListener, http: Builder) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        drop(tokio::task::spawn_local(connection(http.clone(), TokioIo::new(stream))));
    }
}

pub(super) async fn smol(listener: TcpListener) -> io::Result<()> {
    let listener = async_io::Async::new(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.get_ref().set_nodelay(true)?;
        let io = smol_hyper::rt::FuturesIo::new(stream);
        crate::rt::smol_rt::EX
            .with(|executor| executor.spawn(connection(Builder::new(), io)).detach());
    }
}

#[cfg(feature = "http-peers")]
pub(super) async fn monoio(listener: TcpListener) -> io::Result<()> {
    use monoio::io::IntoPollIo;
    let listener = monoio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let io = monoio_compat::hyper::MonoioIo::new(stream.into_poll_io()?);
        drop(monoio::spawn(connection(Builder::new(), io)));
    }
}
