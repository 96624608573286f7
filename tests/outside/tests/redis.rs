//! redis over `.compat()`, and a real Redis: the connection is a coroutine, and its clones ask.
//!
//! Its own time limits are turned off, since they are timers of tokio's; there is `with_timeout`.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use futures::future::join_all;
use outside::Server;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, AsyncTypedCommands as _, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisResult, Value,
};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use waterspout::concurrent::channel;
use waterspout::coroutine::{self, Coroutine, with_timeout};
use waterspout::net::TcpStream;

/// The server that all tests ask but those that stop theirs.
fn shared() -> Option<ConnectionInfo> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("redis")).as_ref().map(info)
}

fn info(server: &Server) -> ConnectionInfo {
    server.address().into_connection_info().unwrap()
}

fn address(info: &ConnectionInfo) -> (&str, u16) {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => (host, *port),
        addr => panic!("{addr:?} is not an address and a port"),
    }
}

fn without_time_limits() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

async fn with(
    info: &ConnectionInfo,
    config: AsyncConnectionConfig,
) -> (MultiplexedConnection, Coroutine<()>) {
    // Only this version of the protocol has messages that come by themselves.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let stream = TcpStream::connect(address(info)).await.unwrap().compat();
    let (connection, driver) =
        MultiplexedConnection::new_with_config(&settings, stream, config).await.unwrap();
    (connection, coroutine::start(driver))
}

async fn connect(info: &ConnectionInfo) -> (MultiplexedConnection, Coroutine<()>) {
    with(info, without_time_limits()).await
}

/// Asks by `connection` until the client of that number waits at the server.
async fn is_blocked(connection: &mut MultiplexedConnection, client: usize) {
    let mut list = redis::cmd("CLIENT");
    list.arg("LIST").arg("ID").arg(client);
    while !list.query_async::<String>(connection).await.unwrap().contains("flags=b") {}
}

#[waterspout::test(timeout = 120)]
async fn clones_of_a_connection_ask_at_the_same_time_and_each_gets_its_answer() {
    let Some(info) = shared() else { return };
    let (connection, driver) = connect(&info).await;
    let increment = async |_| connection.clone().incr("visits", 1).await.unwrap();
    let answers: BTreeSet<isize> = join_all((0..1000).map(increment)).await.into_iter().collect();
    assert!(answers.into_iter().eq(1..=1000));
    drop(connection);
    driver.await;
}

#[waterspout::test(timeout = 120)]
async fn a_pipeline_is_answered_in_order_also_where_a_command_fails() {
    let Some(info) = shared() else { return };
    let (mut connection, _driver) = connect(&info).await;
    let long = vec![7; 1 << 20];
    let mut pipe = redis::pipe();
    pipe.set("text", "one").ignore().incr("number", 2).set("long", &long).ignore().get("long");
    let (number, got): (i32, Vec<u8>) = pipe.query_async(&mut connection).await.unwrap();
    assert_eq!(number, 2);
    assert!(got == long);
    let mut pipe = redis::pipe();
    pipe.incr("number", 1).incr("text", 1).incr("number", 1);
    let answer: RedisResult<Vec<i32>> = pipe.query_async(&mut connection).await;
    answer.unwrap_err();
    assert_eq!(connection.get_int("number").await.unwrap(), Some(4));
}

#[waterspout::test(timeout = 120)]
async fn who_subscribes_hears_what_others_publish_in_order() {
    let Some(info) = shared() else { return };
    let (sender, mut pushed) = channel(1024);
    let push = move |info: PushInfo| sender.try_send(info);
    let (mut listener, driver) = with(&info, without_time_limits().set_push_sender(push)).await;
    listener.subscribe("news").await.unwrap();
    let confirmed = pushed.recv().await.unwrap();
    assert_eq!(confirmed.kind, PushKind::Subscribe);
    let (mut speaker, _driver) = connect(&info).await;
    for n in 0..100 {
        assert_eq!(speaker.publish("news", n).await.unwrap(), 1);
        // The listener asks nothing meanwhile: this comes by itself.
        let message = pushed.recv().await.unwrap();
        let text = |text: String| Value::BulkString(text.into_bytes());
        assert_eq!(message.kind, PushKind::Message);
        assert_eq!(message.data, [text("news".to_owned()), text(n.to_string())]);
    }
    drop(listener);
    driver.await;
    assert!(pushed.recv().await.is_none_or(|info| info.kind == PushKind::Disconnection));
}

#[waterspout::test(timeout = 120)]
async fn a_command_that_is_given_up_leaves_the_next_answer_to_the_next_command() {
    let Some(info) = shared() else { return };
    let (mut connection, _driver) = connect(&info).await;
    let (mut other, _other_driver) = connect(&info).await;
    let id = connection.client_id().await.unwrap() as usize;
    let limit = Duration::from_millis(10);
    with_timeout(limit, connection.blpop("nothing", 0.0)).await.unwrap_err();
    is_blocked(&mut other, id).await;
    let unblocked: i32 =
        redis::cmd("CLIENT").arg("UNBLOCK").arg(id).query_async(&mut other).await.unwrap();
    assert_eq!(unblocked, 1);
    assert_eq!(connection.ping().await.unwrap(), "PONG");
}

#[waterspout::test(timeout = 120)]
async fn a_server_that_goes_away_is_an_error_for_who_waits_and_for_who_asks_later() {
    let Some(server) = Server::start("redis") else { return };
    let info = info(&server);
    let (mut waiting, waiting_driver) = connect(&info).await;
    let (mut idle, idle_driver) = connect(&info).await;
    let id = waiting.client_id().await.unwrap() as usize;
    let mut asking = waiting.clone();
    let mut blocked = pin!(asking.blpop("nothing", 0.0));
    with_timeout(Duration::ZERO, blocked.as_mut()).await.unwrap_err();
    is_blocked(&mut idle, id).await;

    drop(server);
    blocked.await.unwrap_err();
    // Both have noticed it by themselves.
    waiting_driver.await;
    idle_driver.await;
    waiting.ping().await.unwrap_err();
    idle.ping().await.unwrap_err();
    let error = TcpStream::connect(address(&info)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
