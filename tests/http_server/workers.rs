//! A server on every core: each worker's loop has one of its own, on the same port.

use std::collections::BTreeSet;
use std::time::Duration;

use waterspout::concurrent::channel;
use waterspout::http::{HttpServer, Request};
use waterspout::net::{BindOptions, bind_sockets};
use waterspout::process::{Worker, Workers};

use super::connect;

#[test]
fn workers_that_share_a_port_answer_side_by_side_and_drain_at_the_end() {
    let options = BindOptions {
        address: Some("127.0.0.1".into()),
        reuse_port: true,
        ..BindOptions::default()
    };
    // Keeps the port, and gets no connections, since it is closed before the first.
    let port = bind_sockets(0, &options).unwrap()[0].local_addr().unwrap().port();
    let (up, mut is_up) = channel(2);
    let serve = async move |worker: Worker| {
        let id = worker.id();
        let server = HttpServer::new(async move |_: Request| id.to_string());
        server.listen_with(port, &options)?;
        up.send(()).await.unwrap();
        worker.stop().cancelled().await;
        assert_eq!(server.drain(Duration::from_secs(10)).await, 0);
        Ok::<(), std::io::Error>(())
    };
    let until = async move || {
        is_up.recv().await;
        is_up.recv().await;
        let mut answered = BTreeSet::new();
        let mut kept = Vec::new();
        // The kernel spreads connections by their ports.
        while answered.len() < 2 {
            let client = connect(port).await;
            let first = client.get("/").await.body;
            assert_eq!(client.get("/").await.body, first);
            answered.insert(first);
            kept.push(client);
        }
        Ok(())
    };
    Workers::new().count(2).run_until(until, serve).unwrap();
}
