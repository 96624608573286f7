//! Long polling: who asks for messages waits until there are some, for a minute at most.
//!
//! ```text
//! $ cargo run --features server --example long_poll -- 8080
//! listening on http://127.0.0.1:8080/
//!
//! $ curl 'http://127.0.0.1:8080/messages?after=0'       # in another terminal; it waits
//! $ curl --data hello http://127.0.0.1:8080/messages    # in a third one
//! ```
//!
//! `/waiting` tells how many wait. SIGTERM or Ctrl-C ends it, and sends them away first.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use waterspout::coroutine::with_timeout;
use waterspout::futures::select;
use waterspout::http::{HttpError, HttpServer, Method, Request, Response, StatusCode};
use waterspout::locks::Condition;
use waterspout::signal::{self, Signal};

/// Older messages are forgotten.
const KEPT: usize = 100;

#[derive(Default)]
struct Board {
    /// With their numbers, which count from 1.
    messages: RefCell<VecDeque<(u64, String)>>,
    has_changed: Condition,
    ends: Cell<bool>,
    /// Each handler that waits has a clone. It goes with the handler, also if the client has hung up and the
    /// server drops the handler where it waits.
    waiting: Rc<()>,
}

impl Board {
    fn write(&self, message: String) -> u64 {
        let mut messages = self.messages.borrow_mut();
        let number = messages.back().map_or(1, |(last, _)| last + 1);
        messages.push_back((number, message));
        if messages.len() > KEPT {
            messages.pop_front();
        }
        drop(messages);
        self.has_changed.notify_all();
        number
    }

    fn after(&self, number: u64) -> Vec<String> {
        let messages = self.messages.borrow();
        let newer = messages.iter().filter(|(its_number, _)| *its_number > number);
        newer.map(|(number, message)| format!("{number} {message}\n")).collect()
    }

    /// The messages after this one, as soon as there are any.
    async fn wait_for(&self, number: u64) -> Vec<String> {
        let _waiting = self.waiting.clone();
        loop {
            let messages = self.after(number);
            if !messages.is_empty() || self.ends.get() {
                return messages;
            }
            self.has_changed.wait().await;
        }
    }
}

/// The number of this name in the query, or else `usual`.
fn number(request: &Request, name: &str, usual: u64) -> Result<u64, HttpError> {
    let Some(text) = request.argument(name) else { return Ok(usual) };
    text.parse().map_err(|_| HttpError::new(StatusCode::BAD_REQUEST))
}

async fn answer(board: &Board, mut request: Request) -> Result<Response, HttpError> {
    match (request.method(), request.path()) {
        (&Method::GET, "/messages") => {
            let after = number(&request, "after", 0)?;
            let limit = Duration::from_secs(number(&request, "seconds", 60)?.min(60));
            let messages = with_timeout(limit, board.wait_for(after)).await.unwrap_or_default();
            if messages.is_empty() {
                // Nothing new: the client asks again.
                return Ok(Response::of_status(StatusCode::NO_CONTENT));
            }
            Ok(Response::text(messages.concat()))
        }
        (&Method::POST, "/messages") => {
            request.body_mut().set_max_size(1000);
            let message = request.text().await?;
            Ok(Response::text(format!("{}\n", board.write(message))))
        }
        (&Method::GET, "/waiting") => {
            Ok(Response::text(format!("{}\n", Rc::strong_count(&board.waiting) - 1)))
        }
        _ => Err(HttpError::new(StatusCode::NOT_FOUND)),
    }
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    let port = match common::arguments("PORT") {
        Some(arguments) => common::parsed(&arguments[0], "port", "PORT"),
        None => 8080,
    };
    let mut terminate = signal::stream(Signal::TERMINATE)?;
    let mut interrupt = signal::stream(Signal::INTERRUPT)?;

    let board = Rc::new(Board::default());
    let asked = board.clone();
    let server = HttpServer::new(async move |request| answer(&asked, request).await);
    let listening = server.listen_on("127.0.0.1", port);
    let port = common::or_explain(listening, &format!("listen on port {port}"));
    println!("listening on http://127.0.0.1:{port}/");

    select! {
        ended = terminate.recv() => ended?,
        ended = interrupt.recv() => ended?,
    }
    // Draining waits for those who wait for messages.
    board.ends.set(true);
    board.has_changed.notify_all();
    server.drain(Duration::from_secs(10)).await;
    Ok(())
}
