//! Writing your own socket, over an `AsyncFd`: a Unix socket that keeps messages apart (`SOCK_SEQPACKET`),
//! which this crate does not have.
//!
//! ```text
//! $ cargo run --example own_socket
//! ```

use std::io::{self, Read, Write};

use socket2::{Domain, Socket, Type};
use waterspout::coroutine::start;
use waterspout::net::AsyncFd;

struct SeqPacket(AsyncFd<Socket>);

impl SeqPacket {
    /// Two connected sockets. They are made non-blocking: a call that blocks would stop the whole loop.
    fn pair() -> io::Result<(SeqPacket, SeqPacket)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok((SeqPacket(AsyncFd::new(one)?), SeqPacket(AsyncFd::new(other)?)))
    }

    /// Sends one message. The closure is called when there may be room, and called again later if it gives
    /// `WouldBlock`.
    async fn send(&self, message: &[u8]) -> io::Result<()> {
        let sent = self.0.write_with(|mut socket| socket.write(message)).await?;
        if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Receives one message. An empty one means that the other side has closed its socket.
    async fn recv(&self) -> io::Result<Vec<u8>> {
        let mut message = vec![0; 65_536];
        let len = self.0.read_with(|mut socket| socket.read(&mut message)).await?;
        message.truncate(len);
        Ok(message)
    }
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    let (here, there) = SeqPacket::pair()?;
    let sending = start(async move {
        for n in 1..=3 {
            here.send(format!("message {n}").as_bytes()).await?;
        }
        let large = vec![b'x'; 50_000];
        for _ in 0..100 {
            here.send(&large).await?; // waits for room, again and again
        }
        Ok::<(), io::Error>(())
    });
    for _ in 0..3 {
        println!("{}", String::from_utf8_lossy(&there.recv().await?));
    }
    let mut bytes = 0;
    loop {
        match there.recv().await?.len() {
            0 => break,
            len => bytes += len,
        }
    }
    println!("and {bytes} bytes in large ones");
    sending.await
}
