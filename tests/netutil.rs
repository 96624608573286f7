//! `bind_sockets`, `bind_unix_socket`, `is_valid_ip` and the resolvers.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::future::pending;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, IpAddr, SocketAddr, SocketAddrV6};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net as unix;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{LOOPBACK, TempDir, kind, link_local, open};
use waterspout::IoLoop;
use waterspout::concurrent::Executor;
use waterspout::coroutine::{self, moment, sleep, with_timeout};
use waterspout::net::{
    BindOptions, CachingResolver, OverrideResolver, Resolver, TcpClient, TcpStream,
    ThreadedResolver, UdpSocket, UnixListener, UnixStream, bind_sockets, bind_unix_socket,
    is_valid_ip,
};

fn on(address: &str) -> BindOptions {
    BindOptions { address: Some(address.into()), ..BindOptions::default() }
}

fn addresses(sockets: &[net::TcpListener]) -> Vec<SocketAddr> {
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

// ---------------------------------------------------------------------------------------------
// bind_sockets

#[test]
fn all_addresses_of_a_name_get_the_same_port() {
    let bound = addresses(&bind_sockets(0, &on("localhost")).unwrap());
    let ports: HashSet<u16> = bound.iter().map(SocketAddr::port).collect();
    assert_eq!(ports.len(), 1, "{bound:?}");
    assert_ne!(bound[0].port(), 0);
    let ips: HashSet<IpAddr> = bound.iter().map(SocketAddr::ip).collect();
    assert_eq!(ips.len(), bound.len(), "no address twice: {bound:?}");
    assert!(ips.iter().all(IpAddr::is_loopback), "{bound:?}");
}

#[test]
fn a_port_serves_both_families_by_a_socket_each() {
    let four = bind_sockets(0, &on("127.0.0.1")).unwrap();
    let port = four[0].local_addr().unwrap().port();
    let six = bind_sockets(port, &on("::1")).unwrap();
    assert_eq!(addresses(&six), [SocketAddr::from((net::Ipv6Addr::LOCALHOST, port))]);
    assert!(socket2::SockRef::from(&six[0]).only_v6().unwrap());
}

#[test]
fn a_socket_is_not_inherited_does_not_block_and_keeps_its_backlog() {
    let options = BindOptions { backlog: 3, ..on("127.0.0.1") };
    let [socket] = &bind_sockets(0, &options).unwrap()[..] else { panic!("there is one") };
    assert_eq!(kind(socket.accept()), ErrorKind::WouldBlock);
    let flags = rustix::io::fcntl_getfd(socket).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert!(socket2::SockRef::from(socket).reuse_address().unwrap());
}

#[test]
fn an_address_in_use_is_an_error() {
    let bound = bind_sockets(0, &on("127.0.0.1")).unwrap();
    let port = bound[0].local_addr().unwrap().port();
    assert_eq!(kind(bind_sockets(port, &on("127.0.0.1"))), ErrorKind::AddrInUse);
    assert_eq!(kind(bind_sockets(port, &on("localhost"))), ErrorKind::AddrInUse);
    drop(bound);
    bind_sockets(port, &on("127.0.0.1")).unwrap();
}

#[test]
fn a_port_is_free_again_at_once_after_connections() {
    let bound = bind_sockets(0, &on("127.0.0.1")).unwrap();
    let address = bound[0].local_addr().unwrap();
    bound[0].set_nonblocking(false).unwrap();
    let mut client = net::TcpStream::connect(address).unwrap();
    // The side that closes first is the one whose port lingers.
    drop(bound[0].accept().unwrap());
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop((client, bound));
    bind_sockets(address.port(), &on("127.0.0.1")).unwrap();
}

#[test]
fn sockets_that_reuse_a_port_share_it() {
    let options = BindOptions { reuse_port: true, ..on("127.0.0.1") };
    let one = bind_sockets(0, &options).unwrap();
    let address = one[0].local_addr().unwrap();
    let other = bind_sockets(address.port(), &options).unwrap();
    assert_eq!(other[0].local_addr().unwrap(), address);
    // Who does not want to share does not get it.
    assert_eq!(kind(bind_sockets(address.port(), &on("127.0.0.1"))), ErrorKind::AddrInUse);

    let clients: Vec<_> = (0..64).map(|_| net::TcpStream::connect(address).unwrap()).collect();
    let count = |socket: &net::TcpListener| (0..64).take_while(|_| socket.accept().is_ok()).count();
    let (mine, others) = (count(&one[0]), count(&other[0]));
    assert_eq!(mine + others, clients.len());
    assert!(mine > 0 && others > 0, "{mine} and {others}");
}

#[test]
fn addresses_that_cannot_be_bound_are_an_error() {
    // An address for documentation, which no machine has.
    assert_eq!(kind(bind_sockets(0, &on("192.0.2.1"))), ErrorKind::AddrNotAvailable);
    assert_eq!(kind(bind_sockets(0, &on("2001:db8::1"))), ErrorKind::AddrNotAvailable);
    assert!(bind_sockets(0, &on("no such name")).is_err());
}

#[test]
fn no_address_or_an_empty_one_is_all_of_the_machine() {
    for options in [BindOptions::default(), on("")] {
        let bound = addresses(&bind_sockets(0, &options).unwrap());
        assert!(bound.iter().all(|address| address.ip().is_unspecified()), "{bound:?}");
        assert!(bound[0].is_ipv4(), "{bound:?}");
    }
}

#[test]
fn sockets_are_bound_with_the_scope_of_their_address_however_it_is_written() {
    let Some((ip, scope, interface)) = link_local() else { return };
    for host in [format!("{ip}%{scope}"), format!("{ip}%{interface}"), format!("[{ip}%{scope}]")] {
        let bound = addresses(&bind_sockets(0, &on(&host)).unwrap());
        let [SocketAddr::V6(bound)] = bound[..] else { panic!("{host}: {bound:?}") };
        assert_eq!((*bound.ip(), bound.scope_id()), (ip, scope), "{host}");
    }
    let error = bind_sockets(0, &on(&format!("{ip}%no such"))).unwrap_err();
    assert!(error.to_string().contains("interface \"no such\""), "{error}");
}

#[waterspout::test]
async fn link_local_addresses_are_connected_to_with_their_scope() {
    let Some((ip, scope, interface)) = link_local() else { return };
    let bound = bind_sockets(0, &on(&format!("{ip}%{interface}"))).unwrap();
    let address = bound[0].local_addr().unwrap();
    let port = address.port();
    for host in [format!("{ip}%{scope}"), format!("[{ip}%{interface}]")] {
        let stream = TcpStream::connect(format!("{host}:{port}")).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let stream = TcpStream::connect((host.as_str(), port)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        // Nobody is asked, and a name may be taken to stand for one.
        let resolver = OverrideResolver::new(Silent).with_host("neighbour", &host);
        let client = TcpClient::new().resolver(resolver).source(SocketAddr::from((ip, 0)));
        assert!(client.connect(&host, port).await.is_err(), "its source lacks the scope");
        let source = SocketAddrV6::new(ip, 0, 0, scope).into();
        for host in [&host, "neighbour"] {
            let stream = client.clone().source(source).connect(host, port).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), address);
        }
    }
}

#[waterspout::test]
async fn datagrams_are_sent_with_the_scope_of_their_address() {
    let Some((ip, scope, interface)) = link_local() else { return };
    let socket = UdpSocket::bind(format!("[{ip}%{interface}]:0")).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    for host in [format!("{ip}%{scope}"), format!("[{ip}%{interface}]")] {
        socket.send_to(b"x", (host.as_str(), port)).await.unwrap();
        socket.send_to(b"x", format!("{host}:{port}")).await.unwrap();
    }
    for _ in 0..4 {
        let (_, from) = socket.recv_from(&mut [0; 8]).await.unwrap();
        assert_eq!(from, SocketAddrV6::new(ip, port, 0, scope).into());
    }
}

// ---------------------------------------------------------------------------------------------
// bind_unix_socket

#[test]
fn a_unix_socket_has_the_permissions_that_were_asked_for() {
    let directory = TempDir::new();
    for mode in [0o600, 0o666, 0o770] {
        let path = directory.path(&format!("{mode:o}"));
        let socket = bind_unix_socket(&path, mode).unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, mode);
        assert_eq!(kind(socket.accept()), ErrorKind::WouldBlock);
        unix::UnixStream::connect(&path).unwrap();
        socket.accept().unwrap();
    }
}

#[waterspout::test]
async fn a_unix_socket_serves_on_a_loop() {
    let directory = TempDir::new();
    let path = directory.path("socket");
    let listener = UnixListener::from_std(bind_unix_socket(&path, 0o600).unwrap()).unwrap();
    let client = coroutine::start(UnixStream::connect(path));
    let (server, _) = listener.accept().await.unwrap();
    client.await.unwrap().write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    server.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
}

#[test]
fn a_socket_file_that_nobody_listens_on_is_replaced() {
    let directory = TempDir::new();
    let path = directory.path("socket");
    drop(bind_unix_socket(&path, 0o600).unwrap());
    assert!(path.exists(), "closing leaves the file");
    let socket = bind_unix_socket(&path, 0o600).unwrap();
    unix::UnixStream::connect(&path).unwrap();
    socket.accept().unwrap();
    // One of another type, too.
    drop(socket);
    fs::remove_file(&path).unwrap();
    drop(unix::UnixDatagram::bind(&path).unwrap());
    bind_unix_socket(&path, 0o600).unwrap();
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let directory = TempDir::new();
    let path = directory.path("socket");
    let socket = bind_unix_socket(&path, 0o600).unwrap();
    assert_eq!(kind(bind_unix_socket(&path, 0o600)), ErrorKind::AddrInUse);
    socket.set_nonblocking(false).unwrap();
    socket.accept().unwrap(); // who asked has gone
    let mut client = unix::UnixStream::connect(&path).unwrap();
    client.write_all(b"!").unwrap();
    socket.accept().unwrap().0.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn a_socket_whose_backlog_is_full_is_in_use_and_asking_does_not_wait() {
    let directory = TempDir::new();
    let path = directory.path("socket");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let address = socket2::SockAddr::unix(&path).unwrap();
    socket.bind(&address).unwrap();
    socket.listen(0).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let client = client.unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(&address) {
            Ok(()) => clients.push(client),
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    let asked = path.clone();
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || sender.send(bind_unix_socket(asked, 0o600)));
    let answer = answer.recv_timeout(Duration::from_secs(20)).expect("it does not wait");
    assert_eq!(kind(answer), ErrorKind::AddrInUse);
    assert!(path.exists());
}

#[test]
fn a_datagram_socket_that_is_alive_is_left_alone() {
    let directory = TempDir::new();
    let path = directory.path("socket");
    let socket = unix::UnixDatagram::bind(&path).unwrap();
    assert_eq!(kind(bind_unix_socket(&path, 0o600)), ErrorKind::AddrInUse);
    unix::UnixDatagram::unbound().unwrap().send_to(b"!", &path).unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let directory = TempDir::new();
    let (file, folder) = (directory.path("file"), directory.path("folder"));
    fs::write(&file, "precious").unwrap();
    fs::create_dir(&folder).unwrap();
    let (link, dangling) = (directory.path("link"), directory.path("dangling"));
    // Not even one to a socket: what the link is for is not known.
    let socket = directory.path("socket");
    drop(bind_unix_socket(&socket, 0o600).unwrap());
    symlink(&socket, &link).unwrap();
    symlink(directory.path("nothing"), &dangling).unwrap();
    for path in [&file, &folder, &link, &dangling] {
        let error = bind_unix_socket(path, 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert!(fs::symlink_metadata(path).is_ok());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
#[cfg(target_os = "linux")]
fn an_abstract_name_needs_no_file_and_is_free_when_its_socket_is_dropped() {
    let name = format!("\0waterspout-netutil-{}", std::process::id());
    for _ in 0..2 {
        let socket = bind_unix_socket(&name, 0o600).unwrap();
        assert_eq!(kind(bind_unix_socket(&name, 0o600)), ErrorKind::AddrInUse);
        let bound = socket.local_addr().unwrap();
        assert_eq!(bound.as_abstract_name(), Some(&name.as_bytes()[1..]));
        let _client = unix::UnixStream::connect_addr(&bound).unwrap();
        socket.accept().unwrap();
    }
    assert_eq!(
        kind(bind_unix_socket(format!("\0{}", "x".repeat(200)), 0)),
        ErrorKind::InvalidInput
    );
    assert_eq!(kind(bind_unix_socket("a\0b", 0o600)), ErrorKind::InvalidInput);
}

#[test]
fn paths_that_no_socket_can_have_are_errors() {
    let directory = TempDir::new();
    assert_eq!(kind(bind_unix_socket(directory.path("no/such"), 0o600)), ErrorKind::NotFound);
    let long = directory.path(&"x".repeat(200));
    assert_eq!(kind(bind_unix_socket(&long, 0o600)), ErrorKind::InvalidInput);
    assert!(!long.exists());
}

// ---------------------------------------------------------------------------------------------
// is_valid_ip

#[test]
fn numeric_addresses_are_valid_and_nothing_else_is() {
    for valid in ["127.0.0.1", "8.8.4.4", "::1", "::", "fe80::1", "2001:db8:1:2:3:4:5:6"] {
        assert!(is_valid_ip(valid), "{valid}");
    }
    let long = "1".repeat(100);
    let invalid = [
        "",
        " ",
        "\n",
        "\0",
        "localhost",
        "example.com",
        "127.0.0.1<",
        " 127.0.0.1",
        "127.0.0.1\0",
        "127.0.0",
        "127.1",
        "256.0.0.1",
        "01.2.3.4",
        "0x7f.0.0.1",
        "[::1]",
        "::1%lo",
        "1.2.3.4:80",
        &long,
    ];
    for invalid in invalid {
        assert!(!is_valid_ip(invalid), "{invalid:?}");
    }
}

// ---------------------------------------------------------------------------------------------
// Resolvers

/// Answers as it is told, and remembers what it was asked.
#[derive(Clone, Default)]
struct Fake {
    asked: Rc<RefCell<Vec<String>>>,
    answer: Rc<RefCell<Vec<SocketAddr>>>,
    fails: Rc<Cell<bool>>,
    takes: Rc<Cell<Duration>>,
}

impl Fake {
    fn answering(addresses: &[&str]) -> Fake {
        let fake = Fake::default();
        *fake.answer.borrow_mut() = addresses.iter().map(|text| text.parse().unwrap()).collect();
        fake
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

impl Resolver for Fake {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.borrow_mut().push(format!("{host}:{port}"));
        sleep(self.takes.get()).await;
        match self.fails.get() {
            true => Err(io::Error::other("no such name")),
            false => Ok(self.answer.borrow().clone()),
        }
    }
}

/// Never answers.
#[derive(Clone)]
struct Silent;

impl Resolver for Silent {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        pending().await
    }
}

/// Somebody who listens.
#[waterspout::test]
async fn the_system_finds_localhost() {
    let found = ThreadedResolver.resolve("localhost", 80).await.unwrap();
    assert!(!found.is_empty());
    assert!(found.iter().all(|found| found.ip().is_loopback() && found.port() == 80), "{found:?}");
    assert!(ThreadedResolver.resolve("no such name", 80).await.is_err());
    assert!(ThreadedResolver.resolve("nul\0", 80).await.is_err());
}

#[test]
fn a_lookup_waits_for_no_other_work_and_work_may_wait_for_lookups() {
    child::alone("a_lookup_waits_for_no_other_work_and_work_may_wait_for_lookups", || {
        let io_loop = IoLoop::new().unwrap();
        let all = 2 * 5 * std::thread::available_parallelism().unwrap().get();
        let look_ups = || async {
            // Work that waits for a look-up, on every thread there is and more.
            let handle = IoLoop::current().handle();
            let work: Vec<_> = (0..all)
                .map(|_| {
                    let handle = handle.clone();
                    let look_up = || async { ThreadedResolver.resolve("localhost", 80).await };
                    Executor::shared().run(move || handle.run_sync(look_up).unwrap().unwrap())
                })
                .collect();
            for work in work {
                assert!(!work.await.is_empty());
            }
            // Work that does not end before the look-up.
            let (go_on, busy) = mpsc::channel::<()>();
            let busy = Arc::new(Mutex::new(busy));
            for _ in 0..all {
                let busy = busy.clone();
                drop(IoLoop::current().run_in_executor(move || busy.lock().unwrap().recv()));
            }
            assert!(!ThreadedResolver.resolve("localhost", 80).await.unwrap().is_empty());
            drop(go_on);
        };
        io_loop.run_sync_timeout(Duration::from_secs(60), look_ups).unwrap();
    });
}

#[waterspout::test]
async fn a_refusing_executor_is_an_error_of_the_resolver() {
    let refusing = Executor::builder().threads(1).build();
    refusing.shutdown();
    IoLoop::current().set_default_executor(refusing);
    let error = ThreadedResolver.resolve("localhost", 80).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    // The sockets look their names up in the same way.
    let error = TcpStream::connect("localhost:80").await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[waterspout::test]
async fn a_lookup_that_is_given_up_leaves_no_coroutine() {
    let io_loop = IoLoop::current();
    let executor = Executor::builder().threads(1).build();
    io_loop.set_default_executor(executor.clone());
    // Its only thread is busy, so the look-up does not even begin.
    let (go_on, busy) = mpsc::channel::<()>();
    let job = executor.run(move || busy.recv());
    let before = io_loop.counters();
    let client = TcpClient::new().timeout(Duration::from_millis(20));
    assert_eq!(kind(client.connect("localhost", 80).await), ErrorKind::TimedOut);
    let connect = TcpStream::connect("localhost:80");
    assert!(with_timeout(Duration::from_millis(20), connect).await.is_err());
    let after = io_loop.counters();
    assert_eq!(after.live, before.live);
    assert_eq!((after.sources, after.pending_timers), (before.sources, before.pending_timers));
    drop(go_on);
    let _ = job.await;
    // The answer comes late, and harms nobody.
    executor.run(|| ()).await;
}

#[waterspout::test]
async fn numeric_addresses_are_not_asked_for() {
    let (_listener, address) = open(LOOPBACK);
    let fake = Fake::answering(&["192.0.2.1:1"]);
    let client = TcpClient::new().resolver(fake.clone());
    client.connect("127.0.0.1", address.port()).await.unwrap();
    let six = bind_sockets(0, &on("::1")).unwrap();
    let port = six[0].local_addr().unwrap().port();
    for host in ["::1", "[::1]", "0:0::0:1"] {
        client.connect(host, port).await.unwrap();
    }
    assert!(fake.asked().is_empty());
    // Brackets are IPv6's.
    fake.fails.set(true);
    assert!(client.connect("[127.0.0.1]", address.port()).await.is_err());
    assert_eq!(fake.asked(), [format!("[127.0.0.1]:{}", address.port())]);
}

#[waterspout::test]
async fn what_was_said_of_the_port_comes_before_what_was_said_of_the_host() {
    let fake = Fake::answering(&["192.0.2.1:1"]);
    let resolver = OverrideResolver::new(fake.clone())
        .with_host("one", "127.0.0.1")
        .with_host("two", "three")
        .with_host("six", "::1")
        .with_port("one", 443, "127.0.0.2", 8443)
        .with_port("other", 80, "elsewhere", 8080);
    let resolve = |host, port| {
        let found = resolver.resolve(host, port);
        async { found.await.unwrap().into_iter().map(|a| a.to_string()).collect::<Vec<_>>() }
    };
    assert_eq!(resolve("one", 80).await, ["127.0.0.1:80"]);
    assert_eq!(resolve("one", 443).await, ["127.0.0.2:8443"]);
    assert_eq!(resolve("six", 80).await, ["[::1]:80"]);
    assert!(fake.asked().is_empty());
    for (host, port) in [("two", 80), ("other", 80), ("other", 81), ("neither", 80)] {
        assert_eq!(resolve(host, port).await, ["192.0.2.1:1"]);
    }
    assert_eq!(fake.asked(), ["three:80", "elsewhere:8080", "other:81", "neither:80"]);
}

#[waterspout::test]
async fn a_client_connects_to_where_a_name_was_overridden_to() {
    let (_listener, address) = open(LOOPBACK);
    let resolver =
        OverrideResolver::new(Silent).with_port("example.com", 80, "127.0.0.1", address.port());
    let client = TcpClient::new().resolver(resolver);
    assert_eq!(client.connect("example.com", 80).await.unwrap().peer_addr().unwrap(), address);
}

#[waterspout::test(virtual_time)]
async fn answers_are_remembered_for_their_time() {
    let fake = Fake::answering(&["192.0.2.1:1"]);
    let resolver = CachingResolver::new(fake.clone(), Duration::from_secs(60));
    let ask = |host, port| {
        let found = resolver.resolve(host, port);
        async { found.await.map(|found| found.len()) }
    };
    assert_eq!(ask("a", 80).await.unwrap(), 1);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(ask("a", 80).await.unwrap(), 1);
    assert_eq!(fake.asked(), ["a:80"]);
    assert_eq!(ask("a", 81).await.unwrap(), 1);
    assert_eq!(fake.asked(), ["a:81"], "another port is another question");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ask("a", 80).await.unwrap(), 1);
    assert_eq!(fake.asked(), ["a:80"], "its time is over");
    resolver.clear();
    assert_eq!(ask("a", 80).await.unwrap(), 1);
    assert_eq!(fake.asked(), ["a:80"]);
}

#[waterspout::test(virtual_time)]
async fn errors_and_empty_answers_are_not_remembered() {
    let fake = Fake::answering(&[]);
    fake.fails.set(true);
    let resolver = CachingResolver::new(fake.clone(), Duration::from_secs(60));
    assert!(resolver.resolve("a", 80).await.is_err());
    fake.fails.set(false);
    assert_eq!(resolver.resolve("a", 80).await.unwrap(), []);
    fake.answer.borrow_mut().push("192.0.2.1:1".parse().unwrap());
    assert_eq!(resolver.resolve("a", 80).await.unwrap().len(), 1);
    assert_eq!(fake.asked().len(), 3);
}

#[waterspout::test(virtual_time)]
async fn answers_can_be_remembered_for_ever() {
    let fake = Fake::answering(&["192.0.2.1:1"]);
    let resolver = CachingResolver::new(fake.clone(), Duration::MAX);
    for _ in 0..2 {
        assert_eq!(resolver.resolve("a", 80).await.unwrap().len(), 1);
        sleep(Duration::from_secs(86_400 * 20)).await;
    }
    assert_eq!(fake.asked(), ["a:80"]);
}

#[waterspout::test(virtual_time)]
async fn an_answer_that_was_under_way_when_all_were_forgotten_is_not_remembered() {
    let fake = Fake::answering(&["192.0.2.1:1"]);
    fake.takes.set(Duration::from_secs(2));
    let resolver = Rc::new(CachingResolver::new(fake.clone(), Duration::from_secs(60)));
    let inner = resolver.clone();
    let asking = coroutine::start(async move { inner.resolve("a", 80).await.unwrap() });
    sleep(Duration::from_secs(1)).await;
    resolver.clear();
    asking.await;
    resolver.resolve("a", 80).await.unwrap();
    assert_eq!(fake.asked().len(), 2);
}

#[waterspout::test(virtual_time)]
async fn a_full_memory_makes_room_by_what_is_over_and_otherwise_answers_all_the_same() {
    let fake = Fake::answering(&["192.0.2.1:1"]);
    let resolver = CachingResolver::new(fake.clone(), Duration::from_secs(60));
    for n in 0..1024 {
        resolver.resolve(&n.to_string(), 80).await.unwrap();
    }
    for _ in 0..2 {
        resolver.resolve("one more", 80).await.unwrap();
    }
    assert_eq!(fake.asked().len(), 1026);
    sleep(Duration::from_secs(60)).await;
    for _ in 0..2 {
        resolver.resolve("one more", 80).await.unwrap();
    }
    assert_eq!(fake.asked().len(), 1);
}

#[waterspout::test]
async fn a_cache_can_be_shared_by_clients() {
    let (_listener, address) = open(LOOPBACK);
    let fake = Fake::answering(&[&address.to_string()]);
    let resolver = Rc::new(CachingResolver::new(fake.clone(), Duration::from_secs(60)));
    for _ in 0..2 {
        let client = TcpClient::new().resolver(resolver.clone());
        client.connect("name", 80).await.unwrap();
    }
    assert_eq!(fake.asked(), ["name:80"]);
}

#[waterspout::test(virtual_time)]
async fn a_resolver_that_hangs_is_ended_by_the_time_limit() {
    let io_loop = IoLoop::current();
    let before = io_loop.counters();
    let begun = io_loop.time();
    let client = TcpClient::new().resolver(Silent).timeout(Duration::from_secs(5));
    let error = client.connect("name", 80).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "connecting to name:80 took longer than 5s");
    assert_eq!(io_loop.time() - begun, Duration::from_secs(5));
    let after = io_loop.counters();
    assert_eq!((after.live, after.sources), (before.live, before.sources));
    assert_eq!(after.pending_timers, before.pending_timers);
}

#[waterspout::test(virtual_time)]
async fn a_resolver_that_hangs_is_ended_by_dropping_who_asks() {
    let io_loop = IoLoop::current();
    let live = io_loop.counters().live;
    let client = TcpClient::new().resolver(CachingResolver::new(Silent, Duration::from_secs(1)));
    assert!(with_timeout(Duration::from_secs(1), client.connect("name", 80)).await.is_err());
    let connecting = coroutine::start(async move { client.connect("name", 80).await });
    moment().await;
    connecting.cancel();
    assert_eq!(io_loop.counters().live, live);
}

#[waterspout::test]
async fn errors_of_a_resolver_are_those_of_the_client() {
    let fake = Fake::default();
    let client = TcpClient::new().resolver(fake.clone());
    let error = client.connect("name", 80).await.unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::NotFound, "name has no address"));
    fake.fails.set(true);
    let error = client.connect("name", 80).await.unwrap_err();
    assert_eq!(error.to_string(), "no such name");
}

#[waterspout::test]
async fn addresses_of_the_wrong_family_are_not_tried() {
    let (_listener, address) = open(LOOPBACK);
    let fake = Fake::answering(&["[::1]:1"]);
    let client = TcpClient::new().resolver(fake.clone()).source("127.0.0.1:0".parse().unwrap());
    let error = client.connect("name", 80).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("name"), "{error}");
    fake.answer.borrow_mut().push(address);
    assert_eq!(client.connect("name", 80).await.unwrap().peer_addr().unwrap(), address);
}
