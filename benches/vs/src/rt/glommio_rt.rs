//! glommio: io_uring only. Its `spawn_local` runs the task at once, inside the call;
//! `spawn_local_into` queues it, as the other runtimes' spawn does.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use glommio::{LocalExecutorBuilder, Placement};

use super::Runtime;
use crate::sync;
use crate::util::BUF;

async fn conn(mut s: TcpStream) {
    let _ = s.set_nodelay(true);
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

fn queued<F>(f: F) -> glommio::Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    glommio::spawn_local_into(f, glommio::executor().current_task_queue()).unwrap()
}

macro_rules! glommio_impl {
    ($ty:ident, $doc:literal, $call:literal, $spawn:path) => {
        #[doc = $doc]
        pub struct $ty;

        impl Runtime for $ty {
            const TIME_LIMIT: bool = true;
            const CALL: bool = $call;

            type Lock = glommio::sync::Semaphore;
            type Queue = sync::GlommioLocal;
            type Channel = sync::GlommioShared;

            fn block_on<F>(f: F) -> F::Output
            where
                F: Future + 'static,
                F::Output: 'static,
            {
                LocalExecutorBuilder::new(Placement::Unbound).make().unwrap().run(f)
            }

            fn spawn<F>(f: F) -> impl Future<Output = F::Output> + 'static
            where
                F: Future + 'static,
                F::Output: 'static,
            {
                $spawn(f)
            }

            fn call(i: u64) -> impl Future<Output = u64> + 'static {
                $spawn(async move { i })
            }

            async fn yield_now() {
                glommio::executor().yield_now().await
            }

            async fn sleep(d: Duration) {
                glommio::timer::sleep(d).await;
            }

            async fn with_timeout<F: Future + 'static>(d: Duration, f: F) -> Option<F::Output> {
                glommio::timer::timeout(d, async { Ok(f.await) }).await.ok()
            }

            async fn echo(l: TcpListener) -> io::Result<()> {
                // SAFETY: the descriptor is a listening socket that we own.
                let l = unsafe { glommio::net::TcpListener::from_raw_fd(l.into_raw_fd()) };
                loop {
                    let s = l.accept().await.map_err(|e| io::Error::other(e.to_string()))?;
                    $spawn(conn(s)).detach();
                }
            }
        }
    };
}

glommio_impl!(Eager, "`spawn_local`", true, glommio::spawn_local);
glommio_impl!(Queued, "`spawn_local_into` the current queue", false, queued);
