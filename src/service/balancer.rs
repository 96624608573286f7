//! `Balancer`: evens out the connections of servers that belong to several loops.
//!
//! Servers that join a balancer have a *place* in its table, with the number of their connections. A server that
//! has accepted one looks there. If another server has at least two fewer, the connection is taken off this loop,
//! and put into the *mail* of the other server, whose loop takes it up. Looking, choosing and counting happen under
//! one lock, so servers that accept at the same moment do not all choose the same one.
//!
//! The counts differ by two at most and not by one. That halves the connections that have to be handed over, each
//! of which costs some system calls and a wake-up of the other thread.
//!
//! Mail is never lost while there is a server to serve it. A server that stops serves its mail itself. If it is
//! dropped, or its loop is closed, the mail goes on to the others. A connection that cannot be handed over stays
//! where it was accepted.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::listener::Listener;
use crate::ground::foreign;
use crate::ground::slots::{Key, Slots};
use crate::ground::wait_queue::wake;
use crate::ioloop::{IoLoop, LoopId, is_closed, with_current};

/// So many connections may be in a server's mail. A loop that has not taken them up is busy, and gets no more.
const ROOM: usize = 64;

/// Evens out the connections of servers that belong to several loops, as those of
/// [`Workers`](crate::process::Workers) do. It is shared by them: cheap to clone, `Send` and `Sync`.
///
/// Where each loop has a listener of its own on one port (`SO_REUSEPORT`), the system divides the connections by a
/// hash of their addresses. That evens out in the long run, but of 64 connections one of two loops may get 42. With a
/// balancer, a server that accepts a connection hands it over if another one has at least two fewer. So, as
/// long as none has ended, the numbers of no two servers differ by more than two.
///
/// It is for connections that live long. It counts connections, and not what they do; and to hand one over costs
/// about as much as to accept it again. The system's division costs nothing, and is as good for many short ones.
///
/// All servers of a balancer have to do the same with a connection, since any of them may get it. (Of the servers of
/// two ports, each port's have a balancer of their own.)
///
/// A server that listens nowhere gets connections, too. So one loop may accept for all, for instance where the
/// system does not divide the connections of a port (macOS).
///
/// * **Latency.** A connection that is handed over begins with the next turn of the other loop. A loop that is
///   busy gets no more when 64 wait to be taken up.
/// * **Order.** Connections of one client may be handled in another order than that in which they were made, as
///   is so without a balancer wherever loops share a port.
/// * **Limits.** A server that has as many connections as
///   [`max_connections`](super::Server::max_connections) allows gets no more. If all have, a connection waits
///   for a place, in the backlog of a listener or where it was handed to.
/// * **Ends.** A server that is stopped (or drained) serves what was handed over to it before. What was handed to one
///   that is dropped, or whose worker has failed, goes on to the others.
///
/// ```
/// use std::time::Duration;
/// use waterspout::net::{Balancer, BindOptions, TcpServer};
/// use waterspout::process::{Worker, Workers};
///
/// let balancer = Balancer::new();
/// let serve = async move |worker: Worker| {
///     let server = TcpServer::new(async |stream, _peer| stream.write("hello\n").await);
///     server.balance(&balancer)?;
///     # if true { return Ok(()); }
///     server.listen_with(8888, &BindOptions { reuse_port: true, ..Default::default() })?;
///     worker.stop().cancelled().await;
///     server.drain(Duration::from_secs(10)).await;
///     Ok::<(), std::io::Error>(())
/// };
/// Workers::new().count(2).run(serve)?;
/// # Ok::<(), waterspout::process::WorkersError>(())
/// ```
#[derive(Clone)]
pub struct Balancer {
    places: Arc<Mutex<Slots<Place>>>,
}

/// What a balancer knows of a server.
struct Place {
    /// How many connections it has, with those in its mail.
    connections: usize,
    /// How many it may have.
    most: usize,
    mail: VecDeque<Handed>,
    /// Of the coroutine that waits for mail.
    waker: Option<Waker>,
}

/// A connection on its way to another loop.
pub(super) struct Handed {
    pub(super) socket: net::TcpStream,
    pub(super) peer: SocketAddr,
}

impl Balancer {
    /// A balancer that no server has joined.
    pub fn new() -> Balancer {
        Balancer { places: Arc::new(Mutex::new(Slots::new())) }
    }

    /// How many connections each server has, with those that were handed over to it and wait to be taken up.
    pub fn connections(&self) -> Vec<usize> {
        self.lock().iter().map(|(_, place)| place.connections).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slots<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of a server is over, or was never served.
    fn uncount(&self, key: Key) {
        if let Some(place) = self.lock().get_mut(key) {
            place.connections = place.connections.saturating_sub(1);
        }
    }

    /// Ends a place, and gives the mail that was there.
    fn remove(&self, key: Key) -> VecDeque<Handed> {
        let Some(place) = self.lock().remove(key) else { return VecDeque::new() };
        foreign::discard(place.waker);
        place.mail
    }

    /// Puts a connection into the mail of a server, which counts it already. Gives it back if that server has left
    /// meanwhile.
    fn post(&self, to: Key, handed: Handed) -> Result<(), Handed> {
        let waker = match self.lock().get_mut(to) {
            Some(place) => {
                place.mail.push_back(handed);
                place.waker.take()
            }
            None => return Err(handed),
        };
        wake(waker);
        Ok(())
    }
}

impl Default for Balancer {
    fn default() -> Balancer {
        Balancer::new()
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer").field("connections", &self.connections()).finish()
    }
}

/// A server's place at a balancer. `S` and `A` are what the server's listeners give.
pub(super) struct Seat<S, A> {
    balancer: Balancer,
    key: Key,
    /// The server's loop.
    id: LoopId,
    /// Takes a connection off its loop, so that it can be handed over.
    let_go: fn(S, A) -> io::Result<Handed>,
    /// Makes it one of the current loop.
    take_up: fn(Handed) -> io::Result<(S, A)>,
}

impl<S, A> Clone for Seat<S, A> {
    fn clone(&self) -> Seat<S, A> {
        Seat { balancer: self.balancer.clone(), ..*self }
    }
}

impl<S, A> Seat<S, A> {
    /// A place for a server that may have `most` connections.
    ///
    /// # Errors
    ///
    /// If there are as many servers as a table can hold.
    pub(super) fn new(
        balancer: &Balancer,
        most: usize,
        let_go: fn(S, A) -> io::Result<Handed>,
        take_up: fn(Handed) -> io::Result<(S, A)>,
    ) -> io::Result<Seat<S, A>> {
        let id = IoLoop::current().core().id();
        let place = Place { connections: 0, most, mail: VecDeque::new(), waker: None };
        let key = balancer.lock().insert(place);
        let key = key.map_err(|_| io::Error::other("a balancer has as many servers as it can"))?;
        Ok(Seat { balancer: balancer.clone(), key, id, let_go, take_up })
    }

    /// Says how many connections the server may have from now on.
    pub(super) fn set_most(&self, most: usize) {
        if let Some(place) = self.balancer.lock().get_mut(self.key) {
            place.most = most;
        }
    }

    /// Counts a connection that this server has accepted, either here or where it is handed over to: that is
    /// what this gives.
    fn choose(&self) -> Option<Key> {
        let mut places = self.balancer.lock();
        let own = places.get(self.key)?.connections;
        let others = places.iter().filter(|(key, place)| {
            *key != self.key && place.mail.len() < ROOM && place.connections < place.most
        });
        let fewest = others.min_by_key(|(_, place)| place.connections);
        let other = fewest.filter(|(_, place)| place.connections + 2 <= own).map(|(key, _)| key);
        places.get_mut(other.unwrap_or(self.key))?.connections += 1;
        other
    }

    /// Hands a connection over that this server has accepted, if another one has fewer. Gives it back if it is to be
    /// served here.
    ///
    /// # Errors
    ///
    /// What the system says, if it can neither be handed over nor be kept. It is closed then.
    pub(super) fn hand_over(&self, stream: S, peer: A) -> io::Result<Option<(S, A)>> {
        let Some(other) = self.choose() else { return Ok(Some((stream, peer))) };
        let posted = match (self.let_go)(stream, peer) {
            Ok(handed) => self.balancer.post(other, handed),
            Err(error) => {
                self.balancer.uncount(other);
                return Err(error);
            }
        };
        let Err(handed) = posted else { return Ok(None) };
        if let Some(place) = self.balancer.lock().get_mut(self.key) {
            place.connections += 1;
        }
        let taken_up = (self.take_up)(handed);
        if taken_up.is_err() {
            self.balancer.uncount(self.key);
        }
        taken_up.map(Some)
    }

    /// Stands for a connection that is counted here, for as long as it lasts.
    pub(super) fn counted(&self) -> Counted {
        Counted { balancer: self.balancer.clone(), key: self.key }
    }

    fn poll_mail(&self, cx: &Context<'_>) -> Poll<Handed> {
        // Cloning and dropping a waker may run foreign code, so it is done while the lock is not held.
        let mut waker = Some(cx.waker().clone());
        let handed = match self.balancer.lock().get_mut(self.key) {
            Some(place) => {
                let handed = place.mail.pop_front();
                if handed.is_none() {
                    std::mem::swap(&mut place.waker, &mut waker);
                }
                handed
            }
            None => None,
        };
        foreign::discard(waker);
        handed.map_or(Poll::Pending, Poll::Ready)
    }

    /// Gives up the place, and what is in its mail, to be served by this server. If that is not possible, since its
    /// loop is closed or is not the current one, the others get it.
    pub(super) fn leave(&self) -> Vec<(S, A)> {
        if with_current(|core| core.id()) != Some(self.id) || is_closed(self.id) {
            self.pass_on();
        }
        self.balancer
            .remove(self.key)
            .into_iter()
            .filter_map(|mail| (self.take_up)(mail).ok())
            .collect()
    }

    /// Gives up the place. What is in its mail goes to the others, to each time the one that has the fewest
    /// connections. If there is none, it is closed.
    pub(super) fn pass_on(&self) {
        for mut handed in self.balancer.remove(self.key) {
            loop {
                let mut places = self.balancer.lock();
                let fewest = places.iter().min_by_key(|(_, place)| place.connections);
                let Some((other, _)) = fewest else { break };
                if let Some(place) = places.get_mut(other) {
                    place.connections += 1;
                }
                drop(places);
                match self.balancer.post(other, handed) {
                    Ok(()) => break,
                    Err(back) => handed = back,
                }
            }
        }
    }
}

/// A connection that is counted at a balancer, until this is dropped.
pub(super) struct Counted {
    balancer: Balancer,
    key: Key,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.balancer.uncount(self.key);
    }
}

/// Gives what others hand over to a server. When it is dropped, what it has not given goes to the others.
pub(super) struct Mail<S, A>(pub(super) Seat<S, A>);

impl<S: 'static, A: Clone + fmt::Debug + 'static> Listener for Mail<S, A> {
    type Stream = S;
    type Address = A;

    async fn accept(&self) -> io::Result<(S, A)> {
        let handed = poll_fn(|cx| self.0.poll_mail(cx)).await;
        let taken_up = (self.0.take_up)(handed);
        if taken_up.is_err() {
            self.0.balancer.uncount(self.0.key);
        }
        taken_up
    }

    fn local_address(&self) -> io::Result<A> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl<S, A> Drop for Mail<S, A> {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}
