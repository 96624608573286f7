//! `TcpClient`: connecting to a name, by the address that answers first.
//!
//! A name may have addresses of both families, and one family may be broken without saying so. As
//! RFC 8305 has it, attempts alternate between the families; the next one starts when the last has
//! failed, or after a quarter of a second, and the first to succeed wins. The others are dropped,
//! which closes them.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::FusedFuture;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};

use crate::coroutine::{sleep, with_timeout};
use crate::ground::error::TimedOut;
use crate::ground::resumption;
use crate::sockets::{Resolver, TcpStream, ThreadedResolver, resolve_with};

/// How long an attempt has before the next one starts beside it: RFC 8305's "Connection Attempt
/// Delay". (Tornado's is 300 ms.)
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to hosts by name. Tornado: `TCPClient`.
///
/// A name may have several addresses, often of both families, and one family may be broken without
/// saying so. So it connects as RFC 8305, "Happy Eyeballs", has it:
///
/// * The addresses are tried in the [`Resolver`]'s order, but alternate between the families, beginning
///   with that of the first.
/// * The next attempt starts as soon as one has failed, and beside those under way when the last was
///   given 250 ms. (Tornado: 300 ms, and two attempts at once at most.)
/// * The first to succeed wins. The others are dropped, which closes their sockets.
/// * If all fail, the error is that of the last to do so.
///
/// All addresses are looked up before the first attempt. A name that is an address is not looked up.
///
/// ```
/// use std::time::Duration;
/// use waterspout::{IoLoop, net::{TcpClient, TcpListener}};
///
/// # IoLoop::new()?.run_sync(|| async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpClient::new().timeout(Duration::from_secs(5));
/// let stream = client.connect("localhost", listener.local_addr()?.port()).await?;
/// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The futures of [`connect`](TcpClient::connect) are `Send` if those of the resolver are, which
/// [`ThreadedResolver`]'s are.
#[derive(Clone)]
pub struct TcpClient<R = ThreadedResolver> {
    resolver: R,
    source: Option<SocketAddr>,
    timeout: Option<Duration>,
}

impl TcpClient {
    /// A client that asks the system for addresses and has no time limit but the system's.
    pub fn new() -> TcpClient {
        TcpClient { resolver: ThreadedResolver, source: None, timeout: None }
    }
}

impl<R: Resolver> TcpClient<R> {
    /// Finds addresses in another way. (A resolver that several clients share is in an [`Rc`].)
    ///
    /// [`Rc`]: std::rc::Rc
    #[must_use]
    pub fn resolver<N: Resolver>(self, resolver: N) -> TcpClient<N> {
        TcpClient { resolver, source: self.source, timeout: self.timeout }
    }

    /// Connects from this address; port 0 is any. Addresses of the other family are not tried.
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> TcpClient<R> {
        self.source = Some(source);
        self
    }

    /// Gives up after this long, which covers finding the address and connecting.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> TcpClient<R> {
        self.timeout = Some(timeout);
        self
    }

    /// Connects to the first address of `host` that answers. The stream sends small writes at once; for
    /// Nagle's algorithm, [`set_nodelay(false)`](TcpStream::set_nodelay) on it.
    ///
    /// Cancel safe: dropping it closes all attempts. So does the time limit.
    ///
    /// # Errors
    ///
    /// Of the last attempt that failed, or of finding an address; `TimedOut` after the time limit.
    #[track_caller]
    pub fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> impl FusedFuture<Output = io::Result<TcpStream>> {
        resumption::here(self.connect_to(host, port))
    }

    async fn connect_to(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let connecting = async {
            let mut addresses = resolve_with(&self.resolver, host, port).await?;
            if let Some(source) = self.source {
                addresses.retain(|address| address.is_ipv4() == source.is_ipv4());
                if addresses.is_empty() {
                    let message = format!("{host} has no address of the family of {source}");
                    return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
                }
            }
            let connect = |address| TcpStream::connect_from(self.source, address);
            first_to_connect(alternating(addresses), connect).await
        };
        match self.timeout {
            None => connecting.await,
            Some(timeout) => with_timeout(timeout, connecting).await.unwrap_or_else(|TimedOut| {
                let message = format!("connecting to {host}:{port} took longer than {timeout:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }),
        }
    }
}

impl Default for TcpClient {
    fn default() -> TcpClient {
        TcpClient::new()
    }
}

impl<R> fmt::Debug for TcpClient<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpClient")
            .field("source", &self.source)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The families by turns, beginning with that of the first; each in its order.
fn alternating(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv4) else { return VecDeque::new() };
    let (ours, others): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first);
    let longest = ours.len().max(others.len());
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    (0..longest).flat_map(|_| [ours.next(), others.next()]).flatten().collect()
}

/// Tries one address after the other, each with a head start, until one connects.
async fn first_to_connect<T, F: Future<Output = io::Result<T>>>(
    mut addresses: VecDeque<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
    while let Some(address) = addresses.pop_front() {
        attempts.push(connect(address));
        // Until this attempt, or one before it, has succeeded or failed, or its head start is over.
        match select(attempts.next(), sleep(ATTEMPT_DELAY)).await {
            Either::Left((Some(Ok(stream)), _)) => return Ok(stream),
            Either::Left((Some(Err(error)), _)) => last = error,
            Either::Left((None, _)) | Either::Right(_) => {}
        }
    }
    while let Some(result) = attempts.next().await {
        match result {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioloop::IoLoop;
    use std::cell::RefCell;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|address| address.parse().unwrap()).collect()
    }

    /// What the address does: the last part of it is the number of 10 ms that it takes, an even port
    /// succeeds.
    async fn fake(address: SocketAddr) -> io::Result<SocketAddr> {
        let delay = match address {
            SocketAddr::V4(address) => u64::from(address.ip().octets()[3]),
            SocketAddr::V6(address) => u64::from(address.ip().segments()[7]),
        };
        sleep(Duration::from_millis(10 * delay)).await;
        if address.port() % 2 == 0 {
            Ok(address)
        } else {
            Err(io::Error::other(address.to_string()))
        }
    }

    /// Which address wins, when, and which were tried when (in ms).
    fn race(text: &str) -> (Result<String, String>, u128, Vec<(u128, String)>) {
        let io_loop = IoLoop::builder().virtual_time().build().unwrap();
        let begun = io_loop.time();
        let tried = RefCell::new(Vec::new());
        let result = io_loop.run_sync(|| {
            first_to_connect(alternating(addresses(text)), |address| {
                let at = IoLoop::current().time() - begun;
                tried.borrow_mut().push((at.as_millis(), address.to_string()));
                fake(address)
            })
        });
        let result = result.unwrap();
        let took = (io_loop.time() - begun).as_millis();
        let result = result.map(|winner| winner.to_string()).map_err(|error| error.to_string());
        (result, took, tried.into_inner())
    }

    #[test]
    fn families_alternate_beginning_with_the_first() {
        let mixed = addresses("[::1]:2 [::2]:2 1.1.1.1:2 [::3]:2 1.1.1.2:2");
        let order: Vec<_> = alternating(mixed).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["[::1]:2", "1.1.1.1:2", "[::2]:2", "1.1.1.2:2", "[::3]:2"]);
        assert!(alternating(Vec::new()).is_empty());
    }

    #[test]
    fn an_address_that_answers_in_time_is_the_only_one_tried() {
        let (winner, took, tried) = race("[::14]:2 1.1.1.1:2");
        assert_eq!((winner.unwrap().as_str(), took), ("[::14]:2", 200));
        assert_eq!(tried.len(), 1);
    }

    #[test]
    fn the_next_address_is_tried_at_once_after_a_failure() {
        let (winner, took, tried) = race("[::5]:1 1.1.1.5:1 [::6]:2");
        assert_eq!((winner.unwrap().as_str(), took), ("[::6]:2", 160));
        let times: Vec<_> = tried.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 50, 100]);
    }

    #[test]
    fn a_silent_address_gets_company_after_its_head_start_and_the_first_to_answer_wins() {
        let (winner, took, tried) = race("[::ff]:2 1.1.1.10:2");
        assert_eq!((winner.unwrap().as_str(), took), ("1.1.1.10:2", 350));
        let times: Vec<_> = tried.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 250]);
        // The late one may still be the first to answer.
        let (winner, took, _) = race("[::1e]:2 1.1.1.100:2");
        assert_eq!((winner.unwrap().as_str(), took), ("[::1e]:2", 300));
    }

    #[test]
    fn if_all_fail_the_error_is_the_last_one() {
        let (winner, took, tried) = race("[::1]:1 1.1.1.2:1");
        assert_eq!((winner.unwrap_err().as_str(), took, tried.len()), ("1.1.1.2:1", 30, 2));
    }
}
