//! tokio's own timers and tasks, within handlers.

use http::Request;
use waterspout::http::{Body, HttpServer, Incoming};

use super::{SECOND, connect};

async fn in_tokio(
    request: Request<Incoming>,
) -> Result<http::Response<Body>, tokio::task::JoinError> {
    tokio::time::sleep(SECOND / 1000).await;
    let path = request.uri().path().to_owned();
    let spawned = tokio::spawn(async move {
        tokio::time::sleep(SECOND / 1000).await;
        path
    });
    let body = futures::stream::once(async move {
        tokio::time::sleep(SECOND / 1000).await;
        spawned.await
    });
    Ok(http::Response::new(Body::from_stream(body)))
}

#[waterspout::test]
async fn handlers_and_bodies_use_tokio_if_the_server_has_its_context() {
    let server = HttpServer::tower(tower::service_fn(in_tokio)).tokio_context(true);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = connect(port).await;
    assert_eq!(client.get("/one").await.body, "/one");
    assert_eq!(client.get("/two").await.body, "/two");
}

#[waterspout::test]
async fn requests_of_http_2_use_tokio_too() {
    use http_body_util::{BodyExt as _, Empty};
    use waterspout::hyper::{Io, OnLoop};
    let server = HttpServer::tower(tower::service_fn(in_tokio)).tokio_context(true);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let stream = waterspout::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(OnLoop, Io::new(stream)).await.unwrap();
    waterspout::coroutine::start(connection);
    let request =
        Request::get("http://a/three").body(Empty::<waterspout::http::Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "/three");
}
