//! The one door for other threads.
//!
//! A loop's [`Inbox`] is the only thing that two threads share: a list behind a lock, two bits, and
//! mio's waker. What arrives is in order. The loop takes a part of it at the head of each turn, and each time that
//! it looks up: other threads may post faster than the loop can work, and its sockets, its timers and what it has
//! to do for itself must not wait until it has taken all of that.
//!
//! The two bits decide which thread has to wake the loop, by a write to its eventfd, which is a system call.
//! `PENDING` says that the list may hold something; `ASLEEP` says that the loop blocks, or is about to. A
//! thread that posts a message sets `PENDING` *after* it has put the message in the list, and writes to the
//! eventfd only if it found `ASLEEP` without `PENDING`. The loop sets `ASLEEP` before it blocks, and does
//! not block if it found `PENDING`. So a sleeping loop gets one write however many threads post at once, a
//! loop that is awake gets none, and no message can slip between the loop's last look and its sleep.
//!
//! To wake a slot twice has the same effect as to wake it once. So while the loop is busy and does not take
//! its messages, the list must grow only with the number of callbacks and of slots to wake, not with how
//! often each slot is woken: whenever there are twice as many wake-ups, repeated ones are thrown out. Callbacks cannot be
//! thrown out, and whoever posts them is not made to wait. But a thread that finds more than [`MANY`] messages in
//! the list lets other threads have the processor first, the loop's among them: if there are fewer processors
//! than threads, those that post would otherwise take most of the time, and the list would grow for that reason alone.
//!
//! A waker finds the inbox of its loop by the loop's number, in one registry for the process. A
//! [`LoopHandle`] has its inbox itself.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread::{self, ThreadId};

use super::callback::Posted;
use super::descriptors::Descriptors;
use crate::ground::error::LoopClosed;
use crate::ground::report;
use crate::ground::slots::Key;
use crate::ground::word::MAX_LOOPS;

/// What another thread asks of a loop.
pub(crate) enum Message {
    /// Put this slot on the run queue: its waker was woken on another thread.
    Wake(Key),
    /// Run a callback.
    Call(Posted),
    /// Forget a socket of the loop: it was dropped on another thread.
    ForgetSocket(Key),
    /// Remove a timer of the loop: the future that waits for it was dropped on another thread.
    ForgetTimer(Key),
    /// Stop, as in `IoLoop::stop`.
    Stop,
}

impl Message {
    fn is_repeatable(&self) -> bool {
        matches!(self, Message::Wake(_) | Message::Stop)
    }
}

const PENDING: u8 = 1;
const ASLEEP: u8 = 2;

/// The two bits `PENDING` and `ASLEEP`; see the module's text.
#[derive(Default)]
pub(crate) struct Doorbell {
    bits: AtomicU8,
}

impl Doorbell {
    /// To be called after a message was put in the list. Tells whether the caller has to wake the loop.
    #[inline]
    fn ring(&self) -> bool {
        // If it is set already, the loop clears it before it looks, and so sees the message.
        !self.is_pending() && self.bits.fetch_or(PENDING, SeqCst) == ASLEEP
    }

    /// Whether there may be something in the list.
    fn is_pending(&self) -> bool {
        self.bits.load(SeqCst) & PENDING != 0
    }

    /// To be called before the list is taken.
    fn answer(&self) {
        self.bits.fetch_and(!PENDING, SeqCst);
    }

    /// To be called before blocking. Tells whether the loop may sleep; if not, it counts as awake.
    fn fall_asleep(&self) -> bool {
        let asleep = self.bits.fetch_or(ASLEEP, SeqCst) & PENDING == 0;
        if !asleep {
            self.wake_up();
        }
        asleep
    }

    fn wake_up(&self) {
        self.bits.fetch_and(!ASLEEP, SeqCst);
    }
}

/// What has arrived, in order.
struct Arrived {
    messages: VecDeque<Message>,
    /// How many of the messages would say nothing new if they were there twice.
    repeatable: usize,
    /// When they are so many, repeated ones are thrown out.
    crowded: usize,
}

/// Of fewer messages, nobody looks for repeated ones.
const FEW: usize = 1024;
/// While there are more, a thread that posts a callback lets others have the processor first.
const MANY: usize = 4 * FEW;

impl Arrived {
    const fn new() -> Arrived {
        Arrived { messages: VecDeque::new(), repeatable: 0, crowded: FEW }
    }

    fn push(&mut self, message: Message) {
        self.repeatable += usize::from(message.is_repeatable());
        self.messages.push_back(message);
        if self.repeatable >= self.crowded {
            self.throw_out_repeated();
        }
    }

    /// Moves the first messages to `taken`, `most` of them; if only those `before_stop` are asked for, none from the
    /// first request to stop on.
    fn take(&mut self, taken: &mut Vec<Message>, most: usize, before_stop: bool) {
        let mut count = most.min(self.messages.len());
        if before_stop {
            let stop = self.messages.iter().take(count).position(|it| matches!(it, Message::Stop));
            count = stop.unwrap_or(count);
        }
        taken.extend(self.messages.drain(..count));
        self.repeatable -= taken.iter().filter(|message| message.is_repeatable()).count();
        if self.messages.is_empty() {
            self.crowded = FEW;
            if self.messages.capacity() > 2 * MANY {
                self.messages.shrink_to(MANY);
            }
        }
    }

    /// Of the wake-ups of one slot, keeps only the first; so also of requests to stop.
    #[cold]
    fn throw_out_repeated(&mut self) {
        let (mut woken, mut stops) = (HashSet::new(), false);
        self.messages.retain(|message| match message {
            Message::Wake(key) => woken.insert(*key),
            Message::Stop => !std::mem::replace(&mut stops, true),
            Message::Call(_) | Message::ForgetSocket(_) | Message::ForgetTimer(_) => true,
        });
        self.repeatable = woken.len() + usize::from(stops);
        self.crowded = FEW.max(2 * self.repeatable);
        self.messages.shrink_to(MANY.max(2 * self.messages.len()));
    }
}

pub(crate) struct Inbox {
    id: LoopId,
    /// The loop's own thread.
    home: ThreadId,
    /// `None` once the loop is closed.
    arrived: Mutex<Option<Arrived>>,
    doorbell: Doorbell,
    /// `None` once the loop is closed: a handle that is kept longer must not keep the eventfd open.
    waker: RwLock<Option<mio::Waker>>,
    /// How often the eventfd was written to.
    notified: AtomicU64,
    /// How many guards hold virtual time.
    holding: AtomicUsize,
    descriptors: Descriptors,
}

/// Names a loop for ever. It is two numbers in one: the loop's number, which another loop may have later,
/// and a serial number, which none ever has again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LoopId(u64);

/// How many bits of a [`LoopId`] are the number of the loop.
const NUMBER_BITS: u32 = 16;

impl LoopId {
    fn new(number: usize, serial: u64) -> LoopId {
        LoopId(serial << NUMBER_BITS | number as u64)
    }

    pub(crate) fn number(self) -> usize {
        (self.0 & ((1 << NUMBER_BITS) - 1)) as usize
    }
}

impl fmt::Display for LoopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoLoop #{}", self.0 >> NUMBER_BITS)
    }
}

/// All inboxes, by loop number; number 0 is never given out. A loop keeps its number until its last handle is
/// gone, even if it was closed before: code that compares loops by number must not take a new loop for the
/// old one.
struct Registry {
    inboxes: Vec<Option<Weak<Inbox>>>,
    serial: u64,
}

static REGISTRY: RwLock<Registry> = RwLock::new(Registry { inboxes: Vec::new(), serial: 0 });

impl Inbox {
    /// Gives a new loop its number and its inbox.
    ///
    /// # Errors
    ///
    /// If there are [`MAX_LOOPS`] loops already, counting closed ones of which there are still handles.
    pub(crate) fn register(
        waker: mio::Waker,
        descriptors: Descriptors,
    ) -> std::io::Result<Arc<Inbox>> {
        let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
        registry.serial += 1;
        if registry.inboxes.is_empty() {
            registry.inboxes.push(None);
        }
        let vacant = registry.inboxes.iter().skip(1).position(Option::is_none);
        let number = vacant.map_or(registry.inboxes.len(), |position| position + 1);
        if number > MAX_LOOPS {
            return Err(std::io::Error::other(format!(
                "there are {MAX_LOOPS} loops already, or handles of closed ones"
            )));
        }
        if vacant.is_none() {
            registry.inboxes.push(None);
        }
        let serial = registry.serial;
        let inbox = Arc::new(Inbox {
            id: LoopId::new(number, serial),
            home: thread::current().id(),
            arrived: Mutex::new(Some(Arrived::new())),
            doorbell: Doorbell::default(),
            waker: RwLock::new(Some(waker)),
            notified: AtomicU64::new(0),
            holding: AtomicUsize::new(0),
            descriptors,
        });
        registry.inboxes[number] = Some(Arc::downgrade(&inbox));
        Ok(inbox)
    }

    pub(crate) fn id(&self) -> LoopId {
        self.id
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    pub(crate) fn notified(&self) -> u64 {
        self.notified.load(SeqCst)
    }

    /// Puts `message` in the list, and wakes the loop if it sleeps.
    ///
    /// # Errors
    ///
    /// [`LoopClosed`] if the loop is closed; the message is dropped then.
    pub(crate) fn post(&self, message: Message) -> Result<(), LoopClosed> {
        self.put(message).map(drop)
    }

    /// [`post`](Inbox::post) that tells how many messages there are.
    #[inline]
    fn put(&self, message: Message) -> Result<usize, LoopClosed> {
        let count = match &mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(arrived) => {
                arrived.push(message);
                arrived.messages.len()
            }
            None => return Err(LoopClosed),
        };
        self.ring();
        Ok(count)
    }

    /// Has the loop look at its inbox: wakes it if it sleeps.
    fn ring(&self) {
        if self.doorbell.ring() {
            self.notified.fetch_add(1, SeqCst);
            // Writing to an eventfd does not fail, unless somebody else has closed it. If it does fail, the
            // loop takes the message at its next turn.
            let waker = self.waker.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(Err(error)) = waker.as_ref().map(mio::Waker::wake) {
                report::error(report::IOLOOP, format_args!("cannot wake {}: {error}", self.id));
            }
        }
    }

    /// Whether any guard holds virtual time.
    pub(crate) fn is_held(&self) -> bool {
        self.holding.load(SeqCst) > 0
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.doorbell.is_pending()
    }

    /// Moves what has arrived first to `taken`, which is empty, in order: `most` messages of it; if only those
    /// `before_stop` are asked for, none from the first request to stop on.
    pub(super) fn take(&self, taken: &mut Vec<Message>, most: usize, before_stop: bool) {
        self.doorbell.answer();
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(arrived) = &mut *arrived else { return };
        arrived.take(taken, most, before_stop);
        if !arrived.messages.is_empty() {
            // The loop is awake, or it would not take anything.
            self.doorbell.ring();
        }
    }

    pub(crate) fn fall_asleep(&self) -> bool {
        self.doorbell.fall_asleep()
    }

    pub(crate) fn wake_up(&self) {
        self.doorbell.wake_up();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Refuses all messages from now on, and returns those that the loop has not taken.
    pub(crate) fn close(&self) -> VecDeque<Message> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self.waker.write().unwrap_or_else(PoisonError::into_inner).take());
        self.descriptors.close();
        arrived.map(|arrived| arrived.messages).unwrap_or_default()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
        registry.inboxes[self.id.number()] = None;
    }
}

fn find(number: usize) -> Option<Arc<Inbox>> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    registry.inboxes.get(number)?.as_ref()?.upgrade()
}

/// Wakes slot `key` of loop `number` from any thread. Nothing happens if that loop is gone.
pub(crate) fn wake(number: usize, key: Key) {
    if let Some(inbox) = find(number) {
        let _ = inbox.post(Message::Wake(key));
    }
}

/// Whether loop `id` is closed, or gone.
pub(crate) fn is_closed(id: LoopId) -> bool {
    find(id.number()).is_none_or(|inbox| inbox.id != id || inbox.is_closed())
}

/// Posts `message` to loop `id`: something that belongs to it was dropped on another thread.
pub(crate) fn forget(id: LoopId, message: Message) {
    match find(id.number()) {
        Some(inbox) if inbox.id == id => drop(inbox.post(message)),
        _ => {}
    }
}

/// A socket of loop `id` is dropped on another thread: ends its registration, while its fd is still open, and
/// tells the loop to forget it.
pub(crate) fn forget_socket(id: LoopId, fd: RawFd, key: Key) {
    match find(id.number()) {
        Some(inbox) if inbox.id == id => {
            inbox.descriptors.release(fd, key);
            let _ = inbox.post(Message::ForgetSocket(key));
        }
        _ => {}
    }
}

/// What other threads may do with a loop: `Send`, `Sync`, and cheap to clone.
///
/// From [`IoLoop::handle`](crate::IoLoop::handle) or
/// [`IoLoop::instance`](crate::IoLoop::instance). It does not keep the loop open: once the loop
/// is closed, every method gives [`LoopClosed`]. If a method gave `Ok`, the loop runs the callback, or
/// drops it when it is closed.
///
/// ```
/// use waterspout::IoLoop;
///
/// let io_loop = IoLoop::new()?;
/// let handle = io_loop.handle();
/// let thread = std::thread::spawn(move || {
///     handle.add_callback(|| println!("on the loop's thread")).unwrap();
///     handle.stop().unwrap();
/// });
/// io_loop.start()?;
/// thread.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LoopHandle {
    inbox: Arc<Inbox>,
}

impl LoopHandle {
    pub(crate) fn new(inbox: Arc<Inbox>) -> LoopHandle {
        LoopHandle { inbox }
    }

    /// Queues `callback` on the loop. Callbacks of all handles of a loop run in the order of these calls.
    ///
    /// It wakes the loop if it sleeps, with one write to the loop's eventfd, however many threads call at
    /// once. May be called from any thread, the loop's own included. A panic of the callback is reported to
    /// [`Builder::on_exception`](crate::Builder::on_exception). Tornado: `IOLoop.add_callback`.
    ///
    /// It does not wait for the loop. So if callbacks are added faster than the loop runs them, what is queued
    /// grows: by the size of the closure and some 60 bytes each. Use a
    /// [`channel`](crate::concurrent::channel()) where that has to have a limit. (While more than 4,096 are
    /// queued, each call lets other threads have the processor first.) The loop's timers and sockets do not wait
    /// for what is queued.
    ///
    /// # Errors
    ///
    /// [`LoopClosed`] if the loop is closed; the callback is dropped on the calling thread then.
    #[track_caller]
    pub fn add_callback(&self, callback: impl FnOnce() + Send + 'static) -> Result<(), LoopClosed> {
        let count = self.inbox.put(Message::Call(Posted::new(Location::caller(), callback)))?;
        if count > MANY {
            self.give_way();
        }
        Ok(())
    }

    /// Lets other threads have the processor, unless this is the loop's own.
    #[cold]
    fn give_way(&self) {
        if thread::current().id() != self.inbox.home {
            thread::yield_now();
        }
    }

    /// Asks the loop to stop, as [`IoLoop::stop`](crate::IoLoop::stop) does. Callbacks that were added
    /// through handles before this call run first.
    ///
    /// # Errors
    ///
    /// [`LoopClosed`] if the loop is closed.
    pub fn stop(&self) -> Result<(), LoopClosed> {
        self.inbox.post(Message::Stop)
    }

    pub(crate) fn id(&self) -> LoopId {
        self.inbox.id
    }

    /// Whether the loop is closed. Once it is, it stays so.
    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Holds virtual time, as [`IoLoop::hold_time`](crate::IoLoop::hold_time) does.
    pub fn hold_time(&self) -> HeldTime {
        HeldTime::new(self.inbox.clone())
    }
}

/// Holds the virtual time of a loop until it is dropped, on whatever thread. From
/// [`IoLoop::hold_time`](crate::IoLoop::hold_time).
#[must_use = "time is held until this is dropped"]
pub struct HeldTime(Arc<Inbox>);

impl HeldTime {
    pub(super) fn new(inbox: Arc<Inbox>) -> HeldTime {
        inbox.holding.fetch_add(1, SeqCst);
        HeldTime(inbox)
    }
}

impl Drop for HeldTime {
    fn drop(&mut self) {
        // The last guard lets time go on; the loop may be asleep and has to notice.
        if self.0.holding.fetch_sub(1, SeqCst) == 1 {
            self.0.ring();
        }
    }
}

impl fmt::Debug for HeldTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldTime({})", self.0.id)
    }
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoopHandle({})", self.inbox.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> (mio::Poll, Arc<Inbox>) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let descriptors = Descriptors::new(poll.registry().try_clone().unwrap());
        (poll, Inbox::register(waker, descriptors).unwrap())
    }

    fn call() -> Message {
        Message::Call(Posted::new(Location::caller(), || ()))
    }

    fn taken(inbox: &Inbox, most: usize) -> Vec<Message> {
        let mut taken = Vec::new();
        inbox.take(&mut taken, most, false);
        taken
    }

    /// Posts and takes at random. To forget a timer stands for all messages that are never thrown out.
    #[test]
    fn whatever_is_posted_is_taken_once_and_in_order_and_the_doorbell_rings_while_there_is_more() {
        let (_poll, inbox) = inbox();
        let mut random = 1_u64;
        let mut below = |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % most
        };
        let (mut posted, mut expected, mut woken) = (0, 0, [false; 5]);
        for round in 0..400 {
            for _ in 0..below(if round % 10 == 0 { 3 * FEW as u64 } else { 60 }) {
                if below(2) == 0 {
                    posted += 1;
                    inbox.post(Message::ForgetTimer(Key::unpack(posted))).unwrap();
                } else {
                    let slot = below(5) as usize;
                    woken[slot] = true;
                    inbox.post(Message::Wake(Key::unpack(slot))).unwrap();
                }
            }
            let is_last = round == 399;
            let most = if is_last { usize::MAX } else { below(80) as usize };
            let messages = taken(&inbox, most);
            assert!(messages.len() <= most);
            for message in messages {
                match message {
                    Message::ForgetTimer(key) => {
                        expected += 1;
                        assert!(key == Key::unpack(expected), "in order, and none is missing");
                    }
                    Message::Wake(key) => woken[key.pack()] = false,
                    _ => unreachable!("none is posted"),
                }
            }
            let has_more = !inbox.arrived.lock().unwrap().as_ref().unwrap().messages.is_empty();
            assert_eq!(inbox.is_pending(), has_more);
        }
        assert_eq!((expected, woken), (posted, [false; 5]));
    }

    #[test]
    fn a_request_to_stop_may_stay_with_all_that_comes_after_it() {
        let (_poll, inbox) = inbox();
        for message in [call(), Message::Stop, call()] {
            inbox.post(message).unwrap();
        }
        for expected in [1, 0] {
            let mut messages = Vec::new();
            inbox.take(&mut messages, 9, true);
            assert!(messages.len() == expected && inbox.is_pending());
        }
        assert!(matches!(taken(&inbox, 9)[..], [Message::Stop, Message::Call(_)]));
        assert!(!inbox.is_pending());
        inbox.close();
    }

    #[test]
    fn what_was_dropped_is_told_to_its_own_loop_and_not_to_one_with_the_same_number() {
        let (_poll, inbox) = inbox();
        let id = inbox.id();
        let other = LoopId(id.0 + (1 << NUMBER_BITS));
        forget(other, Message::Stop);
        forget_socket(other, -1, Key::NONE);
        assert!(!inbox.is_pending() && taken(&inbox, 1).is_empty());
        forget(id, Message::Stop);
        assert!(inbox.is_pending() && matches!(taken(&inbox, 1)[..], [Message::Stop]));
        forget_socket(id, -1, Key::NONE);
        assert!(matches!(taken(&inbox, 1)[..], [Message::ForgetSocket(Key::NONE)]));
        inbox.close();
    }

    #[test]
    fn wake_ups_that_are_repeated_do_not_pile_up_and_calls_are_kept_in_order() {
        let mut arrived = Arrived::new();
        let key = |n| Key::unpack(n as usize % 100);
        let mut most = 0;
        for n in 0..200_000 {
            arrived.push(Message::Wake(key(n)));
            if n % 3 == 0 {
                arrived.push(Message::Stop);
            }
            most = most.max(arrived.messages.capacity());
        }
        assert!(most <= 2 * FEW, "{most}");
        for _ in 0..10_000 {
            arrived.push(call());
            arrived.push(Message::Wake(key(7)));
        }
        let calls =
            arrived.messages.iter().filter(|message| matches!(message, Message::Call(_))).count();
        assert_eq!(calls, 10_000);
        arrived.throw_out_repeated();
        let woken: Vec<_> = arrived.messages.iter().take(103).collect();
        let keys: Vec<_> = woken
            .iter()
            .filter_map(|message| if let Message::Wake(key) = message { Some(*key) } else { None })
            .collect();
        assert_eq!(keys, (0..100).map(key).collect::<Vec<_>>());
        assert_eq!(arrived.messages.len(), 10_101);
    }
}
