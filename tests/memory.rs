//! Memory that comes back: what a burst has taken, and what is asked for again and again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use waterspout::coroutine::{self, TaskGroup, moment, sleep};
use waterspout::net::{TcpServer, TcpStream};
use waterspout::queues::{LifoQueue, Queue};
use waterspout::{Coroutine, IoLoop};

/// The system's allocator, with a count of the bytes that are in use.
struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

#[expect(unsafe_code, reason = "an allocator can be made in no other way")]
// SAFETY: everything is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as isize, SeqCst);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as isize, SeqCst);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: they share the count.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_use() -> isize {
    IN_USE.load(SeqCst)
}

#[test]
fn wakes_from_another_thread_do_not_pile_up_while_the_loop_is_busy() {
    let _alone = alone();
    let grown = IoLoop::new().unwrap().run_sync(async || {
        // Two, so that it is not enough to look at the last one.
        let wakers = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<Coroutine<()>> = (0..2)
            .map(|_| {
                let wakers = wakers.clone();
                coroutine::start(poll_fn(move |cx| {
                    wakers.lock().unwrap().push(cx.waker().clone());
                    Poll::Pending
                }))
            })
            .collect();
        let wakers = std::mem::take(&mut *wakers.lock().unwrap());
        let before = in_use();
        // While a callback takes long.
        let waking = thread::spawn(move || {
            for _ in 0..200_000 {
                wakers.iter().for_each(|waker| waker.wake_by_ref());
            }
        });
        waking.join().unwrap();
        let grown = in_use() - before;
        waiting.into_iter().for_each(|waiting| waiting.cancel());
        grown
    });
    let grown = grown.unwrap();
    assert!(grown < 1 << 20, "two coroutines were woken, which took {grown} bytes");
}

#[test]
fn asking_a_loop_to_stop_again_and_again_takes_no_memory() {
    let _alone = alone();
    let io_loop = IoLoop::new().unwrap();
    let before = in_use();
    (0..200_000).for_each(|_| io_loop.handle().stop().unwrap());
    let grown = in_use() - before;
    assert!(grown < 1 << 20, "{grown} bytes");
}

const MANY: usize = 100_000;

/// What a burst leaves behind in a loop where some wait all the time.
fn left_behind(burst: impl AsyncFnOnce(&IoLoop)) -> isize {
    let _alone = alone();
    let io_loop = IoLoop::builder().virtual_time().build().unwrap();
    io_loop
        .run_sync(async || {
            let stay: Vec<Coroutine<()>> = (0..10).map(|_| coroutine::start(pending())).collect();
            let sleep_on: Vec<_> =
                (0..10).map(|_| coroutine::start(sleep(Duration::from_secs(1 << 20)))).collect();
            moment().await;
            let before = in_use();
            burst(&io_loop).await;
            for _ in 0..3 {
                sleep(Duration::from_secs(1)).await;
            }
            let left = in_use() - before;
            stay.into_iter().chain(sleep_on).for_each(|waiting| waiting.cancel());
            left
        })
        .unwrap()
}

#[test]
fn a_burst_of_coroutines_timers_and_callbacks_leaves_no_memory_behind() {
    let coroutines = left_behind(async |_| {
        let sleeping: Vec<_> =
            (0..MANY).map(|_| coroutine::start(sleep(Duration::from_secs(1)))).collect();
        futures::future::join_all(sleeping).await;
    });
    let callbacks = left_behind(async |io_loop| {
        for _ in 0..MANY {
            io_loop.add_callback(|| ());
        }
        moment().await;
    });
    let timers = left_behind(async |io_loop| {
        for n in 0..MANY {
            io_loop.call_later(Duration::from_millis(n as u64), || ());
        }
        sleep(Duration::from_secs(MANY as u64)).await;
    });
    let removed = left_behind(async |io_loop| {
        let timers: Vec<_> =
            (0..MANY).map(|_| io_loop.call_later(Duration::from_secs(9), || ())).collect();
        assert!(timers.into_iter().all(|timer| io_loop.remove_timeout(timer)));
    });
    let posted = left_behind(async |io_loop| {
        let (handle, told) = (io_loop.handle(), Arc::new(AtomicBool::new(false)));
        let (barrier, tells) = (Arc::new(Barrier::new(2)), told.clone());
        let there = barrier.clone();
        let posting = thread::spawn(move || {
            there.wait();
            (0..MANY).for_each(|_| handle.add_callback(|| ()).unwrap());
            handle.add_callback(move || tells.store(true, SeqCst)).unwrap();
        });
        barrier.wait();
        posting.join().unwrap();
        while !told.load(SeqCst) {
            moment().await;
        }
    });
    let left = [coroutines, callbacks, timers, removed, posted];
    assert!(left.iter().all(|left| *left < 200_000), "{left:?} bytes");
}

const BUFFER: usize = 16 << 10;

/// Keeps a buffer while it waits, for ever.
async fn with_a_buffer() {
    let buffer = [1_u8; BUFFER];
    pending::<()>().await;
    std::hint::black_box(&buffer);
}

/// A future that is moved from one `async` block into another is kept twice, and its buffer with it.
#[test]
fn what_a_child_of_a_group_or_a_handler_of_a_server_keeps_is_kept_once() {
    let _alone = alone();
    let took = IoLoop::new().unwrap().run_sync(async || {
        let group = TaskGroup::<Infallible>::new();
        let before = in_use();
        group.start(async {
            with_a_buffer().await;
            Ok(())
        });
        let mut took = vec![in_use() - before];
        let servers = [
            TcpServer::bare(async |_stream, _peer| with_a_buffer().await),
            TcpServer::new(async |_stream, _peer| with_a_buffer().await),
            TcpServer::wrapping(
                Duration::from_secs(60),
                async |stream, _peer| Ok::<_, Infallible>(stream),
                async |_stream| with_a_buffer().await,
            ),
        ];
        for server in &servers {
            let port = server.listen_on("127.0.0.1", 0).unwrap();
            let mut clients = Vec::new();
            // The first one makes tables and buffers of the loop grow.
            for connections in 1..=2 {
                let before = in_use();
                clients.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
                while server.connections() < connections {
                    moment().await;
                }
                if connections == 2 {
                    took.push(in_use() - before);
                }
            }
        }
        took
    });
    let took = took.unwrap();
    assert!(took.iter().all(|took| (*took as usize) < BUFFER * 3 / 2), "{took:?} bytes");
}

#[test]
fn an_item_in_a_queue_takes_no_more_than_in_a_vector() {
    let _alone = alone();
    const MANY: isize = 100_000;
    let (fifo, lifo) = (Queue::new(0), LifoQueue::new(0));
    let grown = [0, 1].map(|which| {
        let before = in_use();
        for _ in 0..MANY {
            if which == 0 {
                fifo.put_nowait(1u8).unwrap()
            } else {
                lifo.put_nowait(1u8).unwrap()
            };
        }
        in_use() - before
    });
    // A vector that grows has room for as many again.
    assert!(grown.iter().all(|grown| (MANY..=2 * MANY).contains(grown)), "{grown:?} bytes");
}
