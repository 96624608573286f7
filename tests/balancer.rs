//! `Balancer`: servers that even out their connections, on one loop and on several.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{self, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{turns, until};
use waterspout::IoLoop;
use waterspout::concurrent::channel;
use waterspout::net::{Balancer, BindOptions, TcpServer, TcpStream, bind_sockets};
use waterspout::process::{Worker, Workers};
use waterspout::testing::ExpectLog;

fn options() -> BindOptions {
    let address = Some("127.0.0.1".into());
    BindOptions { address, reuse_port: true, ..BindOptions::default() }
}

/// Greets the client, and goes on until it hangs up.
async fn hold(stream: TcpStream) {
    let _ = stream.write_all(b"x").await;
    let _ = stream.read(&mut [0]).await;
}

fn holding() -> TcpServer {
    TcpServer::bare(async |stream: TcpStream, _| hold(stream).await)
}

/// A client that was greeted.
async fn greeted(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    stream
}

/// `count` servers on this loop that share a balancer, of which the first listens on the port.
fn sharing(count: usize) -> (Balancer, Vec<TcpServer>, u16) {
    let balancer = Balancer::new();
    let servers: Vec<_> = (0..count).map(|_| holding()).collect();
    servers.iter().for_each(|server| server.balance(&balancer).unwrap());
    let port = servers[0].listen_with(0, &options()).unwrap();
    (balancer, servers, port)
}

fn connections(servers: &[TcpServer]) -> Vec<usize> {
    servers.iter().map(TcpServer::connections).collect()
}

fn unevenness(counts: &[usize]) -> usize {
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

#[waterspout::test]
async fn no_two_servers_differ_by_more_than_two_connections_and_one_need_not_listen() {
    let (balancer, servers, port) = sharing(3);
    let mut clients = Vec::new();
    for served in 1..=30 {
        clients.push(greeted(port).await);
        let counts = connections(&servers);
        assert_eq!(counts.iter().sum::<usize>(), served);
        assert!(unevenness(&counts) <= 2, "{counts:?}");
        assert_eq!(balancer.connections(), counts);
    }
    // One that was left alone gets those that come next.
    drop(clients);
    until(|| connections(&servers) == [0, 0, 0]).await;
    assert_eq!(balancer.connections(), [0, 0, 0]);
    assert_eq!(servers.iter().map(TcpServer::accepted).sum::<u64>(), 30);
}

#[waterspout::test]
async fn connections_that_come_all_at_once_are_evened_out_too() {
    let (socket, _clients) = waiting(100);
    let (_balancer, servers, _port) = sharing(2);
    servers[0].add_sockets([socket]).unwrap();
    until(|| connections(&servers).iter().sum::<usize>() == 100).await;
    assert!(unevenness(&connections(&servers)) <= 2);
}

#[waterspout::test]
async fn a_connection_keeps_its_options_and_its_bytes_when_it_is_handed_over() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let server = || {
        let seen = seen.clone();
        TcpServer::bare(async move |stream: TcpStream, peer: SocketAddr| {
            let mut line = [0; 3];
            stream.read_exact(&mut line).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), peer);
            seen.borrow_mut().push((stream.nodelay().unwrap(), line));
            hold(stream).await;
        })
    };
    let (balancer, servers) = (Balancer::new(), [server(), server()]);
    servers.iter().for_each(|server| server.balance(&balancer).unwrap());
    let port = servers[0].listen_with(0, &options()).unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"abc").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        clients.push(client);
    }
    assert_eq!(connections(&servers), [3, 1]);
    assert_eq!(*seen.borrow(), [(true, *b"abc"); 4]);
}

#[waterspout::test]
async fn a_server_gets_no_more_than_its_limit_and_those_beyond_it_are_served_where_they_came() {
    let balancer = Balancer::new();
    let servers = [holding(), holding().max_connections(2)];
    servers.iter().for_each(|server| server.balance(&balancer).unwrap());
    let port = servers[0].listen_with(0, &options()).unwrap();
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(greeted(port).await);
    }
    assert_eq!(connections(&servers), [10, 2]);
}

#[waterspout::test]
async fn if_all_are_at_their_limits_a_connection_waits_for_a_place() {
    let balancer = Balancer::new();
    let servers = [holding().max_connections(2), holding().max_connections(2)];
    servers.iter().for_each(|server| server.balance(&balancer).unwrap());
    let port = servers[0].listen_with(0, &options()).unwrap();
    // The accepting server keeps two; it has no place by which to accept for the other then.
    let first = greeted(port).await;
    let _second = greeted(port).await;
    let waiting = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    turns(20).await;
    assert_eq!(connections(&servers), [2, 0]);
    drop(first);
    waiting.read_exact(&mut [0]).await.unwrap();
    assert_eq!(connections(&servers).iter().sum::<usize>(), 2);
}

#[waterspout::test]
async fn a_handler_that_panics_is_not_counted_any_more() {
    let _expected = ExpectLog::new("waterspout", "exception in a connection handler");
    let balancer = Balancer::new();
    let panicking = || TcpServer::bare(async |_: TcpStream, _| -> () { panic!("as asked") });
    let servers = [panicking(), panicking()];
    servers.iter().for_each(|server| server.balance(&balancer).unwrap());
    let port = servers[0].listen_with(0, &options()).unwrap();
    for _ in 0..6 {
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = client.read(&mut [0]).await;
    }
    until(|| connections(&servers) == [0, 0]).await;
    assert_eq!(balancer.connections(), [0, 0]);
}

// ---------------------------------------------------------------------------------------------
// A server that stops, is dropped, or joins again

/// A listener with clients that wait to be accepted.
fn waiting(count: usize) -> (net::TcpListener, Vec<net::TcpStream>) {
    let socket = bind_sockets(0, &options()).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let connect = |_| net::TcpStream::connect(address).unwrap();
    (socket, (0..count).map(connect).collect())
}

/// Two servers, of which one accepts four connections in one go. The third of these is handed over, and lies in the
/// mail of the other server when `act` is called with that, by the handler of the fourth. All four are served. Gives
/// how many the other one has accepted.
async fn with_mail(act: impl Fn(&mut Option<TcpServer>) + 'static) -> u64 {
    let (socket, clients) = waiting(4);
    let balancer = Balancer::new();
    let other = Rc::new(RefCell::new(Some(holding())));
    other.borrow().as_ref().unwrap().balance(&balancer).unwrap();
    let (acts_on, handled) = (other.clone(), Cell::new(0));
    let accepting = TcpServer::bare(async move |stream: TcpStream, _| {
        handled.set(handled.get() + 1);
        if handled.get() == 3 {
            act(&mut acts_on.borrow_mut());
        }
        hold(stream).await;
    });
    accepting.balance(&balancer).unwrap();
    accepting.add_sockets([socket]).unwrap();
    for client in clients {
        client.set_nonblocking(true).unwrap();
        TcpStream::from_std(client).unwrap().read_exact(&mut [0]).await.unwrap();
    }
    let accepted = other.borrow().as_ref().map_or(0, TcpServer::accepted);
    assert_eq!(accepting.accepted() + accepted, 4);
    accepted
}

#[waterspout::test]
async fn what_was_handed_to_a_server_is_served_although_it_is_stopped() {
    assert_eq!(with_mail(|other| other.as_ref().unwrap().stop()).await, 1);
}

#[waterspout::test]
async fn what_was_handed_to_a_server_goes_to_the_others_if_it_is_dropped() {
    assert_eq!(with_mail(|other| drop(other.take())).await, 0);
}

#[test]
fn what_was_handed_to_a_server_goes_to_the_others_if_its_loop_is_closed_or_does_not_run() {
    let acts: [fn(&IoLoop, &TcpServer); 2] =
        [|io_loop, _| io_loop.close(), |_, server| server.stop()];
    for act in acts {
        let (balancer, other, idle) = (Balancer::new(), holding(), IoLoop::new().unwrap());
        idle.run_sync(async || other.balance(&balancer)).unwrap().unwrap();
        let served = IoLoop::new().unwrap().run_sync(async || {
            let (socket, clients) = waiting(4);
            let server = holding();
            server.balance(&balancer).unwrap();
            server.add_sockets([socket]).unwrap();
            until(|| balancer.connections().iter().sum::<usize>() == 4).await;
            turns(20).await;
            assert_eq!(server.connections(), 3);
            act(&idle, &other);
            for client in clients {
                client.set_nonblocking(true).unwrap();
                TcpStream::from_std(client).unwrap().read_exact(&mut [0]).await.unwrap();
            }
            server.accepted()
        });
        assert_eq!(served.unwrap(), 4);
    }
}

#[waterspout::test]
async fn what_was_handed_to_a_server_is_served_although_it_joins_another_balancer() {
    let act = |other: &mut Option<TcpServer>| {
        other.as_ref().unwrap().balance(&Balancer::new()).unwrap();
    };
    assert_eq!(with_mail(act).await, 1);
}

#[waterspout::test]
async fn a_server_that_was_stopped_gets_nothing_until_it_joins_again() {
    let (balancer, servers, port) = sharing(2);
    servers[1].stop();
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(greeted(port).await);
    }
    assert_eq!((connections(&servers), balancer.connections()), (vec![6, 0], vec![6]));
    servers[1].balance(&balancer).unwrap();
    for _ in 0..6 {
        clients.push(greeted(port).await);
    }
    let counts = connections(&servers);
    assert!(counts.iter().sum::<usize>() == 12 && unevenness(&counts) <= 2, "{counts:?}");
}

#[waterspout::test]
async fn a_server_that_drains_serves_to_the_end_what_was_handed_to_it() {
    let (_balancer, servers, port) = sharing(2);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(greeted(port).await);
    }
    assert_eq!(connections(&servers), [3, 1]);
    let draining = servers[1].drain(Duration::from_secs(60));
    let hanging_up = async {
        turns(5).await;
        drop(clients);
    };
    assert_eq!(futures::join!(draining, hanging_up).0, 0);
}

// ---------------------------------------------------------------------------------------------
// Several loops

#[waterspout::test]
async fn a_loop_that_is_busy_gets_only_so_many_and_none_of_them_is_lost() {
    let (socket, clients) = waiting(300);
    let (balancer, server) = (Balancer::new(), holding());
    let (shared, (is_up, up)) = (balancer.clone(), mpsc::channel());
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let busy = thread::spawn(move || {
        let served = IoLoop::new().unwrap().run_sync(async || {
            let server = holding();
            server.balance(&shared).unwrap();
            is_up.send(()).unwrap();
            // It blocks its thread.
            may_go_on.recv().unwrap();
            until(|| server.accepted() > 0).await;
            until(|| server.connections() == 0).await;
            server.accepted()
        });
        served.unwrap()
    });
    up.recv().unwrap();
    server.balance(&balancer).unwrap();
    server.add_sockets([socket]).unwrap();
    until(|| balancer.connections().iter().sum::<usize>() == 300).await;
    assert_eq!(server.connections(), 300 - 64);
    go_on.send(()).unwrap();
    for client in clients {
        client.set_nonblocking(true).unwrap();
        TcpStream::from_std(client).unwrap().read_exact(&mut [0]).await.unwrap();
    }
    assert_eq!(busy.join().unwrap(), 64);
}

/// Two workers with a balancer, of which each that has sockets listens; they greet a client by their number, and panic
/// when it asks for that. `clients` is called with the address, on a thread of its own.
fn workers(listening: usize, clients: impl FnOnce(SocketAddr) + Send + 'static) {
    let first = bind_sockets(0, &options()).unwrap().remove(0);
    let address = first.local_addr().unwrap();
    let more = (1..listening).map(|_| bind_sockets(address.port(), &options()).unwrap().remove(0));
    let all: Vec<_> = [first].into_iter().chain(more).collect();
    let (balancer, up) = (Balancer::new(), Arc::new(AtomicBool::new(false)));
    let (is_up, sockets, joined) = (up.clone(), Mutex::new(all), balancer.clone());
    let serve = async move |worker: Worker| {
        let id = worker.id();
        let (panics, mut asked) = channel(1);
        let server = TcpServer::bare(async move |stream: TcpStream, _| {
            let _ = stream.write_all(&[id as u8]).await;
            if stream.read(&mut [0]).await.is_ok_and(|n| n > 0) {
                let _ = panics.try_send(());
            }
        });
        server.balance(&balancer)?;
        // The first worker keeps those of a worker that does not listen.
        let own = if id < listening { sockets.lock().unwrap().pop() } else { None };
        server.add_sockets(own)?;
        let stopped = worker.stop().cancelled();
        is_up.store(balancer.connections().len() == 2, Ordering::SeqCst);
        match futures::future::select(std::pin::pin!(stopped), std::pin::pin!(asked.recv())).await {
            futures::future::Either::Left(_) => server.drain(Duration::from_secs(5)).await,
            futures::future::Either::Right(_) => panic!("as asked"),
        };
        Ok::<(), io::Error>(())
    };
    let (done, mut is_done) = channel(1);
    let clients = thread::spawn(move || {
        while !up.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        clients(address);
        done.try_send(()).unwrap();
    });
    let until = || async move {
        is_done.recv().await;
        Ok(())
    };
    Workers::new().count(2).run_until(until, serve).unwrap();
    clients.join().unwrap();
    assert!(joined.connections().is_empty());
}

/// A client, and the number of the worker that serves it.
fn client(address: SocketAddr) -> (net::TcpStream, usize) {
    let mut stream = net::TcpStream::connect(address).unwrap();
    let mut id = [0];
    stream.read_exact(&mut id).unwrap();
    (stream, id[0].into())
}

fn evened_out(address: SocketAddr, count: usize) {
    let clients: Vec<_> = (0..count).map(|_| client(address)).collect();
    let of_first = clients.iter().filter(|(_, id)| *id == 0).count();
    assert!(of_first.abs_diff(count - of_first) <= 2, "{of_first} of {count}");
}

#[test]
fn workers_that_share_a_port_even_out_what_the_system_does_not() {
    workers(2, |address| evened_out(address, 64));
}

#[test]
fn one_worker_may_accept_for_all() {
    workers(1, |address| evened_out(address, 64));
}

#[test]
fn when_a_worker_fails_the_other_serves_all_until_it_is_there_again() {
    let _expected = ExpectLog::new("waterspout", "worker 1 failed");
    workers(1, |address| {
        let mut kept: Vec<_> = (0..8).map(|_| client(address)).collect();
        let (of_failing, _) = kept.iter_mut().find(|(_, id)| *id == 1).unwrap();
        of_failing.write_all(b"!").unwrap();
        // It is cut off with its worker.
        assert!(of_failing.read(&mut [0]).is_ok_and(|n| n == 0));
        let more: Vec<_> = (0..20).map(|_| client(address)).collect();
        assert_eq!(more.len(), 20);
    });
}
