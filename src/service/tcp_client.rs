//! `TcpClient`: connects to a host by its name, at whichever of its addresses answers first.
//!
//! A name may have addresses of both families, and one family may be broken without saying so. As
//! RFC 8305 demands, attempts alternate between the families. The next attempt starts when one has
//! failed, or a quarter of a second after the last one started. The first attempt that succeeds wins, and
//! the others are dropped, which closes their sockets.

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
/// saying so. So a client connects as RFC 8305, "Happy Eyeballs", describes:
///
/// * The addresses are tried in the [`Resolver`]'s order, except that they alternate between the families,
///   beginning with the family of the first address.
/// * The next attempt starts as soon as one has failed, or 250 ms after the last one started; those under way
///   go on beside it. (Tornado: 300 ms, and at most two attempts at once.)
/// * The first attempt that succeeds wins. The others are dropped, which closes their sockets.
/// * If all fail, the error is that of the attempt that failed last.
///
/// All addresses are looked up before the first attempt. A name that is a numeric address is not looked up.
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
/// The future of [`connect`](TcpClient::connect) is `Send` if the resolver's futures are, as those of
/// [`ThreadedResolver`] are.
#[derive(Clone)]
pub struct TcpClient<R = ThreadedResolver> {
    resolver: R,
    source: Option<SocketAddr>,
    timeout: Option<Duration>,
}

impl TcpClient {
    /// A client that asks the system for addresses, and has no time limit but that of the system.
    pub fn new() -> TcpClient {
        TcpClient { resolver: ThreadedResolver, source: None, timeout: None }
    }
}

impl<R: Resolver> TcpClient<R> {
    /// Looks names up by `resolver`. (To share one between several clients, put it into an [`Rc`].)
    ///
    /// [`Rc`]: std::rc::Rc
    #[must_use]
    pub fn resolver<N: Resolver>(self, resolver: N) -> TcpClient<N> {
        TcpClient { resolver, source: self.source, timeout: self.timeout }
    }

    /// Connects from this address of the machine; port 0 stands for any port. Addresses of the other family
    /// are not tried.
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> TcpClient<R> {
        self.source = Some(source);
        self
    }

    /// Gives up after this long. The time limit covers both looking the name up and connecting.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> TcpClient<R> {
        self.timeout = Some(timeout);
        self
    }

    /// Connects to the first address of `host` that answers. The stream sends small writes at once; to have
    /// Nagle's algorithm, call [`set_nodelay(false)`](TcpStream::set_nodelay) on it.
    ///
    /// Cancel safe: dropping the future closes the sockets of all attempts. So does the time limit.
    ///
    /// # Errors
    ///
    /// The error of the attempt that failed last, or of looking the name up; `TimedOut` after the time limit;
    /// `AddrNotAvailable` if there is no address to try.
    #[track_caller]
    pub fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> impl FusedFuture<Output = io::Result<TcpStream>> {
        resumption::here(self.in_time(host, port, self.first_of(host, port)))
    }

    /// A connection to the first address of `host` that answers, whenever that is.
    pub(super) async fn first_of(&self, host: &str, port: u16) -> io::Result<TcpStream> {
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
    }

    /// What `connecting` gives within the time limit, if there is one.
    pub(super) async fn in_time<T>(
        &self,
        host: &str,
        port: u16,
        connecting: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
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

/// Puts the addresses into the order in which they are tried: one of each family by turns, beginning with the
/// family of the first address. Within a family the order stays.
fn alternating(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv4) else { return VecDeque::new() };
    let (ours, others): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first);
    let longest = ours.len().max(others.len());
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    (0..longest).flat_map(|_| [ours.next(), others.next()]).flatten().collect()
}

/// Starts an attempt at one address after the other, each with a head start of [`ATTEMPT_DELAY`], until one
/// connects.
async fn first_to_connect<T, F: Future<Output = io::Result<T>>>(
    mut addresses: VecDeque<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
    while let Some(address) = addresses.pop_front() {
        attempts.push(connect(address));
        // Waits until this attempt, or one before it, has succeeded or failed, or the head start is over.
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

    /// Connects to nothing. The last part of the address, times 10 ms, is how long that takes; it succeeds if
    /// the port is even, and fails if it is odd.
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

    /// Gives the address that won, how long that took (in ms), and when each address was tried (in ms).
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
