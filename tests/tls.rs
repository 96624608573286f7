//! TLS: handshakes and what goes wrong in them, certificates, the end of a stream, `start_tls`, servers and
//! clients.

mod common;

use std::cell::Cell;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{exceptions, turns, virtual_loop};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt, join};
use log::Level;
use waterspout::coroutine::{self, sleep};
use waterspout::iostream::{IoStream, Options};
use waterspout::net::{TcpClient, TcpListener, TcpServer, TcpStream, UnixStream};
use waterspout::testing::{ExpectLog, Memory, duplex, half_close_suite, stream_suite, tcp_pair};
use waterspout::tls::rustls::{ClientConfig, RootCertStore, version::TLS12};
use waterspout::tls::{Roots, Tls, TlsAcceptor, TlsConnector, TlsStream, rustls};
use waterspout::{IoLoop, StreamError};

const SECOND: Duration = Duration::from_secs(1);

/// A certificate that vouches for itself, and its key.
struct Made {
    certificate: String,
    key: String,
}

fn made(names: &[&str]) -> Made {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Made { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

impl Made {
    fn tls(&self) -> Tls {
        Tls::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn roots(&self) -> Roots {
        let mut roots = Roots::empty();
        roots.add_pem(self.certificate.as_bytes()).unwrap();
        roots
    }

    fn connector(&self) -> TlsConnector {
        TlsConnector::new(self.roots()).unwrap()
    }

    /// Shows itself as a client.
    fn shown_by(&self, connector: TlsConnector) -> TlsConnector {
        let (certificate, key) = (self.certificate.as_bytes(), self.key.as_bytes());
        connector.client_certificate_pem(certificate, key).unwrap()
    }
}

/// An acceptor and a connector that trusts it.
fn both() -> (TlsAcceptor, TlsConnector) {
    let made = made(&["localhost", "127.0.0.1"]);
    (made.tls().acceptor().unwrap(), made.connector())
}

type Handshake<S> = io::Result<TlsStream<S>>;

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    (acceptor, connector): &(TlsAcceptor, TlsConnector),
    (one, other): (S, S),
) -> (Handshake<S>, Handshake<S>) {
    join!(acceptor.accept(one), connector.connect("localhost", other))
}

/// Both ends of a stream over TLS: the server's first.
async fn pair<S: AsyncRead + AsyncWrite + Unpin>(
    both: &(TlsAcceptor, TlsConnector),
    ends: (S, S),
) -> (TlsStream<S>, TlsStream<S>) {
    let (server, client) = shake_hands(both, ends).await;
    (server.unwrap(), client.unwrap())
}

// ---------------------------------------------------------------------------------------------
// The stream

#[waterspout::test(timeout = 60)]
async fn it_is_a_stream_by_every_check() {
    let both = both();
    stream_suite(async || pair(&both, duplex(1000)).await).await;
}

#[waterspout::test(timeout = 60)]
async fn over_a_unix_socket_it_is_a_stream_by_every_check() {
    let both = both();
    stream_suite(async || pair(&both, UnixStream::pair().unwrap()).await).await;
}

#[waterspout::test(timeout = 60)]
async fn over_tcp_it_is_a_stream_by_every_check() {
    let both = both();
    stream_suite(async || pair(&both, tcp_pair().await.unwrap()).await).await;
}

#[waterspout::test(timeout = 60)]
async fn one_direction_can_be_closed_before_the_other() {
    let both = both();
    half_close_suite(async || pair(&both, duplex(1000)).await).await;
    half_close_suite(async || pair(&both, tcp_pair().await.unwrap()).await).await;
}

/// A connector by a configuration of one's own.
fn tls_1_2(made: &Made) -> TlsConnector {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from_config(Arc::new(config))
}

#[waterspout::test(timeout = 60)]
async fn with_tls_1_2_it_is_a_stream_by_every_check_too() {
    let made = made(&["localhost"]);
    let both = (made.tls().acceptor().unwrap(), tls_1_2(&made));
    let (server, client) = pair(&both, duplex(1000)).await;
    assert_eq!((server.version(), client.version()), ("TLSv1.2", "TLSv1.2"));
    stream_suite(async || pair(&both, duplex(1000)).await).await;
    half_close_suite(async || pair(&both, duplex(1000)).await).await;
}

#[waterspout::test]
async fn a_read_of_nothing_is_not_the_end() {
    let (mut server, mut client) = pair(&both(), duplex(1000)).await;
    assert_eq!(server.read(&mut []).await.unwrap(), 0);
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.read(&mut [0; 2]).await.unwrap(), 1);
}

#[waterspout::test]
async fn a_large_write_that_nobody_awaits_is_sent_before_the_stream_ends() {
    let (server, client) = pair(&both(), tcp_pair().await.unwrap()).await;
    let (server, client) = (IoStream::new(server), IoStream::new(client));
    server.write(common::pattern(5_000_000));
    drop(server);
    assert_eq!(client.read_until_close().await.unwrap(), common::pattern(5_000_000));
}

// ---------------------------------------------------------------------------------------------
// The end

/// A stream of which nothing gets through any more when it is cut.
struct Cut(Memory, Rc<Cell<bool>>);

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.1.get() {
            true => Poll::Ready(Ok(buf.len())),
            false => Pin::new(&mut self.0).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// A client that has sent `part` of something, and whose connection was cut then.
async fn truncated(part: &str) -> TlsStream<Cut> {
    let (one, other) = duplex(100_000);
    let cut = Rc::new(Cell::new(false));
    let ends = (Cut(one, Rc::default()), Cut(other, cut.clone()));
    let (server, mut client) = pair(&both(), ends).await;
    client.write_all(part.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    cut.set(true);
    client.close().await.unwrap();
    server
}

#[waterspout::test]
async fn a_stream_that_is_cut_short_is_an_error_each_time_and_no_end() {
    let mut server = truncated("half of ").await;
    let mut buf = [0; 100];
    assert_eq!(server.read(&mut buf).await.unwrap(), 8);
    for _ in 0..3 {
        let error = server.read(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("close_notify"), "{error}");
    }
}

#[waterspout::test]
async fn an_io_stream_that_is_cut_short_is_closed_with_that_error() {
    let server = IoStream::new(truncated("a line\nhalf of ").await);
    assert_eq!(server.read_until("\n", 100).await.unwrap(), b"a line\n");
    let error = server.read_until_close().await.unwrap_err();
    assert!(
        matches!(&error, StreamError::Closed(Some(error)) if error.kind() == ErrorKind::UnexpectedEof)
    );
    assert_eq!(server.error().unwrap().kind(), ErrorKind::UnexpectedEof);
}

#[waterspout::test]
async fn an_io_stream_says_that_it_ends_however_it_is_closed() {
    let both = both();
    for how in 0..3 {
        let (server, client) = pair(&both, duplex(100_000)).await;
        let (mut server, client) = (IoStream::new(server), IoStream::new(client));
        server.write("all of it").await.unwrap();
        match how {
            0 => server.close(),
            1 => drop(server),
            _ => AsyncWriteExt::close(&mut server).await.unwrap(),
        }
        assert_eq!(client.read_until_close().await.unwrap(), b"all of it");
        assert!(client.error().is_none());
    }
}

/// A stream that panics when it is written to while it is dropped.
struct Panics(Memory, Rc<Cell<bool>>);

impl AsyncRead for Panics {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Panics {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.1.get(), "a stream that panics");
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_panic_of_what_it_is_over_does_not_come_out_of_its_destructor() {
    let heard = exceptions(IoLoop::builder(), async || {
        let (one, other) = duplex(100_000);
        let panics = Rc::new(Cell::new(false));
        let ends = (Panics(one, Rc::default()), Panics(other, panics.clone()));
        let (_server, client) = pair(&both(), ends).await;
        panics.set(true);
        drop(client);
    });
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("a stream that panics"), "{heard:?}");
}

#[test]
fn dropped_on_another_thread_it_is_just_dropped() {
    let io_loop = IoLoop::new().unwrap();
    let pair = io_loop.run_sync(async || pair(&both(), tcp_pair().await.unwrap()).await);
    let (mut server, client) = pair.unwrap();
    std::thread::spawn(move || drop(client)).join().unwrap();
    // Nothing could be sent there, so this is no clean end.
    let read = io_loop.run_sync(async move || server.read(&mut [0; 10]).await);
    assert!(read.unwrap().is_err());
}

// ---------------------------------------------------------------------------------------------
// Handshakes that fail

async fn accept_error(client_says: &[u8]) -> (io::Error, Vec<u8>) {
    let (one, mut other) = duplex(100_000);
    let accepting = coroutine::start(both().0.accept(one));
    other.write_all(client_says).await.unwrap();
    let error = accepting.await.unwrap_err();
    let mut alert = Vec::new();
    other.read_to_end(&mut alert).await.unwrap();
    (error, alert)
}

#[waterspout::test]
async fn whoever_speaks_another_protocol_gets_an_alert_and_the_server_a_clear_error() {
    for says in
        ["GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "\0\0\0\0\0\0", "\x16\x03\x01\0\x06hihihi"]
    {
        let (error, alert) = accept_error(says.as_bytes()).await;
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{says:?}");
        assert!(error.to_string().contains("does not speak TLS"), "{says:?}: {error}");
        let inner = error.get_ref().unwrap().source().unwrap();
        assert!(inner.is::<rustls::Error>());
        // A record of that type; rustls sends none for a handshake that would be too long.
        let expected = (!says.ends_with("hihihi")).then_some(&21);
        assert_eq!(alert.first(), expected, "{says:?}: {alert:?}");
    }
}

#[waterspout::test]
async fn a_client_of_a_server_that_speaks_another_protocol_gets_a_clear_error() {
    let server =
        TcpServer::new(async |stream, _| stream.write("220 mail.example.org ESMTP\r\n").await);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = TcpClient::new();
    let error = client.connect_tls(&both().1, "localhost", port).await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[waterspout::test]
async fn an_end_in_the_midst_of_a_handshake_is_an_error() {
    for says in [&b""[..], b"\x16\x03\x01\x02\0\x01"] {
        let (one, mut other) = duplex(1000);
        other.write_all(says).await.unwrap();
        drop(other);
        let error = both().0.accept(one).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("during the TLS handshake"), "{error}");
    }
}

#[test]
fn a_silent_peer_is_given_up_after_the_time_limit() {
    let io_loop = virtual_loop();
    let begun = io_loop.time();
    let run = io_loop.run_sync(async || {
        let (acceptor, connector) = both();
        let (one, mut other) = duplex(1000);
        // Slowly is not enough, either.
        let slow = coroutine::start(async move {
            for byte in b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" {
                sleep(SECOND).await;
                _ = other.write_all(&[*byte]).await;
            }
        });
        let error = acceptor.accept(one).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("longer than 10s"), "{error}");
        slow.cancel();
        let (one, _other) = duplex(1000);
        let connector = connector.handshake_timeout(20 * SECOND);
        let error = connector.connect("localhost", one).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
    run.unwrap();
    assert_eq!(io_loop.time() - begun, 30 * SECOND);
}

#[waterspout::test]
async fn a_server_that_is_somebody_else_or_that_nobody_vouches_for_is_not_believed() {
    let (ours, theirs) = (made(&["localhost"]), made(&["elsewhere.example"]));
    let acceptor = theirs.tls().acceptor().unwrap();
    let (server, client) =
        shake_hands(&(acceptor.clone(), theirs.connector()), duplex(10_000)).await;
    let error = client.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    // It is told.
    let error = server.unwrap_err().to_string();
    assert!(error.contains("alert"), "{error}");
    let (_server, client) = shake_hands(&(acceptor, ours.connector()), duplex(10_000)).await;
    assert_eq!(client.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[waterspout::test]
async fn what_is_no_name_of_a_host_is_an_error() {
    let (one, _other) = duplex(1000);
    let error = both().1.connect("no such: name", one).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn whoever_trusts_nobody_is_told_so() {
    let error = TlsConnector::new(Roots::empty()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let tls = made(&["localhost"]).tls().require_client_certificates(Roots::empty());
    assert_eq!(tls.acceptor().unwrap_err().kind(), ErrorKind::InvalidInput);
}

// ---------------------------------------------------------------------------------------------
// What both agree on

#[waterspout::test]
async fn the_protocol_is_agreed_on_by_alpn() {
    let made = made(&["localhost"]);
    let acceptor = made.tls().alpn(["h2", "http/1.1"]).acceptor().unwrap();
    let agree = async |connector: TlsConnector| {
        let both = (acceptor.clone(), connector);
        shake_hands(&both, duplex(10_000)).await
    };
    let (server, client) = agree(made.connector().alpn(["http/1.1", "h2"])).await;
    assert_eq!(client.unwrap().alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(server.unwrap().alpn_protocol(), Some(&b"h2"[..]));
    let (server, client) = agree(made.connector()).await;
    assert_eq!((server.unwrap().alpn_protocol(), client.unwrap().alpn_protocol()), (None, None));
    let (server, client) = agree(made.connector().alpn(["smtp"])).await;
    let error = client.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    assert_eq!(server.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[waterspout::test]
async fn each_name_is_shown_its_certificate() {
    let made = [made(&["localhost", "127.0.0.1"]), made(&["a.example"]), made(&["*.b.example"])];
    let pem = |made: &Made| (made.certificate.clone().into_bytes(), made.key.clone().into_bytes());
    let [_, (a, a_key), (b, b_key)] = made.each_ref().map(pem);
    let tls = made[0].tls().add_pem("A.example", &a, &a_key).unwrap();
    let acceptor = tls.add_pem("*.b.example", &b, &b_key).unwrap().acceptor().unwrap();
    for (name, expected) in
        [("localhost", 0), ("127.0.0.1", 0), ("a.example", 1), ("A.EXAMPLE", 1), ("x.b.example", 2)]
    {
        let (one, other) = duplex(10_000);
        let connector = made[expected].connector();
        let (server, client) = join!(acceptor.accept(one), connector.connect(name, other));
        let (server, client) = (server.unwrap(), client.unwrap());
        let asked = (name != "127.0.0.1").then(|| name.to_ascii_lowercase());
        assert_eq!(server.server_name(), asked.as_deref());
        assert_eq!(client.server_name(), None);
        assert_eq!(client.peer_certificates().count(), 1);
    }
    // It is one level below, and not that itself.
    let (one, other) = duplex(10_000);
    let connector = made[2].connector();
    let (_server, client) = join!(acceptor.accept(one), connector.connect("b.example", other));
    assert!(client.is_err());
}

#[waterspout::test]
async fn clients_have_to_say_who_they_are_if_the_server_wants_it() {
    let (server, known, stranger) = (made(&["localhost"]), made(&["known"]), made(&["stranger"]));
    let required = server.tls().require_client_certificates(known.roots()).acceptor().unwrap();
    let requested = server.tls().request_client_certificates(known.roots()).acceptor().unwrap();
    let shown = |client: Option<&Made>| match client {
        Some(client) => client.shown_by(server.connector()),
        None => server.connector(),
    };
    for (acceptor, client, is_let_in) in [
        (&required, Some(&known), true),
        (&required, Some(&stranger), false),
        (&required, None, false),
        (&requested, Some(&known), true),
        (&requested, Some(&stranger), false),
        (&requested, None, true),
    ] {
        let both = (acceptor.clone(), shown(client));
        let (accepted, connected) = shake_hands(&both, duplex(10_000)).await;
        assert_eq!(accepted.is_ok(), is_let_in);
        let Ok(accepted) = accepted else {
            // With TLS 1.3, the client learns of that later.
            let error = connected.unwrap().read(&mut [0; 10]).await.unwrap_err();
            assert!(error.to_string().contains("alert"), "{error}");
            continue;
        };
        assert_eq!(accepted.peer_certificates().count(), usize::from(client.is_some()));
    }
}

// ---------------------------------------------------------------------------------------------
// Files

/// A folder for the files of a test, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("waterspout-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_that_is_of_no_use_is_named_in_the_error() {
    let folder = Folder::new("tls-files");
    let (one, other) = (made(&["localhost"]), made(&["localhost"]));
    let (certificate, key) = (folder.write("c", &one.certificate), folder.write("k", &one.key));
    let (none, wrong) = (folder.write("none", "nothing"), folder.write("wrong", &other.key));
    let missing = folder.0.join("missing");
    Tls::from_pem_files(&certificate, &key).unwrap();
    for (certificate, key, kind, named) in [
        (&missing, &key, ErrorKind::NotFound, &missing),
        (&certificate, &missing, ErrorKind::NotFound, &missing),
        (&none, &key, ErrorKind::InvalidData, &none),
        (&certificate, &none, ErrorKind::InvalidData, &none),
        (&certificate, &wrong, ErrorKind::InvalidData, &certificate),
    ] {
        let error = Tls::from_pem_files(certificate, key).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().starts_with(&named.display().to_string()), "{error}");
    }
    let error = Roots::from_pem_file(&none).unwrap_err().to_string();
    assert!(error.contains("there is no certificate in it"), "{error}");
    assert_eq!(Roots::from_pem_file(&certificate).unwrap().len(), 1);
}

#[test]
fn what_is_shown_of_an_acceptor_is_no_key() {
    let made = made(&["localhost"]);
    let tls = made.tls().add_pem("a.example", made.certificate.as_bytes(), made.key.as_bytes());
    let tls = tls.unwrap();
    let shown = format!("{tls:?} {:?} {:?}", tls.clone().acceptor().unwrap(), made.connector());
    assert_eq!(
        shown,
        "Tls { names: {\"a.example\"}, handshake_timeout: 10s, .. } \
         TlsAcceptor { names: Some({\"a.example\"}), handshake_timeout: 10s, .. } \
         TlsConnector { handshake_timeout: 10s, .. }"
    );
}

#[waterspout::test]
async fn certificates_are_read_again_without_a_restart_all_or_none() {
    let folder = Folder::new("tls-reload");
    let (old, new) = (made(&["localhost"]), made(&["localhost"]));
    let (certificate, key) = (folder.write("c", &old.certificate), folder.write("k", &old.key));
    let tls = Tls::from_pem_files(&certificate, &key).unwrap();
    let acceptor = tls.add_pem_files("b.example", &certificate, &key).unwrap().acceptor().unwrap();
    let shows = async |made: &Made| {
        let both = (acceptor.clone(), made.connector());
        shake_hands(&both, duplex(10_000)).await.1.is_ok()
    };
    let (server, client) = pair(&(acceptor.clone(), old.connector()), duplex(10_000)).await;
    assert!(!shows(&new).await);

    folder.write("c", &new.certificate);
    let error = acceptor.clone().reload().unwrap_err();
    assert!(error.to_string().starts_with(&certificate.display().to_string()), "{error}");
    assert!(shows(&old).await && !shows(&new).await);

    folder.write("k", &new.key);
    acceptor.clone().reload().unwrap();
    assert!(shows(&new).await && !shows(&old).await);
    // Who is connected, stays so.
    let (server, client) = (IoStream::new(server), IoStream::new(client));
    client.write("still\n").await.unwrap();
    assert_eq!(server.read_until("\n", 100).await.unwrap(), b"still\n");
}

// ---------------------------------------------------------------------------------------------
// start_tls

#[waterspout::test]
async fn a_stream_goes_on_over_tls_and_what_had_arrived_before_belongs_to_that() {
    let (acceptor, connector) = both();
    let (one, other) = tcp_pair().await.unwrap();
    let options = Options { max_buffer_size: 4000, ..Options::default() };
    let server = IoStream::with_options(one, options);
    let client = IoStream::new(other);
    // A client that does not wait for the answer: its handshake comes with the command.
    client.write("STARTTLS\r\n");
    let connecting = coroutine::start(client.start_tls(&connector, "localhost"));
    server.read_until("\r\n", 100).await.unwrap();
    turns(20).await;
    let server = server.start_tls_server(&acceptor).await.unwrap();
    let client = connecting.await.unwrap();
    client.write("a secret\n").await.unwrap();
    assert_eq!(server.read_until("\n", 100).await.unwrap(), b"a secret\n");
    // Its limits have stayed.
    let error = server.read_bytes(5000).await.unwrap_err();
    assert!(matches!(error, StreamError::Closed(Some(_))), "{error:?}");
}

#[waterspout::test]
async fn what_was_written_before_is_sent_in_the_clear() {
    let (acceptor, connector) = both();
    let (one, other) = duplex(5000);
    let (server, client) = (IoStream::new(one), IoStream::new(other));
    let greeting = format!("220 this is more than fits at once{:6000}\r\n", "");
    server.write(&greeting);
    assert!(server.writing());
    let accepting = coroutine::start(server.start_tls_server(&acceptor));
    assert_eq!(client.read_until("\r\n", 10_000).await.unwrap(), greeting.as_bytes());
    let client = client.start_tls(&connector, "localhost").await.unwrap();
    let server = accepting.await.unwrap();
    server.write("over TLS\n");
    assert_eq!(client.read_until("\n", 100).await.unwrap(), b"over TLS\n");
}

/// Somebody in between puts words of his own behind the command, in the clear, for the server to take them
/// for the client's once that is known.
#[waterspout::test]
async fn words_injected_behind_starttls_are_not_taken_for_what_came_over_tls() {
    let (acceptor, connector) = both();
    let (one, mut other) = duplex(10_000);
    let server = IoStream::new(one);
    other.write_all(b"STARTTLS\r\nMAIL FROM:<mallory@example.org>\r\n").await.unwrap();
    assert_eq!(server.read_until("\r\n", 100).await.unwrap(), b"STARTTLS\r\n");
    let same = server.clone();
    let accepting = coroutine::start(server.start_tls_server(&acceptor));
    let connected = connector.connect("localhost", other).await;
    assert!(connected.is_err());
    let error = accepting.await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    // And it does not go on in the clear.
    assert!(same.is_closed());
    assert!(matches!(same.read_until("\r\n", 100).await, Err(StreamError::Closed(None))));
}

#[waterspout::test]
async fn an_answer_injected_behind_the_servers_fails_the_handshake_of_the_client() {
    let (_, connector) = both();
    let (one, mut other) = duplex(10_000);
    let client = IoStream::new(one);
    other.write_all(b"220 go ahead\r\n250 all is well\r\n").await.unwrap();
    client.read_until("\r\n", 100).await.unwrap();
    let error = client.start_tls(&connector, "localhost").await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[waterspout::test]
async fn a_stream_that_is_being_read_or_is_closed_does_not_go_on() {
    let (acceptor, _) = both();
    let (one, _other) = duplex(1000);
    let stream = IoStream::new(one);
    let reading = coroutine::start(stream.read_bytes(1));
    let error = stream.start_tls_server(&acceptor).await.unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<StreamError>();
    assert!(matches!(inner, Some(StreamError::NotIdle)), "{error:?}");
    reading.cancel();
    let (one, other) = duplex(1000);
    let stream = IoStream::new(one);
    drop(other);
    _ = stream.read_bytes(1).await;
    assert!(stream.start_tls_server(&acceptor).await.is_err());
}

#[test]
fn the_time_limit_covers_what_is_unsent() {
    let io_loop = virtual_loop();
    let begun = io_loop.time();
    let run = io_loop.run_sync(async || {
        let (one, _nobody_reads) = duplex(10);
        let stream = IoStream::new(one);
        stream.write("220 this is more than fits at once\r\n");
        let acceptor = both().0.handshake_timeout(SECOND);
        let error = stream.start_tls_server(&acceptor).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
    run.unwrap();
    assert_eq!(io_loop.time() - begun, SECOND);
}

// ---------------------------------------------------------------------------------------------
// Servers and clients

#[waterspout::test]
async fn a_server_in_one_line_answers_clients_and_says_who_cannot_speak_tls() {
    let (acceptor, connector) = both();
    let server = TcpServer::tls(acceptor, async |stream, peer| {
        let from = stream.with_io(|tls| tls.get_ref().peer_addr()).unwrap()?;
        assert_eq!(from, peer);
        while let Ok(line) = stream.read_until(b"\n", 1024).await {
            stream.write(line);
        }
        Ok::<(), io::Error>(())
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = TcpClient::new().timeout(60 * SECOND);
    let stream = client.connect_tls(&connector, "localhost", port).await.unwrap();
    let stream = IoStream::new(stream);
    stream.write("one\n");
    assert_eq!(stream.read_until("\n", 100).await.unwrap(), b"one\n");

    let told = ExpectLog::new("waterspout::net", "no handshake with 127.0.0.1:").level(Level::Info);
    let plain = IoStream::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    plain.write("GET / HTTP/1.0\r\n\r\n");
    let alert = plain.read_until_close().await.unwrap();
    assert_eq!(alert.first(), Some(&21));
    drop(told);

    stream.write("two\n");
    assert_eq!(stream.read_until("\n", 100).await.unwrap(), b"two\n");
    stream.close();
    assert_eq!(server.drain(60 * SECOND).await, 0);
}

#[waterspout::test]
async fn a_connection_has_ended_when_what_its_handler_has_written_is_sent() {
    let (acceptor, connector) = both();
    let server =
        TcpServer::tls(acceptor, async |stream, _| drop(stream.write(common::pattern(30_000_000))));
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let stream = TcpClient::new().connect_tls(&connector, "localhost", port).await.unwrap();
    turns(100).await;
    assert_eq!(server.connections(), 1);
    let received = IoStream::new(stream).read_until_close().await.unwrap();
    assert_eq!(received, common::pattern(30_000_000));
    assert_eq!(server.drain(60 * SECOND).await, 0);
}

#[test]
fn a_client_that_ends_without_saying_so_is_no_exception_and_a_handler_that_fails_is_one() {
    let heard = exceptions(IoLoop::builder(), async || {
        let (acceptor, connector) = both();
        let server = TcpServer::tls(acceptor, async |stream, _| {
            match &stream.read_until(b"\n", 1024).await?[..] {
                b"fail\n" => Err(io::Error::other("the handler's own")),
                _ => Ok(()),
            }
        });
        let port = server.listen_on("127.0.0.1", 0).unwrap();
        let client = TcpClient::new();
        let stream = client.connect_tls(&connector, "localhost", port).await.unwrap();
        // Below TLS.
        stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(IoStream::new(stream).read_until_close().await.unwrap(), b"");
        let stream = client.connect_tls(&connector, "localhost", port).await.unwrap();
        let stream = IoStream::new(stream);
        stream.write("fail\n").await.unwrap();
        assert_eq!(stream.read_until_close().await.unwrap(), b"");
        server.drain(60 * SECOND).await;
    });
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("the handler's own"), "{heard:?}");
}

#[test]
fn the_time_limit_of_a_client_covers_the_handshake() {
    let io_loop = virtual_loop();
    let begun = io_loop.time();
    let run = io_loop.run_sync(async || {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let client = TcpClient::new().timeout(3 * SECOND);
        let error = client.connect_tls(&both().1, "127.0.0.1", port).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("connecting to 127.0.0.1:"), "{error}");
    });
    run.unwrap();
    assert_eq!(io_loop.time() - begun, 3 * SECOND);
}

#[waterspout::test]
async fn silent_clients_keep_nobody_from_being_served() {
    let (acceptor, connector) = both();
    let server = TcpServer::tls(acceptor, async |stream, _| stream.write("hello").await);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let stream = TcpClient::new().connect_tls(&connector, "localhost", port).await.unwrap();
    assert_eq!(IoStream::new(stream).read_until_close().await.unwrap(), b"hello");
}

#[waterspout::test]
async fn a_handshake_that_is_given_up_drops_its_stream() {
    let (one, mut other) = duplex(1000);
    let accepting = coroutine::start(both().0.accept(one));
    turns(5).await;
    accepting.cancel();
    assert_eq!(other.read(&mut [0; 10]).await.unwrap(), 0);
    // And while nothing is ready, nothing runs.
    let (one, _other) = duplex(1000);
    let waiting = coroutine::start(both().0.accept(one));
    turns(5).await;
    let before = IoLoop::current().counters().resumes;
    turns(10).await;
    assert!(IoLoop::current().counters().resumes - before <= 12);
    assert!(!waiting.done());
}

/// hyper over TLS, with the protocol that both have agreed on.
#[cfg(feature = "hyper")]
#[waterspout::test]
async fn hyper_speaks_what_alpn_says() {
    use http_body_util::{BodyExt as _, Empty, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::service::service_fn;
    use hyper::{Request, Response, client, server};
    use std::convert::Infallible;
    use waterspout::hyper::{Io, OnLoop};

    let made = made(&["localhost"]);
    let acceptor = made.tls().alpn(["h2", "http/1.1"]).acceptor().unwrap();
    let handshake = async move |stream, _| acceptor.accept(stream).await;
    let server =
        TcpServer::wrapping(10 * SECOND, handshake, async |stream: TlsStream<TcpStream>| {
            let service = service_fn(async |request: Request<Incoming>| {
                let body = format!("{:?}", request.version());
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
            });
            match stream.alpn_protocol() {
                Some(b"h2") => {
                    let http = server::conn::http2::Builder::new(OnLoop);
                    let service = service_fn(async |request: Request<Incoming>| {
                        let body = format!("{:?}", request.version());
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
                    });
                    http.serve_connection(Io::new(stream), service).await
                }
                _ => {
                    let mut http = server::conn::http1::Builder::new();
                    http.timer(OnLoop).serve_connection(Io::new(stream), service).await
                }
            }
        });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let request = || {
        Request::get("http://localhost/").header("host", "localhost").body(Empty::<Bytes>::new())
    };
    let client = TcpClient::new();
    for protocol in ["h2", "http/1.1"] {
        let connector = made.connector().alpn([protocol]);
        let stream = client.connect_tls(&connector, "localhost", port).await.unwrap();
        let stream = Io::new(stream);
        let response = if protocol == "h2" {
            let (mut sender, connection) =
                client::conn::http2::handshake(OnLoop, stream).await.unwrap();
            coroutine::start(connection);
            sender.send_request(request().unwrap()).await.unwrap()
        } else {
            let (mut sender, connection) = client::conn::http1::handshake(stream).await.unwrap();
            coroutine::start(connection);
            sender.send_request(request().unwrap()).await.unwrap()
        };
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, if protocol == "h2" { "HTTP/2.0" } else { "HTTP/1.1" });
    }
}
