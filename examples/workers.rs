//! A server on two threads with a loop each, which share a port by `SO_REUSEPORT`. After Ctrl-C or
//! `SIGTERM` it ends as soon as its connections have ended.
//!
//! ```text
//! $ cargo run --example workers            # a demonstration
//! $ cargo run --example workers -- 8888    # serves until Ctrl-C; try `nc 127.0.0.1 8888`
//! ```

mod common;

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use waterspout::IoLoop;
use waterspout::iostream::IoStream;
use waterspout::net::{BindOptions, TcpServer, bind_sockets};
use waterspout::process::{Worker, Workers};

fn bind(port: u16) -> io::Result<Vec<TcpListener>> {
    let address = Some("127.0.0.1".into());
    bind_sockets(port, &BindOptions { address, reuse_port: true, ..BindOptions::default() })
}

/// What each worker does. Workers share nothing, so nothing is locked.
async fn serve(worker: Worker, sockets: io::Result<Vec<TcpListener>>) -> io::Result<()> {
    let greeting = format!("you are with worker {}\n", worker.id());
    let server = TcpServer::new(move |stream: IoStream<_>, _peer| stream.write(&greeting));
    server.add_sockets(sockets?)?;
    worker.stop().cancelled().await;
    let cut_off = server.drain(Duration::from_secs(10)).await;
    println!("worker {} ends, with {cut_off} connections cut off", worker.id());
    Ok(())
}

/// Connects clients, one after the other, until each of the two workers has greeted one.
fn demonstrate(port: u16) -> io::Result<()> {
    let mut greetings: Vec<String> = Vec::new();
    while greetings.len() < 2 {
        let mut greeting = String::new();
        TcpStream::connect(("127.0.0.1", port))?.read_to_string(&mut greeting)?;
        if !greetings.contains(&greeting) {
            print!("{greeting}");
            greetings.push(greeting);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let asked = common::arguments("PORT").map(|asked| common::parsed(&asked[0], "port", "PORT"));
    let first = common::or_explain(bind(asked.unwrap_or(0)), "listen on that port");
    let port = first[0].local_addr()?.port();
    println!("two workers on port {port}");
    // The first worker takes these sockets. The second one, and any that is started again, binds the same
    // port once more.
    let first = Mutex::new(Some(first));
    let work = move |worker| {
        let first = first.lock().ok().and_then(|mut first| first.take());
        serve(worker, first.map_or_else(|| bind(port), Ok))
    };
    match asked {
        Some(_) => Workers::new().count(2).run(work)?,
        None => {
            let until = || IoLoop::current().run_in_executor(move || demonstrate(port));
            Workers::new().count(2).run_until(until, work)?;
        }
    }
    Ok(())
}
