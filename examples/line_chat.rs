//! A chat for telnet: each line that a client sends goes to all other clients.
//!
//! ```text
//! $ cargo run --example line_chat            # a demonstration
//! $ cargo run --example line_chat -- 8888    # serves for ever; try `telnet 127.0.0.1 8888`
//! ```

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use waterspout::iostream::{IoStream, StreamError};
use waterspout::net::{TcpClient, TcpServer, TcpStream};

type Stream = IoStream<TcpStream>;

/// The clients that are there. All of them are on one thread, so there is no lock.
type Room = Rc<RefCell<BTreeMap<SocketAddr, Stream>>>;

/// Sends a line to all clients but one. This waits for nobody: if a client is slow, its lines wait in its
/// stream.
fn say(room: &Room, but: SocketAddr, what: &str) {
    for (_, stream) in room.borrow().iter().filter(|(peer, _)| **peer != but) {
        stream.write(format!("{what}\n"));
    }
}

async fn chat(room: Room, stream: Stream, peer: SocketAddr) -> Result<(), StreamError> {
    stream.write("your name?\n");
    let name = stream.read_until("\n", 80).await?;
    let name = String::from_utf8_lossy(&name).trim().to_owned();
    room.borrow_mut().insert(peer, stream.clone());
    stream.write(format!("{} here\n", room.borrow().len()));
    say(&room, peer, &format!("* {name} comes in"));
    while let Ok(line) = stream.read_until("\n", 1024).await {
        say(&room, peer, &format!("{name}: {}", String::from_utf8_lossy(&line).trim_end()));
    }
    room.borrow_mut().remove(&peer);
    say(&room, peer, &format!("* {name} leaves"));
    Ok(())
}

#[waterspout::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let room = Room::default();
    let server = TcpServer::new(move |stream, peer| chat(room.clone(), stream, peer));
    let asked = common::arguments("PORT").map(|asked| common::parsed(&asked[0], "port", "PORT"));
    let is_demonstration = asked.is_none();
    let listening = server.listen_on("localhost", asked.unwrap_or(0));
    let port = common::or_explain(listening, "listen on that port");
    println!("chatting on port {port}");
    if !is_demonstration {
        std::future::pending::<()>().await;
    }
    let connect = async || TcpClient::new().connect("localhost", port).await.map(IoStream::new);
    let (ann, bob) = (connect().await?, connect().await?);
    ann.write("ann\n");
    ann.read_until("1 here\n", 100).await?;
    bob.write("bob\nhello, ann\n");
    bob.read_until("2 here\n", 100).await?;
    bob.close();
    print!("{}", String::from_utf8(ann.read_until("bob leaves\n", 100).await?)?);
    Ok(())
}
