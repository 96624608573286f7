//! A TCP proxy: what one side of a connection sends goes to the other side, in both directions.
//!
//! ```text
//! $ cargo run --example tcp_proxy                                     # a demonstration
//! $ cargo run --example tcp_proxy -- 127.0.0.1:8080 example.com:80    # serves for ever
//! ```

mod common;

use std::io;

use futures::{AsyncReadExt, AsyncWriteExt, future::try_join};
use waterspout::coroutine::start;
use waterspout::net::{OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream};

/// Copies from `from` to `to` until `from` ends, and then ends `to`. The other direction may still go on.
async fn one_way(
    from: OwnedReadHalf<TcpStream>,
    mut to: OwnedWriteHalf<TcpStream>,
) -> io::Result<u64> {
    let bytes = futures::io::copy(from, &mut to).await?;
    to.close().await?;
    Ok(bytes)
}

#[waterspout::coroutine]
async fn connection(client: TcpStream, target: String) -> io::Result<()> {
    let peer = client.peer_addr()?;
    let (from_client, to_client) = client.into_split();
    let (from_target, to_target) = TcpStream::connect(target.clone()).await?.into_split();
    let both = try_join(one_way(from_client, to_target), one_way(from_target, to_client));
    let (there, back) = both.await?;
    println!("{peer} <-> {target}: {there} bytes there, {back} bytes back");
    Ok(())
}

async fn proxy(listener: TcpListener, target: String) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        connection(client, target.clone()); // it runs from here on
    }
}

#[waterspout::main]
async fn main() -> io::Result<()> {
    if let Some(asked) = common::arguments("HOST:PORT TARGET:PORT") {
        let listener = TcpListener::bind(asked[0].as_str()).await;
        let listener = common::or_explain(listener, &format!("listen on {}", asked[0]));
        return proxy(listener, asked[1].clone()).await;
    }
    // The demonstration has a target that answers in capitals, a proxy in front of it, and a client.
    let target = TcpListener::bind("127.0.0.1:0").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    let _proxy = start(proxy(listener, target.local_addr()?.to_string())).cancel_on_drop();
    client.write_all(b"hello through the proxy\n").await?;
    client.shutdown(std::net::Shutdown::Write)?;

    let (mut asked, mut answer) = (String::new(), String::new());
    let (mut server, _) = target.accept().await?;
    server.read_to_string(&mut asked).await?;
    server.write_all(asked.to_uppercase().as_bytes()).await?;
    drop(server);
    client.read_to_string(&mut answer).await?;
    print!("{answer}");
    Ok(())
}
