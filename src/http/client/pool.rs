//! `Pool`: the connections of a client, those in use and those that are kept for the next request.
//!
//! A `Lease` is the use of a connection for one exchange. If it is dropped before that is over, the connection
//! of HTTP/1 is closed, since nothing else would stop the server.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::mem;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use ::http::{Request, Response};
use ::hyper::body::Incoming as WireBody;

#[cfg(feature = "http2")]
use super::connection::{Exchange, Http2};
use super::connection::{Failed, Http1};
use super::error::FetchError;
use super::settings::Making;
use super::stream::{Route, connect};
use crate::coroutine::{CancelHandle, TaskGroup, moment, now, sleep_until, with_timeout};
use crate::ground::error::TimedOut;
use crate::http::body::Body;
use crate::locks::{Permit, Semaphore};

/// Of how many origins it is remembered that they do not speak HTTP/2.
const REMEMBERED: usize = 1000;

pub(super) struct Pool {
    making: Making,
    /// Who may fetch at the same time.
    clients: RefCell<Semaphore>,
    limits: Cell<Limits>,
    /// Connections of HTTP/1 that nobody uses: the longest first.
    idle: RefCell<Vec<Idle>>,
    #[cfg(feature = "http2")]
    shared: RefCell<Vec<(Route, Rc<Http2>)>>,
    /// Who connects to an origin that may speak HTTP/2, others wait for: then they may share the connection.
    asking: RefCell<HashMap<Route, Semaphore>>,
    http1_only: RefCell<HashSet<Route>>,
    leases: Cell<usize>,
    /// hyper's side of all connections, and the sweeper. They end with the pool.
    group: Rc<TaskGroup>,
    sweeper: RefCell<Option<CancelHandle>>,
    is_closed: Cell<bool>,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) clients: usize,
    pub(super) idle_per_origin: usize,
    pub(super) idle_timeout: Duration,
}

struct Idle {
    route: Route,
    connection: Http1,
    since: Instant,
}

impl Pool {
    pub(super) fn new(making: Making, limits: Limits) -> Rc<Pool> {
        Rc::new(Pool {
            making,
            clients: RefCell::new(Semaphore::new(limits.clients)),
            limits: Cell::new(limits),
            idle: RefCell::default(),
            #[cfg(feature = "http2")]
            shared: RefCell::default(),
            asking: RefCell::default(),
            http1_only: RefCell::default(),
            leases: Cell::new(0),
            group: Rc::new(TaskGroup::independent()),
            sweeper: RefCell::new(None),
            is_closed: Cell::new(false),
        })
    }

    pub(super) fn making(&self) -> &Making {
        &self.making
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits.get()
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        if limits.clients != self.limits.get().clients {
            self.clients.replace(Semaphore::new(limits.clients));
        }
        self.limits.set(limits);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Ends all connections, and makes no more.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        drop(self.idle.take());
        #[cfg(feature = "http2")]
        drop(self.shared.take());
        self.group.close();
        self.group.cancel();
    }

    /// Waits for its turn, first come, first served.
    pub(super) async fn admit(&self, limit: Duration) -> Result<Permit, FetchError> {
        let turn = self.clients.borrow().acquire();
        let admitted = with_timeout(limit, turn).await;
        let permit = admitted.map_err(|TimedOut| FetchError::QueueTimedOut(limit))?;
        if self.is_closed() { Err(FetchError::Closed) } else { Ok(permit) }
    }

    /// A connection for one exchange: one that was kept, or a new one.
    pub(super) async fn lease(
        self: &Rc<Pool>,
        route: &Route,
        connect_timeout: Duration,
        give_up_at: Option<Instant>,
    ) -> Result<Lease, FetchError> {
        let mut kept = self.kept(route).await;
        if kept.is_none() && self.leases.get() > 0 {
            // An answer that has just been read to its end gives its connection back in the next turn.
            moment().await;
            kept = self.kept(route).await;
        }
        let (connection, is_reused) = match kept {
            Some(kept) => (kept, true),
            None => match with_timeout(connect_timeout, self.open(route)).await {
                Ok(opened) => opened?,
                Err(TimedOut) => {
                    let (to, limit) = (route.to_string(), connect_timeout);
                    return Err(FetchError::ConnectTimedOut { to, limit });
                }
            },
        };
        let (pool, route) = (self.clone(), route.clone());
        self.leases.set(self.leases.get() + 1);
        Ok(Lease { pool, route, connection, is_reused, give_up_at })
    }

    /// A connection that another exchange has left, and that can be used again.
    async fn kept(&self, route: &Route) -> Option<Used> {
        #[cfg(feature = "http2")]
        if let Some(shared) = self.shared(route).await {
            return Some(Used::Http2(Exchange::over(shared)));
        }
        loop {
            // The one that was used last: it is the least likely to have been ended by the server.
            let mut idle = self.idle.borrow_mut();
            let last = idle.iter().rposition(|idle| idle.route == *route)?;
            let Idle { connection, .. } = idle.remove(last);
            drop(idle);
            if connection.is_free() {
                return Some(Used::Http1(connection));
            }
        }
    }

    #[cfg(feature = "http2")]
    async fn shared(&self, route: &Route) -> Option<Rc<Http2>> {
        let of_route = |(other, _): &&(Route, Rc<Http2>)| other == route;
        let shared =
            self.shared.borrow().iter().find(of_route).map(|(_, shared)| shared.clone())?;
        if shared.is_free().await {
            return Some(shared);
        }
        self.forget(&shared);
        None
    }

    /// No more requests go by this connection. Exchanges that are under way go on.
    #[cfg(feature = "http2")]
    fn forget(&self, connection: &Rc<Http2>) {
        let mut shared = self.shared.borrow_mut();
        let found = shared.iter().position(|(_, other)| Rc::ptr_eq(other, connection));
        let forgotten = found.map(|found| shared.swap_remove(found));
        drop(shared);
        drop(forgotten);
    }

    /// A new connection; or one that came free, or that can be shared, while this waited to make one.
    async fn open(self: &Rc<Pool>, route: &Route) -> Result<(Used, bool), FetchError> {
        let asking = self.ask(route);
        let mut turn = None;
        if let Some(asking) = &asking {
            turn = Some(asking.queue.acquire().await);
            if let Some(kept) = self.kept(route).await {
                return Ok((kept, true));
            }
            if self.http1_only.borrow().contains(route) {
                turn = None;
            }
        }
        let stream = connect(&self.making, route).await?;
        let max_header_size = self.making.max_header_size;
        if stream.is_http2() {
            #[cfg(feature = "http2")]
            {
                let begun = Http2::begin(stream, &self.group, max_header_size).await?;
                let connection = Rc::new(begun);
                self.shared.borrow_mut().push((route.clone(), connection.clone()));
                self.sweep_in_time();
                return Ok((Used::Http2(Exchange::over(connection)), false));
            }
            #[cfg(not(feature = "http2"))]
            return Err(FetchError::Broken("HTTP/2 is not compiled in (feature http2)".into()));
        }
        if turn.is_some() {
            let mut http1_only = self.http1_only.borrow_mut();
            if http1_only.len() >= REMEMBERED {
                http1_only.clear();
            }
            http1_only.insert(route.clone());
        }
        let begun = Http1::begin(stream, &self.group, max_header_size).await?;
        Ok((Used::Http1(begun), false))
    }

    /// The queue of those who connect to an origin of which it is not known whether it speaks HTTP/2.
    fn ask(&self, route: &Route) -> Option<Asking<'_>> {
        let known = !route.is_tls || self.http1_only.borrow().contains(route);
        if !cfg!(feature = "http2") || known {
            return None;
        }
        let mut asking = self.asking.borrow_mut();
        let queue = asking.entry(route.clone()).or_insert_with(|| Semaphore::new(1)).clone();
        Some(Asking { pool: self, route: route.clone(), queue })
    }

    /// Keeps a connection for the next exchange.
    fn keep(self: &Rc<Pool>, route: Route, connection: Http1) {
        let limits = self.limits.get();
        let keeps_none = limits.idle_timeout.is_zero() || limits.idle_per_origin == 0;
        if self.is_closed() || keeps_none {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let is_alike = |idle: &Idle| idle.route == route;
        let oldest = if idle.iter().filter(|idle| is_alike(idle)).count() >= limits.idle_per_origin
        {
            idle.iter().position(is_alike)
        } else {
            // No more are kept in all than there can be in use.
            Some(0).filter(|_| idle.len() >= limits.clients)
        };
        let ended = oldest.map(|oldest| idle.remove(oldest));
        idle.push(Idle { route, connection, since: now() });
        drop(idle);
        drop(ended);
        self.sweep_in_time();
    }

    /// Has a coroutine end connections that nobody has used for too long.
    fn sweep_in_time(self: &Rc<Pool>) {
        if self.sweeper.borrow().as_ref().is_none_or(CancelHandle::done) {
            let pool = Rc::downgrade(self);
            let sweeper = self.group.start_named("the sweeper of an HttpClient", async move {
                while let Some(next) = Pool::sweep(&pool) {
                    sleep_until(next).await;
                }
                Ok(())
            });
            self.sweeper.replace(Some(sweeper));
        }
    }

    /// Ends what was idle for too long, and says when to look again, if there is anything left.
    fn sweep(pool: &Weak<Pool>) -> Option<Instant> {
        let pool = pool.upgrade()?;
        let limit = pool.limits.get().idle_timeout;
        let is_late = |since: Instant| since.checked_add(limit).is_some_and(|end| end <= now());
        let mut idle = pool.idle.borrow_mut();
        let (ended, kept) = mem::take(&mut *idle).into_iter().partition(|idle| is_late(idle.since));
        *idle = kept;
        let next = idle.first().map(|idle| idle.since);
        drop(idle);
        drop::<Vec<_>>(ended);
        #[cfg(feature = "http2")]
        let next = {
            let mut shared = pool.shared.borrow_mut();
            let (ended, kept) = mem::take(&mut *shared)
                .into_iter()
                .partition(|(_, shared)| shared.idle_since().is_some_and(is_late));
            *shared = kept;
            // One that is in use is not late before this much time from now.
            let since = shared.iter().map(|(_, shared)| shared.idle_since().unwrap_or_else(now));
            let next = since.chain(next).min();
            drop(shared);
            drop::<Vec<_>>(ended);
            next
        };
        next?.checked_add(limit)
    }
}

/// A place in the queue of those who connect to an origin. The last one takes the queue with him.
struct Asking<'a> {
    pool: &'a Pool,
    route: Route,
    queue: Semaphore,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // Nobody has the turn, and so nobody waits for it.
        if self.queue.permits() == 1 {
            self.pool.asking.borrow_mut().remove(&self.route);
        }
    }
}

/// A connection for one exchange.
pub(super) struct Lease {
    pool: Rc<Pool>,
    route: Route,
    connection: Used,
    /// Whether another exchange went before this one.
    is_reused: bool,
    give_up_at: Option<Instant>,
}

enum Used {
    Http1(Http1),
    #[cfg(feature = "http2")]
    Http2(Exchange),
    Nothing,
}

impl Lease {
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    pub(super) fn is_http2(&self) -> bool {
        !matches!(self.connection, Used::Http1(_))
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<WireBody>, Failed> {
        match &mut self.connection {
            Used::Http1(connection) => connection.send(request).await,
            #[cfg(feature = "http2")]
            Used::Http2(exchange) => exchange.send(request).await,
            Used::Nothing => Err(Failed::Sent(FetchError::Closed)),
        }
    }

    /// Nothing more of the answer is expected. If the exchange is whole, the connection is kept.
    pub(super) async fn over(mut self) {
        self.give_up_at = None;
        let Used::Http1(connection) = &self.connection else { return };
        if connection.is_whole().await {
            if let Used::Http1(connection) = mem::replace(&mut self.connection, Used::Nothing) {
                self.pool.keep(self.route.clone(), connection);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.leases.set(self.pool.leases.get() - 1);
        match mem::replace(&mut self.connection, Used::Nothing) {
            Used::Http1(connection) => connection.close(),
            // A server that does not answer in time may have gone without a word, and would not answer others.
            #[cfg(feature = "http2")]
            Used::Http2(exchange) if self.give_up_at.is_some_and(|end| end <= now()) => {
                self.pool.forget(exchange.connection());
            }
            _ => {}
        }
    }
}
