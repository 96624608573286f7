//! `tls RUNTIME handshakes|bulk N`: TLS 1.3 by rustls and ring over TCP on loopback, both ends on one thread.
//!
//! `handshakes`: N connections are made, one after the other, each with a full handshake. `bulk`: N MiB are
//! sent over one connection, and each is answered by a byte before the next one is sent, so that it does not
//! matter how much of a stream is under way (and in the cache) at a time. Prints `RUNTIME CASE N cpu_us=.. wall_us=..`, which are microseconds of CPU time
//! (of both ends, with the kernel's part) and of time, for each handshake or MiB.
//!
//! The configurations are rustls' defaults, and the same for both runtimes, but that the client does not
//! resume sessions.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peers::rt::{Runtime, tokio_rt, waterspout_rt};
use peers::util::cpu_time;
use socket2::SockRef;
use waterspout::tls::rustls::client::Resumption;
use waterspout::tls::rustls::crypto::ring;
use waterspout::tls::rustls::pki_types::PrivateKeyDer;
use waterspout::tls::rustls::{ClientConfig, RootCertStore, ServerConfig};

const HOST: &str = "localhost";
const ANY_PORT: &str = "127.0.0.1:0";
/// How much is written and read at a time.
const CHUNK: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// What connects and accepts by TLS.
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configs {
    fn new() -> Configs {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a key");
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        Configs { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// TLS of one runtime.
trait Ends: Sized + 'static {
    type Client: 'static;
    type Server: 'static;

    fn listen(configs: &Configs) -> impl Future<Output = io::Result<Self>>;
    fn addr(&self) -> SocketAddr;
    fn connect(&self) -> impl Future<Output = io::Result<Self::Client>>;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Server>>;
    /// Sends so many MiB, each when the one before it was answered by a byte.
    fn send(client: Self::Client, mib: usize) -> impl Future<Output = io::Result<()>>;
    /// Reads so many MiB, and answers each by a byte.
    fn receive(server: Self::Server, mib: usize) -> impl Future<Output = io::Result<()>>;
}

/// Close with a reset, so that no TIME_WAIT eats the port range.
fn reset<'a>(stream: impl Into<SockRef<'a>>) -> io::Result<()> {
    stream.into().set_linger(Some(Duration::ZERO))
}

struct Waterspout {
    listener: waterspout::net::TcpListener,
    acceptor: waterspout::tls::TlsAcceptor,
    connector: waterspout::tls::TlsConnector,
}

impl Ends for Waterspout {
    type Client = waterspout::tls::TlsStream<waterspout::net::TcpStream>;
    type Server = waterspout::tls::TlsStream<waterspout::net::TcpStream>;

    async fn listen(configs: &Configs) -> io::Result<Self> {
        Ok(Waterspout {
            listener: waterspout::net::TcpListener::bind(ANY_PORT).await?,
            acceptor: waterspout::tls::TlsAcceptor::from_config(configs.server.clone()),
            connector: waterspout::tls::TlsConnector::from_config(configs.client.clone()),
        })
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    async fn connect(&self) -> io::Result<Self::Client> {
        let stream = waterspout::net::TcpStream::connect(self.addr()).await?;
        reset(&stream)?;
        self.connector.connect(HOST, stream).await
    }

    async fn accept(&self) -> io::Result<Self::Server> {
        let (stream, _) = self.listener.accept().await?;
        reset(&stream)?;
        self.acceptor.accept(stream).await
    }

    async fn send(mut client: Self::Client, mib: usize) -> io::Result<()> {
        use futures_lite::{AsyncReadExt, AsyncWriteExt};
        let chunk = vec![b'x'; CHUNK];
        for _ in 0..mib {
            for _ in 0..MIB / CHUNK {
                client.write_all(&chunk).await?;
            }
            client.flush().await?;
            client.read_exact(&mut [0]).await?;
        }
        Ok(())
    }

    async fn receive(mut server: Self::Server, mib: usize) -> io::Result<()> {
        use futures_lite::{AsyncReadExt, AsyncWriteExt};
        let mut buf = vec![0; CHUNK];
        for _ in 0..mib {
            let mut left = MIB;
            while left > 0 {
                let most = left.min(CHUNK);
                match server.read(&mut buf[..most]).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => left -= n,
                }
            }
            server.write_all(b"!").await?;
            server.flush().await?;
        }
        Ok(())
    }
}

struct Tokio {
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    connector: tokio_rustls::TlsConnector,
}

impl Ends for Tokio {
    type Client = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;
    type Server = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

    async fn listen(configs: &Configs) -> io::Result<Self> {
        Ok(Tokio {
            listener: tokio::net::TcpListener::bind(ANY_PORT).await?,
            acceptor: configs.server.clone().into(),
            connector: configs.client.clone().into(),
        })
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    async fn connect(&self) -> io::Result<Self::Client> {
        let stream = tokio::net::TcpStream::connect(self.addr()).await?;
        stream.set_nodelay(true)?;
        reset(&stream)?;
        self.connector.connect(HOST.try_into().expect("a name"), stream).await
    }

    async fn accept(&self) -> io::Result<Self::Server> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        reset(&stream)?;
        self.acceptor.accept(stream).await
    }

    async fn send(mut client: Self::Client, mib: usize) -> io::Result<()> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let chunk = vec![b'x'; CHUNK];
        for _ in 0..mib {
            for _ in 0..MIB / CHUNK {
                client.write_all(&chunk).await?;
            }
            client.flush().await?;
            client.read_exact(&mut [0]).await?;
        }
        Ok(())
    }

    async fn receive(mut server: Self::Server, mib: usize) -> io::Result<()> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut buf = vec![0; CHUNK];
        for _ in 0..mib {
            let mut left = MIB;
            while left > 0 {
                let most = left.min(CHUNK);
                match server.read(&mut buf[..most]).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => left -= n,
                }
            }
            server.write_all(b"!").await?;
            server.flush().await?;
        }
        Ok(())
    }
}

/// Both ends of a new connection: the accepting one is a task of its own.
async fn pair<R: Runtime, E: Ends>(ends: &Rc<E>) -> (E::Client, E::Server) {
    let accepting = ends.clone();
    let server = R::spawn(async move { accepting.accept().await });
    let client = ends.connect().await.expect("connect");
    (client, server.await.expect("accept"))
}

async fn handshakes<R: Runtime, E: Ends>(ends: &Rc<E>, n: usize) {
    for _ in 0..n {
        drop(pair::<R, E>(ends).await);
    }
}

async fn bulk<R: Runtime, E: Ends>(ends: &Rc<E>, mib: usize) {
    let (client, server) = pair::<R, E>(ends).await;
    let received = R::spawn(E::receive(server, mib));
    E::send(client, mib).await.expect("send");
    received.await.expect("receive");
}

async fn measured<R: Runtime, E: Ends>(name: String, case: String, n: usize) {
    let ends = Rc::new(E::listen(&Configs::new()).await.expect("listen"));
    let run = async |n| match case.as_str() {
        "handshakes" => handshakes::<R, E>(&ends, n).await,
        "bulk" => bulk::<R, E>(&ends, n).await,
        _ => panic!("handshakes or bulk"),
    };
    run(n.div_ceil(10)).await;
    let (begun, cpu) = (Instant::now(), cpu_time());
    run(n).await;
    let (cpu, wall) = (cpu_time() - cpu, begun.elapsed());
    let each = |time: Duration| time.as_secs_f64() * 1e6 / n as f64;
    println!("{name} {case} {n} cpu_us={:.2} wall_us={:.2}", each(cpu), each(wall));
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, case, n] = args.as_slice() else {
        eprintln!("usage: tls waterspout|tokio handshakes|bulk N");
        std::process::exit(2);
    };
    let (name, case, n) = (name.clone(), case.clone(), n.parse().expect("N"));
    match name.as_str() {
        "waterspout" => {
            waterspout_rt::Own::block_on(measured::<waterspout_rt::Own, Waterspout>(name, case, n));
        }
        "tokio" => {
            tokio_rt::LocalSet::block_on(measured::<tokio_rt::LocalSet, Tokio>(name, case, n));
        }
        _ => panic!("waterspout or tokio"),
    }
}
