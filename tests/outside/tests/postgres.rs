//! tokio-postgres over `.compat()`: its connection is a coroutine, queries go through its client.
//!
//! `WATERSPOUT_POSTGRES` is `HOST:PORT USER` of a server that asks for no password; without it there is
//! nothing to ask, and only the types are put together.

use tokio_postgres::{Config, NoTls};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use waterspout::coroutine;
use waterspout::net::TcpStream;

#[waterspout::test]
async fn queries_go_through_a_stream_of_this_crate() {
    let Ok(server) = std::env::var("WATERSPOUT_POSTGRES") else {
        eprintln!("SKIPPED: no PostgreSQL to ask (WATERSPOUT_POSTGRES=HOST:PORT USER)");
        return;
    };
    let (address, user) = server.split_once(' ').expect("HOST:PORT USER");
    let stream = TcpStream::connect(address).await.unwrap().compat();
    let mut config = Config::new();
    config.user(user).dbname("postgres");
    let (client, connection) = config.connect_raw(stream, NoTls).await.unwrap();
    let connection = coroutine::start(connection);
    let rows = client.query("select generate_series(1, 3)", &[]).await.unwrap();
    let numbers: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(numbers, [1, 2, 3]);
    drop(client);
    connection.await.unwrap();
}
