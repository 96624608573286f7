//! rustls by futures-rustls: a handshake on the way to the handler, with a time limit.

use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};
use waterspout::iostream::IoStream;
use waterspout::net::{TcpServer, TcpStream};

#[waterspout::test]
async fn a_tls_echo_is_an_io_stream_over_what_the_handshake_gives() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let limit = Duration::from_secs(10);
    let handshake = async move |stream, _peer| acceptor.accept(stream).await.map(IoStream::new);
    let server = TcpServer::wrapping(limit, handshake, async |stream| {
        while let Ok(line) = stream.read_until(b"\n", 1024).await {
            stream.write(line).await?;
        }
        Ok::<(), waterspout::StreamError>(())
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let stream = IoStream::new(stream);
    stream.write("over TLS\n");
    assert_eq!(stream.read_until(b"\n", 1024).await.unwrap(), b"over TLS\n");
    // Who speaks no TLS disturbs nobody.
    let plain = IoStream::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    plain.write("GET / HTTP/1.0\r\n\r\n");
    let _alert = plain.read_until_close().await;
    stream.write("still there\n");
    assert_eq!(stream.read_until(b"\n", 1024).await.unwrap(), b"still there\n");
}
