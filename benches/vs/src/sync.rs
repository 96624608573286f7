//! Locks and channels, as each runtime or its family has them.

use std::future::Future;

/// One holder at a time, within a loop.
pub trait Lock: 'static {
    /// Whether there is one.
    const HERE: bool = true;

    fn new() -> Self;

    /// Waits for the lock, which is released when the output is dropped.
    fn acquire(&self) -> impl Future<Output = impl Sized>;
}

/// A bounded channel of numbers.
pub trait Channel: 'static {
    /// Whether there is one.
    const HERE: bool = true;
    type Tx: 'static;
    type Rx: 'static;

    fn new(capacity: usize) -> (Self::Tx, Self::Rx);

    /// Puts 0 to `n` in one after the other, then closes.
    fn put_all(tx: Self::Tx, n: u64) -> impl Future<Output = ()> + 'static;

    /// Gets one after the other until it is closed.
    fn get_all(rx: Self::Rx, each: impl FnMut(u64) + 'static)
    -> impl Future<Output = ()> + 'static;
}

/// Neither a lock nor a channel.
pub struct Absent;

impl Lock for Absent {
    const HERE: bool = false;

    fn new() -> Absent {
        Absent
    }

    async fn acquire(&self) -> impl Sized {}
}

impl Channel for Absent {
    const HERE: bool = false;
    type Tx = ();
    type Rx = ();

    fn new(_: usize) -> ((), ()) {
        ((), ())
    }

    async fn put_all(_: (), _: u64) {}

    async fn get_all(_: (), _: impl FnMut(u64) + 'static) {}
}

// ---- waterspout ------------------------------------------------------------

impl Lock for waterspout::locks::Lock {
    fn new() -> Self {
        waterspout::locks::Lock::new(())
    }

    fn acquire(&self) -> impl Future<Output = impl Sized> {
        waterspout::locks::Lock::acquire(self)
    }
}

impl Channel for waterspout::queues::Queue<u64> {
    type Tx = Self;
    type Rx = Self;

    fn new(capacity: usize) -> (Self, Self) {
        let queue = waterspout::queues::Queue::new(capacity);
        (queue.clone(), queue)
    }

    async fn put_all(queue: Self, n: u64) {
        for i in 0..n {
            queue.put(i).await.unwrap();
        }
        queue.close();
    }

    async fn get_all(queue: Self, mut each: impl FnMut(u64) + 'static) {
        while let Ok(i) = queue.get().await {
            each(i);
        }
    }
}

/// `waterspout::concurrent::channel`.
pub struct Waterspout;

impl Channel for Waterspout {
    type Tx = waterspout::concurrent::Sender<u64>;
    type Rx = waterspout::concurrent::Receiver<u64>;

    fn new(capacity: usize) -> (Self::Tx, Self::Rx) {
        waterspout::concurrent::channel(capacity)
    }

    async fn put_all(tx: Self::Tx, n: u64) {
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    }

    async fn get_all(mut rx: Self::Rx, mut each: impl FnMut(u64) + 'static) {
        while let Some(i) = rx.recv().await {
            each(i);
        }
    }
}

// ---- tokio -----------------------------------------------------------------

impl Lock for tokio::sync::Mutex<()> {
    fn new() -> Self {
        tokio::sync::Mutex::new(())
    }

    fn acquire(&self) -> impl Future<Output = impl Sized> {
        self.lock()
    }
}

/// `tokio::sync::mpsc`.
pub struct Tokio;

impl Channel for Tokio {
    type Tx = tokio::sync::mpsc::Sender<u64>;
    type Rx = tokio::sync::mpsc::Receiver<u64>;

    fn new(capacity: usize) -> (Self::Tx, Self::Rx) {
        tokio::sync::mpsc::channel(capacity)
    }

    async fn put_all(tx: Self::Tx, n: u64) {
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    }

    async fn get_all(mut rx: Self::Rx, mut each: impl FnMut(u64) + 'static) {
        while let Some(i) = rx.recv().await {
            each(i);
        }
    }
}

// ---- smol ------------------------------------------------------------------

impl Lock for async_lock::Mutex<()> {
    fn new() -> Self {
        async_lock::Mutex::new(())
    }

    fn acquire(&self) -> impl Future<Output = impl Sized> {
        self.lock()
    }
}

/// `async_channel`.
pub struct Smol;

impl Channel for Smol {
    type Tx = async_channel::Sender<u64>;
    type Rx = async_channel::Receiver<u64>;

    fn new(capacity: usize) -> (Self::Tx, Self::Rx) {
        async_channel::bounded(capacity)
    }

    async fn put_all(tx: Self::Tx, n: u64) {
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    }

    async fn get_all(rx: Self::Rx, mut each: impl FnMut(u64) + 'static) {
        while let Ok(i) = rx.recv().await {
            each(i);
        }
    }
}

// ---- monoio ----------------------------------------------------------------

/// `local_sync::mpsc`, which stays on its thread.
pub struct Monoio;

impl Channel for Monoio {
    type Tx = local_sync::mpsc::bounded::Tx<u64>;
    type Rx = local_sync::mpsc::bounded::Rx<u64>;

    fn new(capacity: usize) -> (Self::Tx, Self::Rx) {
        local_sync::mpsc::bounded::channel(capacity)
    }

    async fn put_all(tx: Self::Tx, n: u64) {
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    }

    async fn get_all(mut rx: Self::Rx, mut each: impl FnMut(u64) + 'static) {
        while let Some(i) = rx.recv().await {
            each(i);
        }
    }
}

// ---- glommio ---------------------------------------------------------------

#[cfg(feature = "glommio")]
impl Lock for glommio::sync::Semaphore {
    fn new() -> Self {
        glommio::sync::Semaphore::new(1)
    }

    async fn acquire(&self) -> impl Sized {
        self.acquire_permit(1).await.unwrap()
    }
}

/// `glommio::channels::local_channel`.
#[cfg(feature = "glommio")]
pub struct GlommioLocal;

#[cfg(feature = "glommio")]
impl Channel for GlommioLocal {
    type Tx = glommio::channels::local_channel::LocalSender<u64>;
    type Rx = glommio::channels::local_channel::LocalReceiver<u64>;

    fn new(capacity: usize) -> (Self::Tx, Self::Rx) {
        glommio::channels::local_channel::new_bounded(capacity)
    }

    async fn put_all(tx: Self::Tx, n: u64) {
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    }

    async fn get_all(rx: Self::Rx, mut each: impl FnMut(u64) + 'static) {
        while let Some(i) = rx.recv().await {
            each(i);
        }
    }
}

/// `glommio::channels::shared_channel`.
#[cfg(feature = "glommio")]
pub struct GlommioShared;

#[cfg(feature = "glommio")]
impl Channel for GlommioShared {
    type Tx = glommio::channels::shared_channel::SharedSender<u64>;
    type Rx = glommio::channels::shared_channel::SharedReceiver<u64>;

    fn new(capacity: usize) -> (Self::Tx, Self::Rx) {
        glommio::channels::shared_channel::new_bounded(capacity)
    }

    async fn put_all(tx: Self::Tx, n: u64) {
        let tx = tx.connect().await;
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    }

    async fn get_all(rx: Self::Rx, mut each: impl FnMut(u64) + 'static) {
        let rx = rx.connect().await;
        while let Some(i) = rx.recv().await {
            each(i);
        }
    }
}
