//! `channels RUNTIME room_N`: three threads send to a fourth, each on a loop of its own, through a channel with
//! room for N items. Prints what an item takes: `wall_ns`, and `cpu_ns` of all four threads.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use peers::rt::{Runtime, smol_rt, tokio_rt, waterspout_rt};
use peers::sync::Channel;
use peers::util::cpu_time;

const SENDERS: u64 = 3;
/// How many items each sends in a batch.
const EACH: u64 = 100_000;
const BATCHES: usize = 7;

/// The time from the first item to the last, and the CPU time.
fn batch<R: Runtime>(room: usize) -> (Duration, Duration)
where
    <R::Channel as Channel>::Tx: Clone,
{
    let (tx, rx) = R::Channel::new(room);
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let tx = tx.clone();
            std::thread::spawn(move || {
                R::block_on(async move { R::spawn(R::Channel::put_all(tx, EACH)).await });
            })
        })
        .collect();
    drop(tx);
    let stamps = R::block_on(async move {
        let (taken, mut count) = (Rc::new(RefCell::new(Vec::new())), 0);
        let stamps = taken.clone();
        let each = move |_| {
            count += 1;
            if count == 1 || count == SENDERS * EACH {
                stamps.borrow_mut().push((Instant::now(), cpu_time()));
            }
        };
        R::spawn(R::Channel::get_all(rx, each)).await;
        taken.take()
    });
    for sender in senders {
        sender.join().unwrap();
    }
    (stamps[1].0 - stamps[0].0, stamps[1].1 - stamps[0].1)
}

fn run<R: Runtime>(room: usize)
where
    <R::Channel as Channel>::Tx: Clone,
{
    let took: Vec<_> = (0..BATCHES).map(|_| batch::<R>(room)).collect();
    let median = |of: fn(&(Duration, Duration)) -> Duration| {
        let mut all: Vec<_> = took.iter().map(of).collect();
        all.sort();
        all[BATCHES / 2].as_nanos() as f64 / (SENDERS * EACH - 1) as f64
    };
    println!("wall_ns={:.1} cpu_ns={:.1}", median(|took| took.0), median(|took| took.1));
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let room = args.get(1).and_then(|case| case.strip_prefix("room_")?.parse().ok());
    match (args.first(), room) {
        (Some(&"waterspout"), Some(room)) => run::<waterspout_rt::Own>(room),
        (Some(&"tokio"), Some(room)) => run::<tokio_rt::LocalSet>(room),
        (Some(&"smol"), Some(room)) => run::<smol_rt::Smol>(room),
        _ => {
            eprintln!("usage: channels waterspout|tokio|smol room_64|room_1024");
            std::process::exit(2);
        }
    }
}
