//! The crates that you bring: which run on the loop, and by which line.
//!
//! Whatever takes a stream, or asks for a runtime by a trait, runs on the loop itself. What has threads of its
//! own runs beside it. What wants tokio's runtime finds it within a `Compat`. There is no code here, only
//! these tables. Each line of them was
//!
//! * **tested**: the repository's `tests/outside` has a test of it, over real connections;
//! * **tried**: it was run once on this crate, in November 2026, and no test repeats that; or
//! * **read**: nobody has run it, but its source says so.
//!
//! # On the loop
//!
//! No other thread takes part, state need not be `Send` unless the table says so, and time limits go by the
//! loop's clock.
//!
//! | crate | how | known by |
//! | --- | --- | --- |
//! | `hyper` 1 | `Io::new(stream)` is its stream, `OnLoop` its executor and its timer: [`hyper`](mod@crate::hyper) | tested |
//! | `axum` 0.8 | [`HttpServer::tower(router)`](crate::http::HttpServer::tower); or with hyper, whose service is `TowerToHyperService::new(router)`; `axum::serve` listens by tokio | tested |
//! | layers of `tower` and `tower-http` that need no time and no files: `TraceLayer`, `CorsLayer`, `CompressionLayer`, `RequestBodyLimitLayer`, `CatchPanicLayer`, `ConcurrencyLimitLayer` | as they are | tried |
//! | `tonic` 0.14 without its feature `transport` | server: `HttpServer::tower(Routes::new(service))`, or hyper as for axum; client: `Grpc::with_origin(channel, uri)`, where `channel` is [a service of ten lines](#tonic) | tested |
//! | `futures-rustls` 0.26 | `acceptor.accept(stream).await`; [`tls`](mod@crate::tls) has it built in | tested |
//! | `async-tungstenite` 0.35 | `accept_async(stream).await`, `client_async(url, stream).await` | tried |
//! | `tokio-postgres` 0.7 | [two lines](#tokio-postgres); cancelling by `cancel_query_raw`; `connect` uses tokio's sockets | tested |
//! | `deadpool` 0.13, with the feature `managed` | a `Manager` whose `create` has these two lines, with [`with_timeout`](crate::coroutine::with_timeout()) around `pool.get()` instead of its own time limits; the manager of `deadpool-postgres` connects by tokio | tested |
//! | `diesel-async` 0.9, with the feature `postgres` | `AsyncPgConnection::try_from(client).await`, with a client of tokio-postgres | tried |
//! | `redis` 1, with the feature `tokio-comp` | [`MultiplexedConnection`](#redis), also for `SUBSCRIBE`; its `ConnectionManager`, clusters and sentinels connect by tokio | tested |
//! | `quinn` 0.11 | `Endpoint::new(config, server, socket, OnLoop::current())`, where `OnLoop` is an adapter to copy: `tests/outside/src/quinn.rs` | tested |
//! | `hickory-resolver` 0.26 | `Resolver::builder(OnLoop)`, where `OnLoop` is an adapter to copy: `tests/outside/src/hickory.rs`, which makes a [`net::Resolver`](crate::net::Resolver) of it, too | tested |
//!
//! axum's handlers and tonic's services have to be `Send`, and so have their futures. They may await whatever
//! of this crate is `Send`: sockets, [`TcpClient`](crate::net::TcpClient), [`sleep`](crate::coroutine::sleep()),
//! [`with_timeout`](crate::coroutine::with_timeout()), [`concurrent::channel`](crate::concurrent::channel),
//! [`Executor::spawn_blocking`](crate::concurrent::Executor::spawn_blocking). Locks, queues, promises and
//! handles of coroutines stay on their loop; what works with these is on the other side of a channel.
//!
//! A stream stays with the loop that it was made on; on another one it gives an error that says so. But the
//! clients of tokio-postgres, and all that quinn hands out, only send messages to a coroutine that has the
//! stream. So they may be used on any thread, as long as the loop of that coroutine runs.
//!
//! # Beside the loop
//!
//! | crate | how | known by |
//! | --- | --- | --- |
//! | `ureq` 3, and whatever else blocks | [`io_loop.run_in_executor(move \|\| ureq::get(&url).call()).await`](crate::IoLoop::run_in_executor) | tested |
//! | `sqlx` 0.9, with the feature `runtime-smol` | as it is: two threads of its own wait for its sockets and its time limits. It takes no stream of ours, and cannot cancel a query: a connection whose query is given up is of no use until that ends | tested |
//! | `sentry` 0.49, with the feature `ureq` | as it is: a thread of its own sends. Its panic hook sees the panics of coroutines, too | tried |
//!
//! # Within `Compat`
//!
//! The crate `async-compat` has a tokio runtime on a thread of its own. A future in `Compat::new` finds that
//! runtime whenever it is polled. It is still a future of the loop, and need not be `Send`; but what tokio has
//! to tell it comes from the other thread, which costs a wake-up across threads each time.
//!
//! | crate | how | known by |
//! | --- | --- | --- |
//! | `reqwest` 0.13 | `Compat::new(async { client.get(url).send().await }).await` | tested |
//! | `tower::timeout`, and `tokio::spawn` in a handler | [`HttpServer::tower(service).tokio_context(true)`](crate::http::HttpServer::tokio_context); or with hyper `Compat::new(http.serve_connection(io, service)).await` | tested |
//! | `tower::buffer`, `tower::limit::RateLimit`, `tower_http::timeout`, `ServeDir`, axum's `Sse::keep_alive` | the latter | tried |
//! | `mongodb` 3, `mysql_async` 0.37 | `Compat::new` around all that connects and asks | read |
//!
//! * Make what is tokio's within `Compat`, and await it there. Outside, it panics: "there is no reactor running".
//! * `tokio::spawn` runs its future on tokio's thread, where a socket of the loop is refused.
//! * A loop in virtual time does not know what tokio waits for: keep the guard of
//!   [`hold_time`](crate::IoLoop::hold_time) meanwhile.
//!
//! # Not at all
//!
//! | crate | why | known by |
//! | --- | --- | --- |
//! | axum's `ws` | it spawns each WebSocket on tokio, and so the connection of the loop is used on tokio's thread, also within `Compat`; `async-tungstenite` does not | tried |
//! | what connects by itself with tokio's sockets: `axum::serve`, tonic's `transport`, `tokio_postgres::connect`, redis' `ConnectionManager` | they want a tokio runtime around them; the first two tables have what to use instead | read |
//!
//! # The lines
//!
//! ## tokio-postgres
//!
//! ```ignore
//! let (client, connection) = config.connect_raw(stream.compat(), NoTls).await?;
//! coroutine::start(connection);
//! ```
//!
//! `compat` is from `tokio_util::compat::FuturesAsyncReadCompatExt`; the stream is a
//! [`TcpStream`](crate::net::TcpStream) or a [`UnixStream`](crate::net::UnixStream).
//!
//! ## redis
//!
//! ```ignore
//! let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
//! let (connection, driver) =
//!     MultiplexedConnection::new_with_config(&settings, stream.compat(), config).await?;
//! coroutine::start(driver);
//! ```
//!
//! Its own time limits are timers of tokio's; put [`with_timeout`](crate::coroutine::with_timeout()) around a
//! command instead.
//!
//! ## tonic
//!
//! ```ignore
//! struct Channel(hyper::client::conn::http2::SendRequest<tonic::body::Body>);
//!
//! impl tower::Service<http::Request<tonic::body::Body>> for Channel {
//!     type Response = http::Response<hyper::body::Incoming>;
//!     type Error = hyper::Error;
//!     type Future = LocalBoxFuture<'static, Result<Self::Response, hyper::Error>>;
//!
//!     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
//!         self.0.poll_ready(cx)
//!     }
//!
//!     fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
//!         Box::pin(self.0.send_request(request))
//!     }
//! }
//! ```
