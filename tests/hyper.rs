//! hyper's own server and client over `Io` and `OnLoop`: HTTP/1 and 2, upgrades, time limits, panics.

mod common;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{AtDrop, Diary, exceptions, turns, virtual_loop};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Executor as _, Timer as _};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, header, server};
use waterspout::IoLoop;
use waterspout::coroutine::{self, now, sleep};
use waterspout::hyper::{Io, OnLoop};
use waterspout::iostream::IoStream;
use waterspout::net::{TcpServer, TcpStream};
use waterspout::testing::{Memory, duplex, stream_suite};

const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn answer(body: impl Into<Bytes>) -> Answer {
    Ok(Response::new(Full::new(body.into())))
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://test{path}"))
        .header(header::HOST, "test")
        .body(Empty::new())
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A service whose state stays on the loop.
async fn count(visits: &RefCell<Vec<String>>, request: Request<Incoming>) -> Answer {
    sleep(SECOND / 1000).await;
    visits.borrow_mut().push(request.uri().path().to_owned());
    answer(format!("{:?} {}", request.version(), visits.borrow().len()))
}

#[waterspout::test]
async fn http_1_is_served_and_asked_with_state_that_stays_on_the_loop() {
    let visits = Rc::new(RefCell::new(Vec::new()));
    let counted = visits.clone();
    let server = TcpServer::bare(async move |stream: TcpStream, _| {
        let service = service_fn(|request| count(&counted, request));
        server::conn::http1::Builder::new()
            .timer(OnLoop)
            .serve_connection(Io::new(stream), service)
            .await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();

    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = client::conn::http1::handshake(Io::new(stream)).await.unwrap();
    let connection = coroutine::start(connection);
    for round in 1..=3 {
        sender.ready().await.unwrap();
        let response = sender.send_request(get(&format!("/{round}"))).await.unwrap();
        assert_eq!(text(response).await, format!("HTTP/1.1 {round}"));
    }
    drop(sender);
    connection.await.unwrap();
    assert_eq!(*visits.borrow(), ["/1", "/2", "/3"]);
    assert_eq!(server.drain(5 * SECOND).await, 0);
}

#[waterspout::test]
async fn http_2_requests_of_one_connection_run_side_by_side() {
    let visits = Rc::new(RefCell::new(Vec::new()));
    let counted = visits.clone();
    let server = TcpServer::bare(async move |stream: TcpStream, _| {
        let counted = counted.clone();
        let service = service_fn(move |request| {
            let counted = counted.clone();
            async move { count(&counted, request).await }
        });
        server::conn::http2::Builder::new(OnLoop)
            .timer(OnLoop)
            .serve_connection(Io::new(stream), service)
            .await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();

    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) =
        client::conn::http2::handshake(OnLoop, Io::new(stream)).await.unwrap();
    let connection = coroutine::start(connection);
    let asking = (1..=100).map(|n| {
        let mut sender = sender.clone();
        async move { text(sender.send_request(get(&format!("/{n}"))).await.unwrap()).await }
    });
    let answers = coroutine::multi_outputs(asking.collect::<Vec<_>>()).await;
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/2.0 ")));
    assert_eq!(visits.borrow().len(), 100);
    drop(sender);
    connection.await.unwrap();
    assert_eq!(server.drain(5 * SECOND).await, 0);
}

/// Serves HTTP/1 with `service` at one end, and is a client at the other.
async fn http1_pair<S, F>(
    service: S,
) -> (client::conn::http1::SendRequest<Empty<Bytes>>, coroutine::Coroutine<hyper::Result<()>>)
where
    S: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Answer> + 'static,
{
    let (one, other) = duplex(64 * 1024);
    let http = server::conn::http1::Builder::new();
    let serving = http.serve_connection(Io::new(one), service_fn(service)).with_upgrades();
    let serving = coroutine::start(serving);
    let (sender, connection) = client::conn::http1::handshake(Io::new(other)).await.unwrap();
    coroutine::start(connection.with_upgrades());
    (sender, serving)
}

/// `with_upgrades` wants a stream that is `Send`: that of a socket is.
#[waterspout::test]
async fn an_upgraded_connection_is_a_stream_again() {
    let server = TcpServer::bare(async |stream: TcpStream, _| {
        let service = service_fn(async |mut request: Request<Incoming>| {
            let upgrade = hyper::upgrade::on(&mut request);
            coroutine::start(async move {
                // What was sent early is given with the stream.
                let upgraded = upgrade.await.unwrap();
                let parts = upgraded.downcast::<Io<TcpStream>>().unwrap();
                let mut stream = parts.io.into_inner();
                let mut received = parts.read_buf.to_vec();
                stream.read_to_end(&mut received).await.unwrap();
                received.reverse();
                stream.write_all(&received).await.unwrap();
            });
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::UPGRADE, "backwards".parse().unwrap());
            Ok::<_, Infallible>(response)
        });
        let http = server::conn::http1::Builder::new();
        http.serve_connection(Io::new(stream), service).with_upgrades().await
    });
    let port = server.listen_on("127.0.0.1", 0).unwrap();

    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = client::conn::http1::handshake(Io::new(stream)).await.unwrap();
    coroutine::start(connection.with_upgrades());
    let mut request = get("/");
    request.headers_mut().insert(header::UPGRADE, "backwards".parse().unwrap());
    request.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    // The other way to go on: whatever it is, as a stream like any other.
    let mut stream = IoStream::new(Io::new(hyper::upgrade::on(response).await.unwrap()));
    stream.write("desserts").await.unwrap();
    AsyncWriteExt::close(&mut stream).await.unwrap();
    assert_eq!(stream.read_until_close().await.unwrap(), b"stressed");
}

/// A stream that is hyper's, as an upgrade's is.
fn of_hyper((one, other): (Memory, Memory)) -> (Io<Io<Memory>>, Io<Io<Memory>>) {
    (Io::new(Io::new(one)), Io::new(Io::new(other)))
}

#[waterspout::test]
async fn there_and_back_again_it_is_a_stream_by_every_check() {
    stream_suite(async || of_hyper(duplex(1000))).await;
}

#[test]
fn time_limits_of_hyper_go_by_the_loops_clock() {
    let io_loop = virtual_loop();
    let begun = io_loop.time();
    let hour = Duration::from_secs(3600);
    let run = io_loop.run_sync(async || {
        let (client, stream) = duplex(1024);
        let client = IoStream::new(client);
        let serving = coroutine::start(async move {
            let mut http = server::conn::http1::Builder::new();
            http.timer(OnLoop).header_read_timeout(hour);
            let service = service_fn(async |_| answer("here"));
            http.serve_connection(Io::new(stream), service).await
        });
        // Each head has its hour.
        for _ in 0..3 {
            client.write("GET / HTTP/1.1\r\n").await.unwrap();
            sleep(hour - SECOND).await;
            client.write("host: test\r\n\r\n").await.unwrap();
            client.read_until("\r\n\r\nhere", 1024).await.unwrap();
        }
        client.write("GET / HTTP/1.1\r\n").await.unwrap();
        assert!(serving.await.unwrap_err().is_timeout());
    });
    run.unwrap();
    assert_eq!(io_loop.time() - begun, 4 * hour - 3 * SECOND);
}

#[test]
fn the_timer_tells_the_loops_time_and_moves_what_it_has_given() {
    let io_loop = virtual_loop();
    let begun = io_loop.time();
    let run = io_loop.run_sync(async || {
        sleep(3600 * SECOND).await;
        assert_eq!(OnLoop.now(), now());
        let mut sleep = OnLoop.sleep(SECOND);
        OnLoop.reset(&mut sleep, now() + 60 * SECOND);
        sleep.await;
        OnLoop.sleep_until(now() + SECOND).await;
    });
    run.unwrap();
    assert_eq!(io_loop.time() - begun, 3661 * SECOND);
}

#[test]
fn a_panic_in_a_service_ends_its_connection_with_http_1() {
    let heard = exceptions(IoLoop::builder(), async || {
        let (mut sender, serving) = http1_pair(async |_| panic!("a service")).await;
        drop(serving);
        let error = sender.send_request(get("/")).await.unwrap_err();
        assert!(error.is_incomplete_message(), "{error:?}");
    });
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("a service"), "{heard:?}");
}

/// Serves HTTP/2 with `service` at one end, and is a client at the other.
async fn http2_pair<S, F>(
    service: S,
) -> (client::conn::http2::SendRequest<Empty<Bytes>>, coroutine::Coroutine<hyper::Result<()>>)
where
    S: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Answer> + 'static,
{
    let (one, other) = duplex(64 * 1024);
    let http = server::conn::http2::Builder::new(OnLoop);
    let serving = coroutine::start(http.serve_connection(Io::new(one), service_fn(service)));
    let (sender, connection) =
        client::conn::http2::handshake(OnLoop, Io::new(other)).await.unwrap();
    coroutine::start(connection);
    (sender, serving)
}

#[test]
fn a_panic_in_a_service_ends_its_request_alone_with_http_2() {
    let heard = exceptions(IoLoop::builder(), async || {
        let (mut sender, _serving) = http2_pair(async |request| match request.uri().path() {
            "/panic" => panic!("a service"),
            _ => answer("fine"),
        })
        .await;
        assert!(sender.send_request(get("/panic")).await.is_err());
        assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await, "fine");
    });
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("a service"), "{heard:?}");
}

#[waterspout::test]
async fn the_requests_of_an_http_2_connection_end_with_it() {
    let diary = Diary::new();
    let ends = diary.clone();
    let (mut sender, serving) = http2_pair(move |_| {
        let ended = ends.at_end("ended");
        async move {
            ended.keep();
            pending().await
        }
    })
    .await;
    let asking = coroutine::start(async move { sender.send_request(get("/")).await });
    turns(20).await;
    assert!(diary.read().is_empty());
    serving.cancel();
    assert!(asking.await.is_err());
    turns(20).await;
    assert_eq!(diary.read(), ["ended"]);
}

/// What hyper gets when it reads.
async fn read(mut io: impl hyper::rt::Read + Unpin) -> io::Result<usize> {
    let mut bytes = [0; 100];
    let mut buf = hyper::rt::ReadBuf::new(&mut bytes);
    poll_fn(|cx| Pin::new(&mut io).poll_read(cx, buf.unfilled())).await?;
    Ok(buf.filled().len())
}

#[test]
fn on_another_loop_a_stream_gives_an_error() {
    let io_loop = IoLoop::new().unwrap();
    let (stream, _client) = io_loop.run_sync(waterspout::testing::tcp_pair).unwrap().unwrap();
    let other = IoLoop::new().unwrap();
    let error = other.run_sync(async || read(Io::new(stream)).await.unwrap_err()).unwrap();
    assert!(error.to_string().contains("make it on the loop that uses it"), "{error}");
}

#[test]
fn a_connection_ends_when_the_loop_of_its_stream_is_closed() {
    let io_loop = IoLoop::new().unwrap();
    let (stream, _client) = io_loop.run_sync(waterspout::testing::tcp_pair).unwrap().unwrap();
    io_loop.close();
    let service = service_fn(async |_| answer(""));
    let serving = server::conn::http1::Builder::new().serve_connection(Io::new(stream), service);
    // hyper takes an error before the first byte of a head for the end.
    common::block_on(serving).unwrap();
}

#[test]
fn what_is_executed_while_the_loop_is_closed_is_dropped() {
    let diary = Diary::new();
    let ended = diary.at_end("dropped");
    let mut late = Some(async move {
        ended.keep();
        pending::<()>().await
    });
    let executes = AtDrop(move || late.take().into_iter().for_each(|late| OnLoop.execute(late)));
    let io_loop = IoLoop::new().unwrap();
    let run = io_loop.run_sync(async || {
        coroutine::start(async move {
            executes.keep();
            pending::<()>().await
        });
    });
    run.unwrap();
    io_loop.close();
    assert_eq!(diary.read(), ["dropped"]);
    assert!(io_loop.coroutines().is_empty());
}

#[test]
fn a_connection_and_its_requests_end_with_their_loop() {
    let diary = Diary::new();
    let ends = diary.clone();
    let io_loop = IoLoop::new().unwrap();
    let run = io_loop.run_sync(async || {
        let (mut sender, serving) = http2_pair(move |_| {
            let ended = ends.at_end("ended");
            async move {
                ended.keep();
                pending().await
            }
        })
        .await;
        drop(serving);
        coroutine::start(async move { sender.send_request(get("/")).await });
        turns(20).await;
    });
    run.unwrap();
    io_loop.close();
    assert_eq!(diary.read(), ["ended"]);
}

/// Counts how it is written to, and takes all.
#[derive(Clone, Default)]
struct Written {
    has_read: Cell<bool>,
    slices: Rc<Cell<usize>>,
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl AsyncRead for Written {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // hyper's buffer is not shown: what is, is zeroed, and what was there before is nobody's business.
        assert!(buf.iter().all(|byte| *byte == 0));
        if self.has_read.replace(true) {
            return Poll::Pending;
        }
        let request = b"GET / HTTP/1.0\r\n\r\n";
        buf[..request.len()].copy_from_slice(request);
        Poll::Ready(Ok(request.len()))
    }
}

impl AsyncWrite for Written {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unreachable!("it is written in slices")
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.slices.set(bufs.len());
        bufs.iter().for_each(|buf| self.bytes.borrow_mut().extend_from_slice(buf));
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[waterspout::test]
async fn head_and_body_are_written_in_one_call_without_being_copied_together() {
    let written = Written::default();
    let service = service_fn(async |_| answer("the body"));
    let http = server::conn::http1::Builder::new();
    http.serve_connection(Io::new(written.clone()), service).await.unwrap();
    assert_eq!(written.slices.get(), 2);
    assert!(written.bytes.borrow().ends_with(b"\r\n\r\nthe body"));
}

/// A stream that claims to have read more than it was asked to.
struct Liar;

impl AsyncRead for Liar {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len() + 1))
    }
}

#[waterspout::test]
async fn a_stream_that_claims_to_have_read_too_much_is_not_believed() {
    let error = read(Io::new(Liar)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[waterspout::test]
async fn a_client_that_hangs_up_ends_the_handler_of_its_request() {
    let diary = Diary::new();
    let ends = diary.clone();
    let (mut sender, serving) = http1_pair(move |_| {
        let ended = ends.at_end("ended");
        async move {
            ended.keep();
            pending().await
        }
    })
    .await;
    let asking = coroutine::start(async move { sender.send_request(get("/")).await.map(drop) });
    turns(20).await;
    asking.cancel();
    _ = serving.await;
    assert_eq!(diary.read(), ["ended"]);
}
