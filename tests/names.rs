//! What coroutines are called and where they are said to have been started: a line of whoever asked for
//! them, whatever of this crate or of the standard library stood in between.

mod common;

use std::future::pending;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;

use common::{LOOPBACK, seconds, until};
use waterspout::coroutine::{self, CancelToken, TaskGroup, moment, sleep};
use waterspout::iostream::IoStream;
use waterspout::net::{TcpServer, TcpStream};
use waterspout::process::Subprocess;
use waterspout::signal::{self, Signal};
use waterspout::{IoLoop, PeriodicCallback};

type Stream = IoStream<TcpStream>;

/// Runs `ask` in a coroutine; the coroutines that are there then and were not before have to be of this
/// file, and of names without what only a compiler reads.
async fn all_are_ours(what: &str, ask: impl AsyncFn()) {
    let io_loop = IoLoop::current();
    let before = io_loop.coroutines();
    ask().await;
    moment().await;
    let after = io_loop.coroutines();
    let new: Vec<_> = after.into_iter().filter(|info| !before.contains(info)).collect();
    assert!(!new.is_empty(), "{what}");
    for coroutine in new {
        let place = coroutine.started_at.file();
        assert!(place.ends_with("tests/names.rs"), "{what}: {coroutine}");
        assert!(!coroutine.name.contains("{{"), "{what}: {coroutine}");
    }
}

async fn forever() {
    pending().await
}

async fn serve(_: Stream, _: SocketAddr) {
    pending().await
}

#[waterspout::coroutine]
async fn session(_: Stream, _: SocketAddr) {
    pending().await
}

#[waterspout::test(timeout = 60.0)]
async fn whoever_starts_something_is_where_it_was_started() {
    all_are_ours("start", async || drop(coroutine::start(forever()))).await;
    all_are_ours("spawn", async || drop(coroutine::spawn(forever()))).await;
    all_are_ours("spawn_named", async || drop(coroutine::spawn_named("x", forever()))).await;
    all_are_ours("IoLoop::spawn", async || drop(IoLoop::current().spawn(forever()))).await;
    all_are_ours("spawn_callback", async || IoLoop::current().spawn_callback(forever)).await;
    all_are_ours("LoopHandle::spawn", async || {
        drop(IoLoop::current().handle().spawn(forever).unwrap());
        sleep(seconds(0)).await;
    })
    .await;

    let (promise, future) = waterspout::concurrent::promise::<()>();
    all_are_ours("add_done_callback", async || future.add_done_callback(|_| ())).await;
    all_are_ours("add_future", async || {
        IoLoop::current().add_future(future.clone(), |_| ());
    })
    .await;
    promise.set_result(());

    let group: TaskGroup = TaskGroup::new();
    all_are_ours("TaskGroup::start", async || {
        group.start(async {
            forever().await;
            Ok(())
        });
    })
    .await;

    let token = CancelToken::new();
    all_are_ours("CancelToken::run", async || {
        let token = token.clone();
        drop(coroutine::start(async move { token.run(forever()).await }));
    })
    .await;

    let beat = PeriodicCallback::new_async(seconds(1).div_f64(1e4), forever);
    all_are_ours("PeriodicCallback", async || {
        let live = IoLoop::current().counters().live;
        beat.start();
        until(|| IoLoop::current().counters().live > live).await;
    })
    .await;
    beat.stop();

    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = std::sync::Mutex::new(Some(receiver));
    all_are_ours("run_in_executor", async || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        drop(IoLoop::current().run_in_executor(move || receiver.recv().is_err()));
    })
    .await;
    drop(sender);
}

#[waterspout::test(timeout = 60.0)]
async fn so_is_whoever_asks_for_signals_children_and_closed_streams() {
    let (mut listens, mut sleeper) = (None, None);
    let io_loop = IoLoop::current();
    let before = io_loop.coroutines();
    listens.replace(signal::on(Signal::HANGUP, || ()).unwrap());
    let child = Subprocess::spawn(Command::new("sleep").arg("60")).unwrap();
    sleeper.replace(child.pid());
    child.set_exit_callback(|_| ());
    let (_there, stream) = std::os::unix::net::UnixStream::pair().unwrap();
    let stream = IoStream::new(waterspout::net::UnixStream::from_std(stream).unwrap());
    stream.set_close_callback(|| ());
    drop(stream.write(vec![0; 10_000_000]));
    moment().await;
    let new = io_loop.coroutines();
    assert_eq!(new.len(), before.len() + 4, "{new:?}");
    for coroutine in new {
        for place in [Some(coroutine.started_at), coroutine.waiting_at].into_iter().flatten() {
            assert!(place.file().ends_with("tests/names.rs"), "{coroutine}");
        }
    }
    assert!(Command::new("kill").arg(sleeper.unwrap().to_string()).status().unwrap().success());
}

#[waterspout::test(timeout = 60.0)]
async fn connections_are_named_by_their_handler_and_placed_where_the_server_was_made() {
    let path = |name: &str| format!("{}::{name}", module_path!());
    let io_loop = IoLoop::current();
    let line = line!() + 2;
    let servers =
        [TcpServer::new(serve), TcpServer::new(session), TcpServer::new(|_, _| pending::<()>())];
    let names = [
        path("serve"),
        path("session"),
        path("connections_are_named_by_their_handler_and_placed_where_the_server_was_made"),
    ];
    for (server, name) in servers.into_iter().zip(names) {
        let (listener, address) = common::open(LOOPBACK);
        server.add_sockets([listener]).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        until(|| server.connections() == 1).await;
        let live = io_loop.coroutines();
        let of_server = live.iter().filter(|info| info.started_at.line() == line);
        let of_server: Vec<_> = of_server.map(|info| info.name.to_string()).collect();
        assert!(of_server.contains(&name), "{name}: {live:?}");
        // The attribute's coroutine, within, has the line of its function.
        let inner = live.iter().filter(|info| info.name == path("session")).count();
        assert!(inner == 0 || inner == 2, "{live:?}");
        assert!(live.iter().all(|info| info.started_at.file().ends_with("tests/names.rs")));
    }
}

#[test]
fn a_failed_handler_says_its_name_and_the_place_of_its_server() {
    let told = Rc::new(std::cell::RefCell::new(Vec::new()));
    let tells = told.clone();
    let io_loop = IoLoop::builder()
        .on_exception(move |exception| tells.borrow_mut().push(exception.to_string()))
        .build()
        .unwrap();
    async fn fails(_: Stream, _: SocketAddr) -> Result<(), String> {
        Err("no luck".into())
    }
    let line = line!() + 2;
    let run = || async {
        let server = TcpServer::new(fails);
        let (listener, address) = common::open(LOOPBACK);
        server.add_sockets([listener]).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        until(|| server.accepted() == 1 && server.connections() == 0).await;
    };
    io_loop.run_sync_timeout(seconds(60), run).unwrap();
    let said = told.borrow().join("\n");
    let name = concat!(
        module_path!(),
        "::a_failed_handler_says_its_name_and_the_place_of_its_server::fails"
    );
    assert!(said.contains(&format!("`{name}` ({}:{line}:", file!())), "{said}");
}
