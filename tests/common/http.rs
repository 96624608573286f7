//! What the tests of `HttpServer` share: a listener in memory, for which virtual time does not stop, and a client
//! that reads the answers of HTTP/1.

// Each test file uses its part of this.
#![allow(dead_code)]

use std::io;
use std::rc::Rc;
use std::time::Duration;

use waterspout::http::HttpServer;
use waterspout::iostream::{IoStream, Transport};
use waterspout::net::{Listener, TcpStream};
use waterspout::queues::Queue;
use waterspout::testing::{Memory, duplex};

pub const SECOND: Duration = Duration::from_secs(1);

/// Connections in memory, for which virtual time does not stop.
#[derive(Clone)]
pub struct Inside(Rc<Queue<Memory>>);

impl Listener for Inside {
    type Stream = Memory;
    type Address = &'static str;

    async fn accept(&self) -> io::Result<(Memory, &'static str)> {
        Ok((self.0.get().await.map_err(io::Error::other)?, "a test"))
    }

    fn local_address(&self) -> io::Result<&'static str> {
        Ok("memory")
    }
}

impl Inside {
    pub fn of(server: &HttpServer) -> Inside {
        let inside = Inside(Rc::new(Queue::new(0)));
        server.add_listener(inside.clone());
        inside
    }

    /// A connection that holds `capacity` bytes each way.
    pub async fn connect_bare(&self, capacity: usize) -> Memory {
        let (client, connection) = duplex(capacity);
        self.0.put(connection).await.unwrap();
        client
    }

    pub async fn connect_holding(&self, capacity: usize) -> Client<Memory> {
        Client(IoStream::new(self.connect_bare(capacity).await))
    }

    pub async fn connect(&self) -> Client<Memory> {
        self.connect_holding(1 << 20).await
    }
}

/// A client that knows of HTTP/1 only what it needs to read an answer.
pub struct Client<S: Transport>(pub IoStream<S>);

pub async fn connect(port: u16) -> Client<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    Client(IoStream::new(stream))
}

#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (other, value) = line.split_once(": ")?;
            other.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl<S: Transport> Client<S> {
    pub fn send(&self, text: impl AsRef<[u8]>) {
        drop(self.0.write(text.as_ref()));
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        self.answer().await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        self.answer().await
    }

    pub async fn head(&self) -> String {
        let head = self.0.read_until(b"\r\n\r\n", 1 << 16).await.unwrap();
        String::from_utf8(head).unwrap()
    }

    pub async fn answer(&self) -> Answer {
        let mut answer = Answer { head: self.head().await, body: String::new() };
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length") {
            body = self.0.read_bytes(length.parse().unwrap()).await.unwrap();
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.0.read_until(b"\r\n", 64).await.unwrap();
                let length = std::str::from_utf8(&line).unwrap().trim();
                let length = usize::from_str_radix(length, 16).unwrap();
                body.extend(self.0.read_bytes(length).await.unwrap());
                self.0.read_until(b"\r\n", 2).await.unwrap();
                if length == 0 {
                    break;
                }
            }
        }
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// Whether the connection has ended, without another byte.
    pub async fn is_closed(&self) -> bool {
        self.0.read_until_close().await.is_ok_and(|rest| rest.is_empty())
    }
}
