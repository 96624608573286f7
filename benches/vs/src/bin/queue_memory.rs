//! `queue_memory RUNTIME items_N`: puts N numbers of 8 bytes into a queue without a limit, and prints `bytes`, how
//! much of the heap was asked for an item.

use peers::util::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `n` items take that `put` puts.
fn print(n: u64, mut put: impl FnMut(u64)) {
    let before = Counting::in_use();
    (0..n).for_each(&mut put);
    println!("bytes={:.2}", (Counting::in_use() - before) as f64 / n as f64);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let n = args.get(1).and_then(|case| case.strip_prefix("items_")?.parse().ok());
    match (args.first(), n) {
        (Some(&"waterspout"), Some(n)) => {
            let queue = waterspout::queues::Queue::new(0);
            print(n, |i| queue.put_nowait(i).unwrap());
        }
        (Some(&"tokio"), Some(n)) => {
            let (tx, _rx) = tokio::sync::mpsc::unbounded_channel();
            print(n, |i| tx.send(i).unwrap());
        }
        (Some(&"smol"), Some(n)) => {
            let (tx, _rx) = async_channel::unbounded();
            print(n, |i| tx.try_send(i).unwrap());
        }
        _ => {
            eprintln!("usage: queue_memory waterspout|tokio|smol items_100000");
            std::process::exit(2);
        }
    }
}
