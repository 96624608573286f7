//! A reverse proxy: passes requests on to several servers, to the least busy one of those that answer.
//!
//! ```text
//! $ cargo run --features client,server --example reverse_proxy -- 8080 127.0.0.1:9001 127.0.0.1:9002
//! listening on http://127.0.0.1:8080/
//! ```
//!
//! Without arguments it starts two servers of its own, asks them by the proxy, ends one, and starts it anew.
//!
//! Bodies are passed on in both directions as they come. A server that cannot be connected to is left out until
//! it answers again, which is looked at every second.

mod common;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use waterspout::coroutine::{self, with_timeout};
use waterspout::futures::select;
use waterspout::http::{
    Body, FetchError, FetchResponse, HeaderMap, HeaderValue, HttpClient, HttpError, HttpServer,
    Method, Request, Response, StatusCode, Uri,
};
use waterspout::signal::{self, Signal};

const USAGE: &str = "PORT UPSTREAM...";

/// How long a server has until its answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is between two neighbours and not passed on, beside what the header `Connection` names (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let lists = headers.get_all("connection").into_iter().filter_map(|list| list.to_str().ok());
    let named: Vec<String> =
        lists.flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

struct Upstream {
    address: SocketAddr,
    is_up: Cell<bool>,
    /// Each request that it is busy with has a clone.
    busy: Rc<()>,
}

impl Upstream {
    fn set_up(&self, is_up: bool) {
        if self.is_up.replace(is_up) != is_up {
            eprintln!("{} is {}", self.address, if is_up { "back" } else { "down" });
        }
    }
}

struct Proxy {
    client: HttpClient,
    upstreams: Vec<Upstream>,
    /// Where the search for the least busy one begins, so that those which are equally busy take turns.
    next: Cell<usize>,
}

impl Proxy {
    fn new(upstreams: impl IntoIterator<Item = SocketAddr>) -> Rc<Proxy> {
        let upstream = |address| Upstream { address, is_up: Cell::new(true), busy: Rc::default() };
        // What comes is passed on as it is, however long it takes, if only it does not stall.
        let client = HttpClient::new()
            .max_clients(10_000)
            .follow_redirects(false)
            .user_agent("")
            .connect_timeout(Duration::from_secs(5))
            .request_timeout(Duration::MAX)
            .stall_timeout(Duration::from_secs(60))
            .max_body_size(u64::MAX);
        #[cfg(feature = "compression")]
        let client = client.decompress(false);
        let upstreams = upstreams.into_iter().map(upstream).collect();
        Rc::new(Proxy { client, upstreams, next: Cell::new(0) })
    }

    fn server(self: &Rc<Proxy>) -> HttpServer {
        let proxy = self.clone();
        HttpServer::new(async move |request| proxy.pass(request).await).max_body_size(u64::MAX)
    }

    fn least_busy(&self) -> Option<&Upstream> {
        let first = self.next.get();
        self.next.set((first + 1) % self.upstreams.len());
        let in_turn = self.upstreams.iter().cycle().skip(first).take(self.upstreams.len());
        let up = in_turn.filter(|upstream| upstream.is_up.get());
        up.min_by_key(|upstream| Rc::strong_count(&upstream.busy))
    }

    async fn pass(&self, request: Request) -> Result<Response, HttpError> {
        let gives_up = |status| Err(HttpError::new(status));
        let client = request.remote_ip().map(|ip| ip.to_string());
        let scheme = HeaderValue::from_static(request.scheme());
        let (mut head, mut body) = request.into_parts();
        drop_hop_by_hop(&mut head.headers);
        head.headers.remove("host");
        let client = client.and_then(|client| HeaderValue::from_str(&client).ok());
        if let Some(client) = client {
            head.headers.append("x-forwarded-for", client);
        }
        head.headers.insert("x-forwarded-proto", scheme);
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let has_body = body.remaining() != Some(0);

        loop {
            let Some(upstream) = self.least_busy() else {
                return gives_up(StatusCode::BAD_GATEWAY);
            };
            let Ok(uri) = format!("http://{}{path}", upstream.address).parse::<Uri>() else {
                return gives_up(StatusCode::BAD_REQUEST);
            };
            let busy = upstream.busy.clone();
            let mut onward = http::Request::new(Body::from(std::mem::take(&mut body)));
            *onward.method_mut() = head.method.clone();
            *onward.uri_mut() = uri;
            *onward.headers_mut() = head.headers.clone();
            match with_timeout(ANSWER_TIMEOUT, self.client.fetch(onward).into_future()).await {
                Ok(Ok(answer)) => return Ok(passed_back(answer, busy)),
                // Nothing was sent, so that another one can be asked, if the body is still there.
                Ok(Err(FetchError::Connect { .. } | FetchError::ConnectTimedOut { .. })) => {
                    upstream.set_up(false);
                    if has_body {
                        return gives_up(StatusCode::BAD_GATEWAY);
                    }
                }
                Ok(Err(FetchError::RequestBody(_))) => return gives_up(StatusCode::BAD_REQUEST),
                Ok(Err(error)) if !error.is_timeout() => return gives_up(StatusCode::BAD_GATEWAY),
                Ok(Err(_)) | Err(_) => return gives_up(StatusCode::GATEWAY_TIMEOUT),
            }
        }
    }

    /// Looks after servers that are down, and takes out those that are not reached any more.
    async fn check(&self, period: Duration) {
        loop {
            coroutine::sleep(period).await;
            for upstream in &self.upstreams {
                let url = format!("http://{}/", upstream.address);
                let asked = self.client.request(Method::HEAD, url);
                let answer = asked.request_timeout(Duration::from_secs(5)).await;
                upstream.set_up(answer.is_ok_and(|answer| !answer.status().is_server_error()));
            }
        }
    }
}

fn passed_back(answer: FetchResponse, busy: Rc<()>) -> Response {
    let (mut head, body) = answer.into_parts();
    drop_hop_by_hop(&mut head.headers);
    // The server is busy until the body has been passed on, or dropped.
    let body = body.map_frame(move |frame| {
        let _until_then = &busy;
        frame
    });
    let mut response = Response::new(Body::from_http_body(body)).with_status(head.status);
    *response.headers_mut() = head.headers;
    response
}

async fn demonstrate() -> Result<(), Box<dyn std::error::Error>> {
    let start = |name: &'static str, port| -> io::Result<(HttpServer, u16)> {
        let server = HttpServer::new(async move |request: Request| {
            format!("{name} answers {}", request.path())
        });
        let port = server.listen_on("127.0.0.1", port)?;
        Ok((server, port))
    };
    let ((one, port), (_two, other_port)) = (start("one", 0)?, start("two", 0)?);
    let proxy = Proxy::new([port, other_port].map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
    let server = proxy.server();
    let url = format!("http://127.0.0.1:{}", server.listen_on("127.0.0.1", 0)?);
    let checked = proxy.clone();
    coroutine::spawn(async move { checked.check(Duration::from_millis(50)).await });

    let client = HttpClient::new();
    let ask = async |path: &str| -> Result<(), FetchError> {
        println!("{}", client.get(format!("{url}{path}")).await?.text().await?);
        Ok(())
    };
    ask("/a").await?;
    ask("/b").await?;
    drop(one);
    ask("/c").await?;
    ask("/d").await?;
    let (_one, _) = start("one again", port)?;
    while !proxy.upstreams[0].is_up.get() {
        coroutine::sleep(Duration::from_millis(10)).await;
    }
    ask("/e").await?;
    ask("/f").await?;
    Ok(())
}

#[waterspout::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, upstreams) = match arguments.as_slice() {
        [] => return demonstrate().await,
        [port, upstreams @ ..] if !port.starts_with('-') && !upstreams.is_empty() => {
            (common::parsed(port, "port", USAGE), upstreams)
        }
        _ => common::wrong("these arguments are not known here", USAGE),
    };
    let parsed = |upstream: &String| common::parsed(upstream, "address with a port", USAGE);
    let mut terminate = signal::stream(Signal::TERMINATE)?;
    let mut interrupt = signal::stream(Signal::INTERRUPT)?;
    let proxy = Proxy::new(upstreams.iter().map(parsed));
    let server = proxy.server();
    let listening = server.listen_on("127.0.0.1", port);
    let port = common::or_explain(listening, &format!("listen on port {port}"));
    println!("listening on http://127.0.0.1:{port}/");
    coroutine::spawn(async move { proxy.check(Duration::from_secs(1)).await });

    select! {
        ended = terminate.recv() => ended?,
        ended = interrupt.recv() => ended?,
    }
    server.drain(Duration::from_secs(10)).await;
    Ok(())
}
