//! `task_memory RUNTIME N`: spawns N tasks, in hundreds, that are suspended for good, prints
//! `runtime n future_bytes heap_bytes own_bytes rss_bytes`, the last four a task: the size of the
//! future, what of the heap was asked for, the same without the future (what the runtime adds), and
//! by how much the process grew, which is what `malloc` makes of it.
//!
//! Tables that grow by doubling are counted as they stand with N tasks in them.

use std::cell::Cell;
use std::future::pending;
use std::hint::black_box;
use std::rc::Rc;

use peers::rt::{self, Runtime, Visitor};
use peers::util::{Counting, Notify, rss_kib};

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// How many of the tasks spawned last have not run, and who waits until all have.
    static LOT: (Cell<usize>, Rc<Notify>) = (Cell::new(0), Rc::default());
}

/// Not captured by the task, whose size this would change.
fn running() {
    LOT.with(|(left, all)| {
        left.set(left.get() - 1);
        if left.get() == 0 {
            all.notify();
        }
    });
}

/// A task with something of its own, which it keeps while it is suspended.
async fn task() {
    let own = black_box([1u8; 64]);
    running();
    pending::<()>().await;
    black_box(&own);
}

struct Measure<'a>(&'a str, usize);

impl Visitor for Measure<'_> {
    type Out = ();
    fn visit<R: Runtime>(self) {
        let (name, n) = (self.0.to_owned(), self.1);
        R::block_on(async move { R::spawn(measure::<R>(name, n)).await });
    }
}

async fn measure<R: Runtime>(name: String, n: usize) {
    // So that what is made once for all is there.
    spawn::<R>(1_000).await;
    let (heap, rss) = (Counting::in_use(), rss_kib(std::process::id()));
    spawn::<R>(n).await;
    let heap = (Counting::in_use() - heap) as f64 / n as f64;
    let rss = (rss_kib(std::process::id()) - rss) as f64 * 1024.0 / n as f64;
    let future = size_of_val(&task());
    println!("{name} {n} {future} {heap:.1} {:.1} {rss:.0}", heap - future as f64);
    // Ending so many tasks is nobody's measurement.
    std::process::exit(0);
}

/// Lets each hundred run before the next, so that the queue of those that have not stays small.
async fn spawn<R: Runtime>(n: usize) {
    let all = LOT.with(|lot| lot.1.clone());
    for _ in 0..n / 100 {
        LOT.with(|lot| lot.0.set(100));
        for _ in 0..100 {
            // Not dropped, which would end it in some runtimes; a place to keep it would be counted.
            std::mem::forget(R::spawn(task()));
        }
        all.wait().await;
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, n] = args.as_slice() else {
        eprintln!("usage: task_memory RUNTIME N; {:?}", rt::NAMES);
        std::process::exit(2);
    };
    rt::with(name, Measure(name, n.parse().expect("N"))).expect("unknown runtime");
}
