//! An echo server that speaks QUIC, and its client, on one loop:
//! `cargo run --manifest-path tests/outside/Cargo.toml --example quinn_echo`.
//!
//! The adapter is `outside::quinn`, a file to copy.

use std::error::Error;
use std::sync::Arc;

use outside::quinn::OnLoop;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::PrivatePkcs8KeyDer;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, Incoming, ServerConfig};

/// quinn's own `Endpoint::server` and `Endpoint::client` know only the runtimes that quinn brings along.
fn endpoint(config: Option<ServerConfig>) -> std::io::Result<Endpoint> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    Endpoint::new(EndpointConfig::default(), config, socket, OnLoop::current())
}

#[waterspout::coroutine]
async fn serve(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        converse(incoming);
    }
}

#[waterspout::coroutine]
async fn converse(incoming: Incoming) -> Result<(), Box<dyn Error>> {
    let connection = incoming.await?;
    // Until the client closes the connection.
    while let Ok((mut answer, mut question)) = connection.accept_bi().await {
        let text = question.read_to_end(1024).await?;
        answer.write_all(&text).await?;
        answer.finish()?;
    }
    Ok(())
}

async fn ask(connection: &Connection, text: &str) -> Result<String, Box<dyn Error>> {
    let (mut question, mut answer) = connection.open_bi().await?;
    question.write_all(text.as_bytes()).await?;
    question.finish()?;
    Ok(String::from_utf8(answer.read_to_end(1024).await?)?)
}

#[waterspout::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    let server = endpoint(Some(config))?;
    serve(server.clone());

    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut client = endpoint(None)?;
    client.set_default_client_config(ClientConfig::with_root_certificates(Arc::new(roots))?);
    let connection = client.connect(server.local_addr()?, "localhost")?.await?;
    for text in ["hello", "over", "QUIC"] {
        println!("{}", ask(&connection, text).await?);
    }

    // The server hears of this only if it is sent before the loop ends.
    connection.close(0_u32.into(), b"done");
    client.wait_idle().await;
    Ok(())
}
