//! tonic's services and clients over hyper, without tonic's transport: single messages, streams in each
//! direction, and streams whose other end is gone.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, LocalBoxFuture};
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::service::TowerToHyperService;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;
use waterspout::concurrent::{Receiver, Sender, channel};
use waterspout::coroutine::{self, multi_outputs, sleep};
use waterspout::http::HttpServer;
use waterspout::hyper::{Io, OnLoop};
use waterspout::net::{TcpServer, TcpStream};

const SECOND: Duration = Duration::from_secs(1);

/// `tonic-build` makes this, the service and the client of a `.proto` file. It needs `protoc` for that, so
/// they are written by hand here.
#[derive(Clone, PartialEq, prost::Message)]
struct Line {
    #[prost(string, tag = "1")]
    text: String,
}

fn codec() -> ProstCodec<Line, Line> {
    ProstCodec::default()
}

fn line(text: impl ToString) -> Line {
    Line { text: text.to_string() }
}

async fn shout(request: Request<Line>) -> Result<Response<Line>, Status> {
    // What this crate gives may be awaited, if it is `Send`.
    sleep(SECOND / 1000).await;
    match request.get_ref().text.as_str() {
        "" => Err(Status::invalid_argument("nothing to shout")),
        text => Ok(Response::new(line(text.to_uppercase()))),
    }
}

/// A line for each word. After a last word "...", the stream is open until it is dropped.
async fn split(
    request: Request<Line>,
    dropped: Sender<()>,
) -> Result<Response<BoxStream<'static, Result<Line, Status>>>, Status> {
    let text = request.into_inner().text;
    let (words, goes_on) = match text.strip_suffix(" ...") {
        Some(words) => (words, true),
        None => (text.as_str(), false),
    };
    let words: Vec<_> = words.split(' ').map(line).collect();
    let words = stream::iter(words).then(async |word| {
        sleep(SECOND / 1000).await;
        Ok(word)
    });
    let rest = stream::once(async move {
        let _until_dropped = Tells(dropped);
        pending().await
    });
    Ok(Response::new(if goes_on { words.chain(rest).boxed() } else { words.boxed() }))
}

/// Tells that it was dropped.
struct Tells(Sender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.try_send(()).unwrap();
    }
}

async fn join(request: Request<Streaming<Line>>) -> Result<Response<Line>, Status> {
    let lines: Vec<_> = request.into_inner().map_ok(|line| line.text).try_collect().await?;
    Ok(Response::new(line(lines.join(" "))))
}

async fn echo(request: Request<Streaming<Line>>) -> Result<Response<Streaming<Line>>, Status> {
    Ok(Response::new(request.into_inner()))
}

#[derive(Clone)]
struct Lines {
    dropped: Sender<()>,
}

impl NamedService for Lines {
    const NAME: &'static str = "lines.Lines";
}

impl Service<http::Request<Body>> for Lines {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let dropped = self.dropped.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(codec());
            let split = service_fn(move |request| split(request, dropped.clone()));
            Ok(match request.uri().path() {
                "/lines.Lines/Shout" => grpc.unary(service_fn(shout), request).await,
                "/lines.Lines/Split" => grpc.server_streaming(split, request).await,
                "/lines.Lines/Join" => grpc.client_streaming(service_fn(join), request).await,
                "/lines.Lines/Echo" => grpc.streaming(service_fn(echo), request).await,
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

/// What a client sends its requests through, instead of the `Channel` of tonic's transport.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[derive(Clone)]
struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = http2::handshake(OnLoop, Io::new(stream)).await.unwrap();
        coroutine::start(connection);
        let origin = format!("http://127.0.0.1:{port}").parse().unwrap();
        Client(tonic::client::Grpc::with_origin(Channel(sender), origin))
    }

    async fn shout(&mut self, text: &str) -> Result<Line, Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/lines.Lines/Shout");
        let answer = self.0.unary(Request::new(line(text)), path, codec()).await;
        Ok(answer?.into_inner())
    }

    async fn split(&mut self, text: &str) -> Streaming<Line> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/lines.Lines/Split");
        let request = Request::new(line(text));
        self.0.server_streaming(request, path, codec()).await.unwrap().into_inner()
    }
}

/// A server of [`Lines`], what hears that an open stream of `split` was dropped, and a client.
async fn served() -> (TcpServer, Receiver<()>, Client) {
    let (dropped, was_dropped) = channel(1);
    let routes = Routes::new(Lines { dropped });
    let server = TcpServer::bare(async move |stream: TcpStream, _| {
        let service = TowerToHyperService::new(routes.clone());
        let mut http = hyper::server::conn::http2::Builder::new(OnLoop);
        http.timer(OnLoop).serve_connection(Io::new(stream), service).await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    (server, was_dropped, Client::connect(port).await)
}

#[waterspout::test]
async fn calls_of_one_connection_are_answered_side_by_side_and_one_that_fails_is_the_only_one() {
    let (_server, _, client) = served().await;
    let calls = (0..100).map(|n| {
        let (mut client, text) = (client.clone(), if n == 50 { "" } else { "hello" });
        async move { client.shout(text).await }
    });
    let answers = multi_outputs(calls.collect::<Vec<_>>()).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(answer) => assert_eq!(answer.text, "HELLO"),
            Err(status) => {
                assert_eq!((n, status.code()), (50, Code::InvalidArgument));
                assert_eq!(status.message(), "nothing to shout");
            }
        }
    }
}

/// `HttpServer` hears from the first bytes that this is HTTP/2.
#[waterspout::test]
async fn an_http_server_serves_it_in_one_line() {
    let (dropped, mut was_dropped) = channel(1);
    let server = HttpServer::tower(Routes::new(Lines { dropped }));
    let mut client = Client::connect(server.listen_on("127.0.0.1", 0).unwrap()).await;
    assert_eq!(client.shout("hello").await.unwrap(), line("HELLO"));
    assert_eq!(client.shout("").await.unwrap_err().code(), Code::InvalidArgument);
    let words: Vec<_> = client.split("one two").await.try_collect().await.unwrap();
    assert_eq!(words, ["one", "two"].map(line));
    let mut words = client.split("one ...").await;
    assert_eq!(words.message().await.unwrap(), Some(line("one")));
    drop(words);
    was_dropped.recv().await.unwrap();
    drop(client);
    assert_eq!(server.drain(5 * SECOND).await, 0);
}

#[waterspout::test]
async fn a_service_that_nobody_has_is_unimplemented() {
    let (_server, _, mut client) = served().await;
    for path in ["/lines.Lines/Whisper", "/other.Service/Call"] {
        client.0.ready().await.unwrap();
        let path = PathAndQuery::from_static(path);
        let answer = client.0.unary(Request::new(line("")), path, codec()).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    }
}

#[waterspout::test]
async fn a_server_answers_by_a_stream() {
    let (_server, _, mut client) = served().await;
    let words: Vec<_> = client.split("one two three").await.try_collect().await.unwrap();
    assert_eq!(words, ["one", "two", "three"].map(line));
}

#[waterspout::test]
async fn a_client_asks_by_a_stream() {
    let (_server, _, mut client) = served().await;
    client.0.ready().await.unwrap();
    let path = PathAndQuery::from_static("/lines.Lines/Join");
    let words = stream::iter(["one", "two"]).then(|word| ready(line(word)));
    let answer = client.0.client_streaming(Request::new(words), path, codec()).await;
    assert_eq!(answer.unwrap().into_inner(), line("one two"));
}

#[waterspout::test]
async fn both_talk_by_streams_and_each_line_comes_before_the_next_is_sent() {
    let (_server, _, mut client) = served().await;
    client.0.ready().await.unwrap();
    let path = PathAndQuery::from_static("/lines.Lines/Echo");
    let (sender, lines) = channel(1);
    let answer = client.0.streaming(Request::new(lines), path, codec()).await;
    let mut answer = answer.unwrap().into_inner();
    for n in 0..100 {
        sender.send(line(n)).await.unwrap();
        assert_eq!(answer.message().await.unwrap(), Some(line(n)));
    }
    drop(sender);
    assert_eq!(answer.message().await.unwrap(), None);
}

#[waterspout::test]
async fn a_client_that_drops_a_stream_ends_it_at_the_server_and_its_connection_lives_on() {
    let (_server, mut dropped, mut client) = served().await;
    let mut words = client.split("one ...").await;
    assert_eq!(words.message().await.unwrap(), Some(line("one")));
    drop(words);
    dropped.recv().await.unwrap();
    assert_eq!(client.shout("still there").await.unwrap(), line("STILL THERE"));
}

#[waterspout::test]
async fn a_server_that_goes_away_is_an_error_for_who_waits_and_for_who_asks_later() {
    let (server, _, mut client) = served().await;
    let mut words = client.split("one two ...").await;
    assert_eq!(words.message().await.unwrap(), Some(line("one")));
    assert_eq!(server.drain(Duration::ZERO).await, 1);
    let error = loop {
        match words.message().await {
            Ok(word) => assert!(word.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Unknown);
    client.shout("still there?").await.unwrap_err();
}
