//! sqlx and a real PostgreSQL. It takes no socket of ours, so it does not run on the loop: a thread of the
//! crate `async-io` watches its sockets and timers, and wakes the coroutines that await it. Nothing has to
//! be done for that but to choose its feature `runtime-smol`.

use std::sync::OnceLock;
use std::time::Duration;

use futures::future::try_join_all;
use outside::Server;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Row as _};
use tokio_postgres::config::{Config, Host};
use waterspout::coroutine::{multi_outputs, with_timeout};

/// The server that all tests ask but those that stop theirs: how to connect over TCP, and over a Unix socket.
fn shared() -> Option<[PgConnectOptions; 2]> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("postgres")).as_ref().map(ways)
}

fn ways(server: &Server) -> [PgConnectOptions; 2] {
    let config: Config = server.address().parse().unwrap();
    let options = PgConnectOptions::new_without_pgpass()
        .port(config.get_ports()[0])
        .username(config.get_user().unwrap())
        .password(str::from_utf8(config.get_password().unwrap()).unwrap())
        .database(config.get_dbname().unwrap());
    let Host::Unix(folder) = &config.get_hosts()[1] else { panic!("no Unix socket") };
    [options.clone().host("127.0.0.1"), options.socket(folder)]
}

async fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new().max_connections(connections).connect_with(options).await.unwrap()
}

#[waterspout::test(timeout = 120)]
async fn queries_have_parameters_over_tcp_and_over_a_unix_socket() {
    for options in shared().into_iter().flatten() {
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let long = vec![7_u8; 1 << 20];
        let row = sqlx::query("select $1::int8 + 1, $2::text || '!', $3::bytea, $4::text")
            .bind(41_i64)
            .bind("grüß")
            .bind(&long)
            .bind(None::<&str>)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.get::<i64, _>(0), 42);
        assert_eq!(row.get::<&str, _>(1), "grüß!");
        assert!(row.get::<&[u8], _>(2) == long);
        assert_eq!(row.get::<Option<&str>, _>(3), None);
        connection.close().await.unwrap();
    }
}

#[waterspout::test(timeout = 120)]
async fn a_pool_serves_more_coroutines_than_it_has_connections() {
    let Some([options, _]) = shared() else { return };
    let pool = pool(options, 3).await;
    let queries = (0..100).map(async |n| {
        let double = sqlx::query_scalar::<_, i32>("select $1::int4 * 2").bind(n);
        double.fetch_one(&pool).await
    });
    let doubles = try_join_all(queries).await.unwrap();
    assert!(doubles.into_iter().eq((0..200).step_by(2)));
    assert_eq!(pool.size(), 3);
    pool.close().await;
}

#[waterspout::test(timeout = 120)]
async fn a_transaction_that_is_dropped_is_rolled_back() {
    let Some([options, _]) = shared() else { return };
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    sqlx::query("create temporary table kept (n int4)").execute(&mut connection).await.unwrap();
    for committed in [false, true] {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::query("insert into kept values (1)").execute(&mut *transaction).await.unwrap();
        if committed {
            transaction.commit().await.unwrap();
        } else {
            drop(transaction);
        }
    }
    let count = sqlx::query_scalar::<_, i64>("select count(*) from kept");
    assert_eq!(count.fetch_one(&mut connection).await.unwrap(), 1);
}

#[waterspout::test(timeout = 120)]
async fn who_listens_hears_what_others_notify_in_order() {
    let Some([options, _]) = shared() else { return };
    let pool = pool(options, 2).await;
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("sqlx_news").await.unwrap();
    for n in 0..100 {
        let notify = sqlx::query("select pg_notify('sqlx_news', $1)").bind(n.to_string());
        notify.execute(&pool).await.unwrap();
        assert_eq!(listener.recv().await.unwrap().payload(), n.to_string());
    }
}

/// sqlx cannot cancel a query: its connection is of no use until it ends, and the others go on.
#[waterspout::test(timeout = 120)]
async fn a_query_that_is_given_up_leaves_the_rest_of_its_pool_usable() {
    let Some([options, _]) = shared() else { return };
    let pool = pool(options, 2).await;
    let sleep = sqlx::query("select pg_sleep(600)").execute(&pool);
    with_timeout(Duration::from_millis(10), sleep).await.unwrap_err();
    for _ in 0..10 {
        let next = sqlx::query_scalar::<_, i32>("select 1").fetch_one(&pool).await;
        assert_eq!(next.unwrap(), 1);
    }
}

#[waterspout::test(timeout = 120)]
async fn a_server_that_goes_away_is_an_error_for_who_waits_and_for_who_asks_later() {
    let Some(server) = Server::start("postgres") else { return };
    let [options, _] = ways(&server);
    let mut waiting = PgConnection::connect_with(&options).await.unwrap();
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let waits = sqlx::query("select pg_sleep(600)").execute(&mut waiting);
    let stops = async {
        while sqlx::query_scalar::<_, i64>(asleep).fetch_one(&mut other).await.unwrap() == 0 {}
        drop(server);
    };
    let (ended, ()) = multi_outputs((waits, stops)).await;
    ended.unwrap_err();
    sqlx::query("select 1").execute(&mut other).await.unwrap_err();
    PgConnection::connect_with(&options).await.unwrap_err();
}
