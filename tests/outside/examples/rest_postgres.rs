//! A small service over PostgreSQL, on a loop for each core: notes are made, listed and deleted.
//!
//! ```text
//! $ tests/services/run postgres                      # starts a PostgreSQL, and says how it is connected to
//! $ cargo run --manifest-path tests/outside/Cargo.toml --example rest_postgres -- 8080 'host=127.0.0.1 ...'
//! listening on http://127.0.0.1:8080/
//!
//! $ curl --data 'buy milk' http://127.0.0.1:8080/notes       # in another terminal
//! $ curl http://127.0.0.1:8080/notes
//! $ curl --request DELETE http://127.0.0.1:8080/notes/1
//! ```
//!
//! SIGTERM or Ctrl-C ends it, when the requests under way are answered.

#[path = "../../../examples/common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use waterspout::IoLoop;
use waterspout::coroutine;
use waterspout::http::{HttpError, HttpServer, Method, Request, Response, StatusCode};
use waterspout::locks::Semaphore;
use waterspout::net::{BindOptions, TcpClient, bind_sockets};
use waterspout::process::{Worker, Workers, cpu_count};

const USAGE: &str = "PORT DATABASE";

/// How many connections a loop has at most.
const CONNECTIONS: usize = 4;

const TABLE: &str =
    "create table if not exists notes (id bigserial primary key, text text not null)";
const LIST: &str = "select coalesce(json_agg(json_build_object('id', id, 'text', text) order by id), '[]')::text from notes";

async fn connect(config: &Config) -> Result<Client, Box<dyn Error>> {
    let Some(Host::Tcp(host)) = config.get_hosts().first() else {
        return Err("it has to be connected to by TCP".into());
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let stream = TcpClient::new().connect(host, port).await?;
    let (client, connection) = config.connect_raw(stream.compat(), NoTls).await?;
    // It ends with the client. What goes wrong with it, queries say, too.
    coroutine::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// The connections of one loop. Nothing of it is locked or sent.
struct Pool {
    config: Config,
    permits: Semaphore,
    idle: RefCell<Vec<Client>>,
}

impl Pool {
    fn new(config: Config) -> Pool {
        Pool { config, permits: Semaphore::new(CONNECTIONS), idle: RefCell::default() }
    }

    /// Lends a connection. One that has failed, or whose query was given up half way (the client has hung up, or
    /// the time limit has come), is not lent again.
    async fn ask<R>(
        &self,
        query: impl AsyncFnOnce(&Client) -> Result<R, tokio_postgres::Error>,
    ) -> Result<R, Box<dyn Error>> {
        let _permit = self.permits.acquire().await;
        let idle = self.idle.borrow_mut().pop().filter(|client| !client.is_closed());
        let client = match idle {
            Some(client) => client,
            None => connect(&self.config).await?,
        };
        let answer = query(&client).await?;
        self.idle.borrow_mut().push(client);
        Ok(answer)
    }
}

/// What is wrong with the database is reported, and the client learns nothing of it.
fn broken(error: Box<dyn Error>) -> HttpError {
    io::Error::other(error.to_string()).into()
}

async fn answer(pool: &Pool, mut request: Request) -> Result<Response, HttpError> {
    let path = request.path().to_owned();
    let id = path.strip_prefix("/notes/").and_then(|id| id.parse::<i64>().ok());
    match (request.method().clone(), path.as_str(), id) {
        (Method::GET, "/notes", _) => {
            let listed = pool.ask(async |client| client.query_one(LIST, &[]).await).await;
            Ok(Response::json(listed.map_err(broken)?.get::<_, String>(0)))
        }
        (Method::POST, "/notes", _) => {
            let text = request.text().await?;
            // PostgreSQL has no text with this character.
            if text.contains('\0') {
                return Err(HttpError::new(StatusCode::BAD_REQUEST));
            }
            let insert = "insert into notes (text) values ($1) returning id";
            let made = pool.ask(async |client| client.query_one(insert, &[&text]).await).await;
            let id: i64 = made.map_err(broken)?.get(0);
            let response = Response::text(format!("{id}\n")).with_status(StatusCode::CREATED);
            Ok(response.with_header("location", format!("/notes/{id}")))
        }
        (Method::DELETE, _, Some(id)) => {
            let delete = "delete from notes where id = $1";
            let deleted = pool.ask(async |client| client.execute(delete, &[&id]).await).await;
            match deleted.map_err(broken)? {
                0 => Err(HttpError::new(StatusCode::NOT_FOUND)),
                _ => Ok(Response::of_status(StatusCode::NO_CONTENT)),
            }
        }
        (_, "/notes", _) | (_, _, Some(_)) => Err(HttpError::new(StatusCode::METHOD_NOT_ALLOWED)),
        _ => Err(HttpError::new(StatusCode::NOT_FOUND)),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = common::arguments(USAGE) else {
        common::wrong("it needs a database", USAGE);
    };
    let port = common::parsed(&arguments[0], "port", USAGE);
    let config: Config = common::parsed(&arguments[1], "way to connect to a PostgreSQL", USAGE);

    let prepared = IoLoop::new()?.run_sync(async || -> Result<(), Box<dyn Error>> {
        Ok(connect(&config).await?.batch_execute(TABLE).await?)
    })?;
    common::or_explain(prepared, "ask the database");

    // A socket for each loop, all on one port: the system divides the connections among them.
    let listen = |port| {
        let address = Some("127.0.0.1".to_owned());
        bind_sockets(port, &BindOptions { address, reuse_port: true, ..Default::default() })
    };
    let mut sockets = common::or_explain(listen(port), &format!("listen on port {port}"));
    let port = sockets[0].local_addr()?.port();
    while sockets.len() < cpu_count() {
        sockets.extend(listen(port)?);
    }
    println!("listening on http://127.0.0.1:{port}/");

    Workers::new().count(sockets.len()).run(async move |worker: Worker| {
        let pool = Rc::new(Pool::new(config.clone()));
        let server = HttpServer::new(async move |request| answer(&pool, request).await);
        let server = server.max_body_size(10_000).request_timeout(Duration::from_secs(10));
        server.add_sockets([sockets[worker.id()].try_clone()?])?;
        worker.stop().cancelled().await;
        server.drain(Duration::from_secs(10)).await;
        Ok::<(), io::Error>(())
    })?;
    Ok(())
}
