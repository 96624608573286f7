//! The server of ours that `tests/peers/run` lets other people's clients ask.
//!
//! It serves the same routes on a port without TLS, on one with TLS and on a Unix socket. Of its only argument, a
//! folder, it makes these files: `ca.pem` (who vouches for the two that follow), `server.pem` and `server.key`,
//! `client.pem` and `client.key`, a `stranger.pem` and `stranger.key` that nobody vouches for, and `socket`. When it can be asked, it prints its two ports on a line.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, Error, IsCa, Issuer, KeyPair};
use waterspout::coroutine;
use waterspout::futures::{StreamExt as _, join, stream};
use waterspout::http::{Body, HttpError, HttpServer, Request, Response, StaticFiles, StatusCode};
use waterspout::signal::{self, Signal};
use waterspout::tls::{Roots, Tls};

/// The number of this name in the query, or else `usual`.
fn number(request: &Request, name: &str, usual: u64) -> Result<u64, HttpError> {
    let Some(text) = request.argument(name) else { return Ok(usual) };
    text.parse().map_err(|_| HttpError::new(StatusCode::BAD_REQUEST))
}

async fn answer(mut request: Request, files: &StaticFiles) -> Result<Response, HttpError> {
    match request.path() {
        "/" => Ok(Response::text("Hello, world!")),
        // What comes in goes out, while it comes in.
        "/echo" => {
            let kind = request.headers().get("content-type").cloned();
            let response = Response::new(Body::from(request.into_parts().1));
            Ok(match kind {
                Some(kind) => response.with_header("content-type", kind),
                None => response,
            })
        }
        "/count" => {
            let (mut bytes, mut sum) = (0, 0);
            while let Some(chunk) = request.body_mut().chunk().await? {
                bytes += chunk.len();
                sum += chunk.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            }
            Ok(Response::text(format!("{bytes} bytes, sum {sum}\n")))
        }
        "/large" => {
            let bytes = number(&request, "bytes", 1 << 20)?;
            Ok(Response::new((0..bytes).map(|place| (place % 251) as u8).collect::<Vec<u8>>()))
        }
        // Of unknown length; each line is sent by itself.
        "/lines" => {
            let lines = number(&request, "count", 10)?;
            let lines = stream::iter(0..lines).then(async |line| {
                coroutine::sleep(Duration::from_millis(1)).await;
                Ok::<_, io::Error>(format!("line {line}\n"))
            });
            Ok(Response::text(Body::from_stream(lines)))
        }
        "/slow" => {
            let wait = Duration::from_millis(number(&request, "ms", 100)?);
            coroutine::sleep(wait).await;
            Ok(Response::text("at last\n"))
        }
        path if path.starts_with("/files/") => Ok(files.serve(&request).await),
        "/redirect" => Ok(Response::redirect("/info")),
        "/info" => Ok(Response::json(format!(
            concat!(
                r#"{{"method": "{}", "target": "{}", "version": "{:?}", "scheme": "{}", "#,
                r#""host": "{}", "peer": "{}", "client_certificate": {}}}"#
            ),
            request.method(),
            request.uri().path_and_query().map_or("", |target| target.as_str()),
            request.version(),
            request.scheme(),
            request.host().unwrap_or_default(),
            request.remote_ip().map_or("none".to_owned(), |address| address.to_string()),
            request.peer_certificates().next().is_some(),
        ))),
        _ => Err(HttpError::new(StatusCode::NOT_FOUND)),
    }
}

/// Who vouches for certificates, and its own.
fn authority() -> Result<(Issuer<'static, KeyPair>, String), Error> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), certificate))
}

fn write_certificates(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (ours, certificate) = authority()?;
    std::fs::write(folder.join("ca.pem"), certificate)?;
    for (name, issuer) in [("server", &ours), ("client", &ours), ("stranger", &authority()?.0)] {
        let key = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        // Otherwise it would have the name of its issuer, and OpenSSL takes it for self-signed then.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, issuer)?;
        std::fs::write(folder.join(name).with_extension("pem"), certificate.pem())?;
        std::fs::write(folder.join(name).with_extension("key"), key.serialize_pem())?;
    }
    Ok(())
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: peer_server FOLDER");
        std::process::exit(2)
    };
    let folder = Path::new(&folder);
    write_certificates(folder).expect("certificates can be made and the folder written to");
    let mut terminate = signal::stream(Signal::TERMINATE)?;

    let files = Rc::new(StaticFiles::new(folder).strip_prefix("/files"));
    let answer = async move |request| answer(request, &files).await;
    let plain = HttpServer::new(answer.clone());
    let tls = Tls::from_pem_files(folder.join("server.pem"), folder.join("server.key"))?;
    let tls = tls.request_client_certificates(Roots::from_pem_file(folder.join("ca.pem"))?);
    let secure = HttpServer::new(answer).tls(tls.acceptor()?);
    plain.listen_unix(folder.join("socket"), 0o600)?;
    let ports = (plain.listen_on("127.0.0.1", 0)?, secure.listen_on("127.0.0.1", 0)?);
    println!("{} {}", ports.0, ports.1);

    terminate.recv().await?;
    let limit = Duration::from_secs(5);
    let left = join!(plain.drain(limit), secure.drain(limit));
    if left != (0, 0) {
        eprintln!("connections that did not end in time: {left:?}");
    }
    Ok(())
}
