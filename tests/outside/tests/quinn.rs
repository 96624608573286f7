//! quinn by `outside::quinn`: streams, connections, other threads, and ends of all kinds.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{self, SocketAddr};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use outside::quinn::OnLoop;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::PrivatePkcs8KeyDer;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectError, Connection, ConnectionError, Endpoint,
    EndpointConfig, Runtime as _, ServerConfig, TransportConfig, UdpPoller,
};
use waterspout::IoLoop;
use waterspout::concurrent::Executor;
use waterspout::coroutine::{self, multi_outputs, now, sleep};
use waterspout::process::Subprocess;

const SECOND: Duration = Duration::from_secs(1);

/// A server's half and a client's, which trusts it.
fn configs() -> (ServerConfig, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::with_single_cert(vec![certificate.clone()], key.into()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    (server, ClientConfig::with_root_certificates(Arc::new(roots)).unwrap())
}

fn udp() -> net::UdpSocket {
    net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn endpoint(config: Option<ServerConfig>) -> Endpoint {
    Endpoint::new(EndpointConfig::default(), config, udp(), OnLoop::current()).unwrap()
}

/// An endpoint that echoes every stream, and one that connects to it.
fn echo_and_client() -> (Endpoint, Endpoint) {
    let (server, client) = configs();
    let server = endpoint(Some(server));
    coroutine::start(echo(server.clone()));
    let mut connecting = endpoint(None);
    connecting.set_default_client_config(client);
    (server, connecting)
}

async fn echo(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        coroutine::start(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut answer, mut question)) = connection.accept_bi().await {
                coroutine::start(async move {
                    while let Ok(Some(chunk)) = question.read_chunk(usize::MAX, true).await {
                        answer.write_chunk(chunk.bytes).await.unwrap();
                    }
                    answer.finish().unwrap();
                });
            }
        });
    }
}

async fn connect(client: &Endpoint, address: SocketAddr) -> Connection {
    client.connect(address, "localhost").unwrap().await.unwrap()
}

/// Sends and receives at the same time: neither side keeps that many bytes.
async fn is_echoed(connection: &Connection, bytes: Vec<u8>) {
    let (mut question, mut answer) = connection.open_bi().await.unwrap();
    let asked = bytes.clone();
    coroutine::start(async move {
        question.write_all(&asked).await.unwrap();
        question.finish().unwrap();
    });
    assert!(answer.read_to_end(bytes.len()).await.unwrap() == bytes);
}

#[waterspout::test(timeout = 120)]
async fn streams_of_a_connection_are_echoed_side_by_side() {
    let (server, client) = echo_and_client();
    let connection = connect(&client, server.local_addr().unwrap()).await;
    let streams = (0..50).map(|n| is_echoed(&connection, vec![n; 100_000]));
    multi_outputs(streams.collect::<Vec<_>>()).await;
}

#[waterspout::test(timeout = 120)]
async fn connections_of_one_endpoint_are_made_side_by_side() {
    let (server, client) = echo_and_client();
    let address = server.local_addr().unwrap();
    let connections = (0..20).map(async |n| {
        let connection = connect(&client, address).await;
        is_echoed(&connection, vec![n; 10_000]).await;
    });
    multi_outputs(connections.collect::<Vec<_>>()).await;
    client.close(0_u32.into(), b"");
    client.wait_idle().await;
}

/// The endpoint's coroutines stay on its own loop, whoever asks for one.
#[waterspout::test(timeout = 120)]
async fn an_endpoint_connects_for_the_loop_of_another_thread() {
    let (server, client) = echo_and_client();
    let address = server.local_addr().unwrap();
    let work = Executor::shared().spawn_blocking(move || {
        let other = IoLoop::new().unwrap();
        let ask = async move || {
            let connection = connect(&client, address).await;
            is_echoed(&connection, vec![7; 10_000]).await;
        };
        other.run_sync(ask).unwrap();
    });
    work.await;
    assert_eq!(server.stats().accepted_handshakes, 1);
}

#[waterspout::test(timeout = 120)]
async fn a_certificate_that_nobody_trusts_is_an_error_for_both_sides() {
    let (server, _) = configs();
    let server = endpoint(Some(server));
    let mut client = endpoint(None);
    client.set_default_client_config(configs().1);
    let accepting = server.clone();
    let refused = coroutine::start(async move { accepting.accept().await.unwrap().await.err() });
    let connecting = client.connect(server.local_addr().unwrap(), "localhost").unwrap();
    assert!(matches!(connecting.await, Err(ConnectionError::TransportError(_))));
    assert!(matches!(refused.await, Some(ConnectionError::ConnectionClosed(_))));
}

/// By the loop's clock, which is virtual here: it takes no time.
#[waterspout::test(virtual_time)]
async fn who_never_answers_is_given_up_after_the_idle_time() {
    let silent = udp();
    let client = endpoint(None);
    let mut config = configs().1;
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some((10 * SECOND).try_into().unwrap()));
    config.transport_config(Arc::new(transport));
    let begun = now();
    let connecting = client.connect_with(config, silent.local_addr().unwrap(), "localhost");
    assert_eq!(connecting.unwrap().await.unwrap_err(), ConnectionError::TimedOut);
    assert!(now() - begun >= 10 * SECOND);
}

#[waterspout::test(virtual_time, timeout = 120)]
async fn nothing_is_left_of_endpoints_that_were_dropped_in_the_middle_of_a_transfer() {
    let before = IoLoop::current().coroutines().len();
    let (server, client) = echo_and_client();
    let address = server.local_addr().unwrap();
    let held = IoLoop::current().hold_time();
    let connection = connect(&client, address).await;
    let (mut question, answer) = connection.open_bi().await.unwrap();
    question.write_all(&vec![7; 100_000]).await.unwrap();
    drop(held);

    drop((connection, question, answer, client));
    server.close(0_u32.into(), b"");
    drop(server);
    // What has ended is kept for a while, in case that the other side has not heard of it.
    while IoLoop::current().coroutines().len() > before {
        sleep(SECOND).await;
    }
    net::UdpSocket::bind(address).unwrap();
}

#[test]
fn an_endpoint_whose_loop_is_closed_says_that_it_is_stopping() {
    let io_loop = IoLoop::new().unwrap();
    let (server, client) = io_loop.run_sync(async || echo_and_client()).unwrap();
    let address = server.local_addr().unwrap();
    let connecting = io_loop.run_sync(async || client.connect(address, "localhost").unwrap());
    io_loop.close();
    drop(io_loop);

    let other = IoLoop::new().unwrap();
    other
        .run_sync(async || {
            let again = client.connect(address, "localhost");
            assert_eq!(again.unwrap_err(), ConnectError::EndpointStopping);
            assert!(server.accept().await.is_none());
        })
        .unwrap();
    // In any order, and not on the loop.
    drop(connecting);
    drop((client, server));
}

/// A socket that has room only every other time that it is asked.
#[derive(Debug)]
struct Full {
    inner: Arc<dyn AsyncUdpSocket>,
    asked: AtomicUsize,
}

impl AsyncUdpSocket for Full {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

#[waterspout::test(timeout = 120)]
async fn what_found_no_room_is_sent_later() {
    let (server, config) = configs();
    let server = endpoint(Some(server));
    coroutine::start(echo(server.clone()));
    let runtime = OnLoop::current();
    let inner = runtime.wrap_udp_socket(udp()).unwrap();
    let full = Arc::new(Full { inner, asked: AtomicUsize::new(0) });
    let mut client =
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, full.clone(), runtime)
            .unwrap();
    client.set_default_client_config(config);
    let connection = connect(&client, server.local_addr().unwrap()).await;
    is_echoed(&connection, vec![7; 100_000]).await;
    assert!(full.asked.load(Ordering::Relaxed) > 100);
}

#[waterspout::test]
async fn who_waits_for_room_may_wait_again() {
    let socket = OnLoop::current().wrap_udp_socket(udp()).unwrap();
    let mut room = [socket.clone().create_io_poller(), socket.create_io_poller()];
    for _ in 0..2 {
        for room in &mut room {
            poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
        }
    }
}

#[waterspout::test(timeout = 120)]
async fn connections_go_on_when_their_endpoint_moves_to_another_socket() {
    let (server, client) = echo_and_client();
    let connection = connect(&client, server.local_addr().unwrap()).await;
    is_echoed(&connection, vec![1; 10_000]).await;
    let before = client.local_addr().unwrap();
    client.rebind(udp()).unwrap();
    assert_ne!(client.local_addr().unwrap(), before);
    is_echoed(&connection, vec![2; 10_000]).await;
}

#[waterspout::test]
async fn the_example_prints_what_is_echoed() {
    let mut echo = Command::new(outside::example("quinn_echo"));
    let output = Subprocess::output(echo.stdin(Stdio::null())).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout, b"hello\nover\nQUIC\n");
    assert!(output.status.success());
}
