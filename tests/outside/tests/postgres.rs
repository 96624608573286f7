//! tokio-postgres over `.compat()`, and a real PostgreSQL: the connection is a coroutine, and queries go
//! through its client. Clients may be in a pool of deadpool's.

use std::future::{poll_fn, ready};
use std::path::Path;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Pool, RecycleResult};
use futures::future::join_all;
use futures::{AsyncRead, AsyncWrite};
use outside::Server;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use waterspout::channels::mpsc;
use waterspout::concurrent::Executor;
use waterspout::coroutine::{self, Coroutine, with_timeout};
use waterspout::net::{TcpStream, UnixStream};

/// The server that all tests ask but those that stop theirs.
fn shared() -> Option<Config> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("postgres")).as_ref().map(config)
}

fn config(server: &Server) -> Config {
    server.address().parse().unwrap()
}

async fn tcp(config: &Config) -> TcpStream {
    TcpStream::connect(("127.0.0.1", config.get_ports()[0])).await.unwrap()
}

async fn unix(config: &Config) -> UnixStream {
    let folder: &Path = match &config.get_hosts()[1] {
        Host::Unix(folder) => folder,
        host => panic!("{host:?} is not the folder of a socket"),
    };
    UnixStream::connect(folder.join(format!(".s.PGSQL.{}", config.get_ports()[1]))).await.unwrap()
}

async fn over<S>(config: &Config, stream: S) -> (Client, Coroutine<Result<(), Error>>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (client, connection) = config.connect_raw(stream.compat(), NoTls).await.unwrap();
    (client, coroutine::start(connection))
}

async fn backend(client: &Client) -> i32 {
    client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Asks by `client` until the query of another connection has arrived at the server, and sleeps there.
async fn is_asleep(client: &Client, backend: i32) {
    let query = "select 1 from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'";
    while client.query(query, &[&backend]).await.unwrap().is_empty() {}
}

/// Cancels the query of `client`. When this is done, no later query can be hit: the server may signal its
/// process twice, and the crate does not wait for that, but the server closes the stream after it.
async fn cancel(client: &Client, config: &Config) {
    let mut stream = tcp(config).await.compat();
    client.cancel_token().cancel_query_raw(&mut stream, NoTls).await.unwrap();
    assert_eq!(stream.into_inner().read(&mut [0]).await.unwrap(), 0);
}

/// A megabyte each way, text, and null.
async fn parameters_and_results(client: &Client) {
    let long = vec![7; 1 << 20];
    let query = "select $1::int8 + 1, $2::text || '!', $3::bytea, $4::text";
    let none: Option<&str> = None;
    let row = client.query_one(query, &[&41_i64, &"grüß", &long, &none]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 42);
    assert_eq!(row.get::<_, &str>(1), "grüß!");
    assert!(row.get::<_, &[u8]>(2) == long);
    assert_eq!(row.get::<_, Option<&str>>(3), None);
    let rows = client.query("select generate_series(1, 10000)", &[]).await.unwrap();
    assert!(rows.iter().map(|row| row.get::<_, i32>(0)).eq(1..=10_000));
}

#[waterspout::test(timeout = 120)]
async fn queries_have_parameters_over_tcp_and_over_a_unix_socket() {
    let Some(config) = shared() else { return };
    let (client, connection) = over(&config, tcp(&config).await).await;
    parameters_and_results(&client).await;
    drop(client);
    connection.await.unwrap();
    let (client, connection) = over(&config, unix(&config).await).await;
    parameters_and_results(&client).await;
    drop(client);
    connection.await.unwrap();
}

#[waterspout::test(timeout = 120)]
async fn queries_are_pipelined_and_one_that_fails_is_the_only_one() {
    let Some(config) = shared() else { return };
    let (client, _connection) = over(&config, tcp(&config).await).await;
    let divide = client.prepare("select 1000 / $1::int4").await.unwrap();
    let answers = join_all((-500..500).map(async |n| client.query_one(&divide, &[&n]).await)).await;
    for (n, answer) in (-500..500).zip(answers) {
        match answer {
            Ok(row) => assert_eq!(row.get::<_, i32>(0), 1000 / n),
            Err(error) => assert_eq!((error.code(), n), (Some(&SqlState::DIVISION_BY_ZERO), 0)),
        }
    }
}

#[waterspout::test(timeout = 120)]
async fn a_client_asks_from_the_loop_of_another_thread() {
    let Some(config) = shared() else { return };
    let (client, _connection) = over(&config, tcp(&config).await).await;
    let sum = Executor::shared().spawn_blocking(move || {
        let io_loop = waterspout::IoLoop::new().unwrap();
        let query = async move || {
            let mut sum = 0;
            for n in 0..100 {
                sum += client.query_one("select $1::int4", &[&n]).await.unwrap().get::<_, i32>(0);
            }
            sum
        };
        io_loop.run_sync(query).unwrap()
    });
    assert_eq!(sum.await, 4950);
}

#[waterspout::test(timeout = 120)]
async fn who_listens_hears_what_others_notify_in_order() {
    let Some(config) = shared() else { return };
    let stream = tcp(&config).await.compat();
    let (listener, mut connection) = config.connect_raw(stream, NoTls).await.unwrap();
    let (heard, mut notifications) = mpsc::unbounded();
    let listening = coroutine::start(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message? {
                heard.try_send(notification).unwrap();
            }
        }
        Ok::<(), Error>(())
    });
    listener.batch_execute("listen news").await.unwrap();
    let (speaker, _connection) = over(&config, unix(&config).await).await;
    let backend = backend(&speaker).await;
    for n in 0..100 {
        speaker.execute("select pg_notify('news', $1)", &[&n.to_string()]).await.unwrap();
        // The listener asks nothing meanwhile: this comes by itself.
        let notification = notifications.recv().await.unwrap();
        assert_eq!(notification.payload(), n.to_string());
        assert_eq!((notification.channel(), notification.process_id()), ("news", backend));
    }
    drop(listener);
    listening.await.unwrap();
    assert!(notifications.recv().await.is_none());
}

#[waterspout::test(timeout = 120)]
async fn a_query_is_cancelled_at_its_time_limit_and_its_connection_lives_on() {
    let Some(config) = shared() else { return };
    let (client, _connection) = over(&config, tcp(&config).await).await;
    let (observer, _observing) = over(&config, tcp(&config).await).await;
    let backend = backend(&client).await;
    // Prepared before: so the first poll of `execute` sends all of it.
    let sleep = client.prepare("select pg_sleep(600)").await.unwrap();
    let limit = Duration::from_millis(10);

    let mut query = pin!(client.execute(&sleep, &[]));
    with_timeout(limit, query.as_mut()).await.unwrap_err();
    is_asleep(&observer, backend).await;
    cancel(&client, &config).await;
    assert_eq!(query.await.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));

    // The same, but nobody awaits the answer any more. The next query gets its own.
    with_timeout(limit, client.execute(&sleep, &[])).await.unwrap_err();
    is_asleep(&observer, backend).await;
    cancel(&client, &config).await;
    assert_eq!(client.query_one("select 'next'", &[]).await.unwrap().get::<_, &str>(0), "next");
}

/// Makes the clients of a pool, on the loop where that is asked for one. (What `deadpool-postgres` has for that
/// connects by tokio.)
#[derive(Debug)]
struct Clients(Config);

impl managed::Manager for Clients {
    type Type = Client;
    type Error = Error;

    async fn create(&self) -> Result<Client, Error> {
        let stream = tcp(&self.0).await.compat();
        let (client, connection) = self.0.connect_raw(stream, NoTls).await?;
        coroutine::start(connection);
        Ok(client)
    }

    fn recycle(
        &self,
        client: &mut Client,
        _: &Metrics,
    ) -> impl Future<Output = RecycleResult<Error>> + Send {
        let closed = || managed::RecycleError::message("its connection has ended");
        ready(if client.is_closed() { Err(closed()) } else { Ok(()) })
    }
}

#[waterspout::test(timeout = 120)]
async fn a_pool_replaces_clients_whose_connections_have_ended() {
    let Some(config) = shared() else { return };
    let pool = Pool::<Clients>::builder(Clients(config)).max_size(3).build().unwrap();
    let queries = (0..100).map(async |n| {
        let client = pool.get().await.unwrap();
        client.query_one("select $1::int4 * 2", &[&n]).await.unwrap().get::<_, i32>(0)
    });
    assert!(join_all(queries).await.into_iter().eq((0..200).step_by(2)));
    assert_eq!(pool.status().size, 3);

    let [one, other] = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    let ended = backend(&one).await;
    other.query_one("select pg_terminate_backend($1)", &[&ended]).await.unwrap();
    while !one.is_closed() {
        coroutine::moment().await;
    }
    drop((one, other));
    let clients = [pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()];
    for client in &clients {
        assert_ne!(backend(client).await, ended);
    }
    // Waiting for one is given up, and the pool has as many as before.
    with_timeout(Duration::from_millis(10), pool.get()).await.unwrap_err();
    drop(clients);
    assert_eq!(pool.status().available, 3);
}

#[waterspout::test(timeout = 120)]
async fn a_server_that_goes_away_is_an_error_for_who_waits_and_for_who_asks_later() {
    let Some(server) = Server::start("postgres") else { return };
    let config = config(&server);
    let (waiting, waiting_connection) = over(&config, tcp(&config).await).await;
    let (idle, idle_connection) = over(&config, unix(&config).await).await;
    let backend = backend(&waiting).await;
    let mut query = pin!(waiting.batch_execute("select pg_sleep(600)"));
    with_timeout(Duration::ZERO, query.as_mut()).await.unwrap_err();
    is_asleep(&idle, backend).await;

    drop(server);
    query.await.unwrap_err();
    // Both have noticed it by themselves.
    waiting_connection.await.unwrap_err();
    idle_connection.await.unwrap_err();
    for client in [&waiting, &idle] {
        assert!(client.is_closed());
        client.query("select 1", &[]).await.unwrap_err();
    }
    let address = ("127.0.0.1", config.get_ports()[0]);
    let error = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
