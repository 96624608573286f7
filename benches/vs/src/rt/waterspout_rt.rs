//! waterspout, with a buffer of its own for each connection and with one lent by the loop; accepting by hand and by
//! its servers.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use waterspout::iostream::IoStream;
use waterspout::net::{TcpServer, TcpStream};
use waterspout::{IoLoop, coroutine};

use super::Runtime;
use crate::sync;
use crate::util::BUF;

#[waterspout::coroutine]
async fn conn(s: TcpStream) {
    let mut buf = [0u8; BUF];
    loop {
        match s.read(&mut buf).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if s.write_all(&buf[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[waterspout::coroutine]
async fn conn_lent(s: TcpStream) {
    loop {
        match s.read_lent().await {
            Ok(bytes) if !bytes.is_empty() => {
                if s.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Accepts by hand: one coroutine for each connection.
async fn by_hand<C>(l: TcpListener, conn: impl Fn(TcpStream) -> C) -> io::Result<()> {
    let l = waterspout::net::TcpListener::from_std(l)?;
    // The connections inherit it.
    l.set_nodelay(true)?;
    loop {
        let (s, _) = l.accept().await?;
        drop(conn(s));
    }
}

/// Accepts by a server, for ever.
async fn by_server(l: TcpListener, server: TcpServer) -> io::Result<()> {
    let l = waterspout::net::TcpListener::from_std(l)?;
    l.set_nodelay(true)?;
    server.add_listener(l);
    std::future::pending().await
}

/// What the handler of a server over bare streams does: as mio by hand has one buffer for all connections, it reads
/// into one that the loop lends.
async fn handle_bare(s: TcpStream) {
    while let Ok(bytes) = s.read_lent().await {
        if bytes.is_empty() || s.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// What the handler of a server over `IoStream`s does, with a buffer of its own as tokio's.
async fn handle_stream(s: IoStream<TcpStream>) {
    let mut buf = [0u8; BUF];
    while let Ok(n @ 1..) = s.read_some_into(&mut buf).await {
        if s.write(&buf[..n]).await.is_err() {
            return;
        }
    }
}

#[waterspout::coroutine]
async fn answer(i: u64) -> u64 {
    i
}

macro_rules! waterspout_impl {
    ($ty:ident, $doc:literal, |$l:ident| $echo:expr) => {
        #[doc = $doc]
        pub struct $ty;

        impl Runtime for $ty {
            const TIME_LIMIT: bool = true;
            const CALL: bool = true;

            type Lock = waterspout::locks::Lock;
            type Queue = waterspout::queues::Queue<u64>;
            type Channel = sync::Waterspout;

            fn block_on<F>(f: F) -> F::Output
            where
                F: Future + 'static,
                F::Output: 'static,
            {
                IoLoop::new().unwrap().run_sync(|| f).unwrap()
            }

            fn spawn<F>(f: F) -> impl Future<Output = F::Output> + 'static
            where
                F: Future + 'static,
                F::Output: 'static,
            {
                coroutine::spawn(f)
            }

            fn call(i: u64) -> impl Future<Output = u64> + 'static {
                answer(i)
            }

            fn yield_now() -> impl Future<Output = ()> {
                coroutine::moment()
            }

            fn sleep(d: Duration) -> impl Future<Output = ()> + 'static {
                coroutine::sleep(d)
            }

            async fn with_timeout<F: Future + 'static>(d: Duration, f: F) -> Option<F::Output> {
                coroutine::with_timeout(d, f).await.ok()
            }

            async fn echo($l: TcpListener) -> io::Result<()> {
                $echo.await
            }
        }
    };
}

waterspout_impl!(Own, "a buffer in each connection's coroutine", |l| by_hand(l, conn));
waterspout_impl!(Lent, "`read_lent`: a connection that waits owns no buffer", |l| by_hand(
    l, conn_lent
));
waterspout_impl!(Bare, "`TcpServer::bare`, with a lent buffer", |l| {
    by_server(l, TcpServer::bare(async |s, _| handle_bare(s).await))
});
waterspout_impl!(Server, "`TcpServer`, whose handlers get an `IoStream`", |l| {
    by_server(l, TcpServer::new(async |s, _| handle_stream(s).await))
});
