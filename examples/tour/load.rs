//! The load: an echo server, and clients that talk to it.
//!
//! Every connection has two coroutines, one at each end. A client waits for the answer to a message before it
//! sends the next one, so as many messages are on their way as there are clients.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::try_join;
use waterspout::coroutine::sleep;
use waterspout::net::{TcpListener, TcpStream};

use crate::messages::Messages;
use crate::tally::Tally;

/// How many clients connect at the same time. Any system lets more connections than this wait to be accepted.
const DIALLERS: usize = 64;

/// What all clients share.
struct Load {
    server: SocketAddr,
    messages: Messages,
    tally: Rc<Tally>,
    next_client: Cell<u64>,
}

/// Starts server and clients, and waits until the last client is done.
pub async fn run(tally: Rc<Tally>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    let serving = serve(listener, tally.clone());
    let load = Load { server, messages: Messages::new(), tally, next_client: Cell::new(0) };
    let load = Rc::new(load);

    let diallers: Vec<_> = (0..DIALLERS).map(|_| dial(load.clone())).collect();
    let mut connected = Vec::new();
    for dialler in diallers {
        connected.extend(dialler.await);
    }

    load.tally.begin();
    let talk = |(number, stream)| client(load.clone(), number, stream);
    let clients: Vec<_> = connected.into_iter().map(talk).collect(); // each call starts a client
    for client in clients {
        if let Err(error) = client.join().await {
            load.tally.failed(error.to_string());
        }
    }
    serving.cancel();
    Ok(())
}

// ---------------------------------------------------------------------------------------------
// The server

#[waterspout::coroutine]
async fn serve(listener: TcpListener, tally: Rc<Tally>) {
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => drop(echo(stream)),
            Err(error) => {
                tally.failed(format!("the server cannot accept: {error}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[waterspout::coroutine]
async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        let bytes = stream.read_lent().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        stream.write_all(&bytes).await?;
    }
}

// ---------------------------------------------------------------------------------------------
// The clients

/// Connects one client after the other, until all clients are connected. Gives each client's number and
/// stream.
#[waterspout::coroutine]
async fn dial(load: Rc<Load>) -> Vec<(u64, TcpStream)> {
    let mut connected = Vec::new();
    while let Some(number) = load.next_client() {
        match TcpStream::connect(load.server).await {
            Ok(stream) => {
                load.tally.connected();
                connected.push((number, stream));
            }
            Err(error) => load.tally.failed(format!("client {number} cannot connect: {error}")),
        }
    }
    connected
}

#[waterspout::coroutine]
async fn client(load: Rc<Load>, number: u64, stream: TcpStream) {
    if let Err(error) = talk(&load, number, &stream).await {
        load.tally.failed(format!("client {number}: {error}"));
    }
}

async fn talk(load: &Load, number: u64, stream: &TcpStream) -> io::Result<()> {
    let tally = &load.tally;
    let mut message = 0;
    while tally.args.messages != Some(message) && !tally.is_time_over() {
        let bytes = load.messages.bytes(number, message);
        let begun = Instant::now();
        tally.asked();
        // Writes and reads at the same time. If this only wrote, a long message and its answer could fill all
        // buffers between here and the server, and both sides would wait for ever.
        let answered = try_join(stream.write_all(bytes), check(stream, bytes, tally)).await;
        answered.map_err(|e| io::Error::new(e.kind(), format!("message {message}: {e}")))?;
        tally.answered(bytes.len(), begun.elapsed());
        message += 1;
    }
    // This ends the connection. The server then ends it, too, and must not have sent anything else.
    stream.shutdown(Shutdown::Write)?;
    match stream.read_lent().await?.len() {
        0 => Ok(()),
        more => Err(io::Error::other(format!("{more} bytes came that nobody had sent"))),
    }
}

/// Reads an answer, and compares it with what was sent, byte for byte.
async fn check(stream: &TcpStream, expected: &[u8], tally: &Tally) -> io::Result<()> {
    let mut left = expected;
    while !left.is_empty() {
        let bytes = stream.read_lent().await?;
        tally.received(bytes.len());
        let at = expected.len() - left.len();
        if bytes.is_empty() {
            return Err(io::Error::other(format!(
                "the stream ended after {at} of {} bytes",
                expected.len()
            )));
        }
        let Some(rest) = left.strip_prefix(&*bytes) else {
            let wrong = bytes.iter().zip(left).take_while(|(got, sent)| got == sent).count();
            return Err(io::Error::other(format!(
                "wrong from byte {} on, where {} had been sent",
                at + wrong + 1,
                expected.len()
            )));
        };
        left = rest;
    }
    Ok(())
}

impl Load {
    fn next_client(&self) -> Option<u64> {
        let number = self.next_client.get();
        self.next_client.set(number + 1);
        (number < self.tally.args.clients).then_some(number)
    }
}
