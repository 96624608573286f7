//! Which loop a thread has, and who keeps a loop open.
//!
//! The first loop that is made on a thread becomes its current one, as in Tornado 4.5, so that a
//! program with one loop never has two. A loop is current while it runs. When the current loop is closed, the
//! thread is without one.
//!
//! A loop stays open as long as somebody *owns* it. The handle that [`IoLoop::new`] or a builder gave is an
//! owner, and so are its clones. The thread is an owner, too, of a loop that [`IoLoop::current`] has made, or
//! that [`IoLoop::make_current`] was called for.
//!
//! A handle from `IoLoop::current` is a *guest*, and does not keep the loop open. Coroutines have such
//! handles, often in a temporary across an `.await`, and the loop owns the coroutines. If guests counted, a
//! loop with such a coroutine would never be closed.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::{Rc, Weak};
use std::sync::{Mutex, PoisonError};

use super::core::Core;
use super::inbox::{self, LoopHandle, LoopId};
use super::io_loop::IoLoop;
use super::life::State;
use crate::ground::word::unpack;
use crate::ground::{report, waker};

/// When the thread ends, this is dropped, and closes the thread's current loop if [`IoLoop::current`] has
/// made it.
struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(io_loop) = CURRENT.with(|current| current.take()) {
            if io_loop.core.life.is_of_thread() {
                io_loop.report_what_never_ran();
                io_loop.close();
            }
        }
    }
}

type Loops = Vec<(LoopId, Weak<Core>)>;

thread_local! {
    /// The current loop. It has no destructor, so that destructors which run at the end of the thread still
    /// find it; `AT_END` empties it.
    static CURRENT: ManuallyDrop<RefCell<Option<IoLoop>>> =
        const { ManuallyDrop::new(RefCell::new(None)) };
    /// All loops of this thread. It has no destructor for the same reason, and gives back its memory when it
    /// becomes empty.
    static LOOPS: ManuallyDrop<RefCell<Loops>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
    static AT_END: AtEnd = const { AtEnd };
}

/// Calls `ask` with this thread's current loop, if there is one. `ask` must not run foreign code, nor change
/// which loop is current, because the variable is borrowed meanwhile.
pub(crate) fn with_current<R>(ask: impl FnOnce(&Core) -> R) -> Option<R> {
    // This is compiled anew for each `ask`, so it is kept short.
    CURRENT.with(|current| Some(ask(&current.borrow().as_ref()?.core)))
}

/// [`with_current`] that makes a loop if the thread has none.
#[track_caller]
pub(crate) fn on_current<R>(ask: impl FnOnce(&Core) -> R) -> R {
    if CURRENT.with(|current| current.borrow().is_none()) {
        drop(IoLoop::current());
    }
    match with_current(ask) {
        Some(answer) => answer,
        None => unreachable!("IoLoop::current leaves its loop as the current one, or panics"),
    }
}

/// Wakes the slot of a word, on any thread.
fn wake(word: usize) {
    let is_here = with_current(|core| core.schedule_word(word));
    if is_here != Some(true) {
        wake_from_afar(word);
    }
}

#[cold]
fn wake_from_afar(word: usize) {
    let (number, key) = unpack(word);
    inbox::wake(number, key);
}

/// Makes `io_loop` the thread's current one, and its exception handler that of the thread. Returns the loop
/// that was current before.
fn replace_current(io_loop: Option<IoLoop>) -> Option<IoLoop> {
    report::install(io_loop.as_ref().map(|io_loop| io_loop.core.on_exception.clone()));
    CURRENT.with(|current| current.replace(io_loop))
}

/// Whether this thread is ending. Then it gets no current loop any more, since nobody would take that away
/// again.
fn is_ending() -> bool {
    AT_END.try_with(|_| ()).is_err()
}

impl Drop for Core {
    /// The last handle of the loop is gone.
    fn drop(&mut self) {
        LOOPS.with(|loops| {
            let mut loops = loops.borrow_mut();
            loops.retain(|(known, _)| *known != self.id());
            if loops.is_empty() {
                *loops = Vec::new();
            }
        });
    }
}

/// Dropping this makes the loop current that was so before, also on unwinding; unless that one was closed.
pub(super) struct Entered(Option<IoLoop>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take().filter(|io_loop| !io_loop.core.is_closed());
        drop(replace_current(before));
    }
}

impl IoLoop {
    pub(super) fn enter(&self) -> Entered {
        Entered(replace_current(Some(self.guest())))
    }

    /// A new loop. The handle owns it. It is the thread's current loop if the thread has none.
    pub(super) fn of_core(core: Core) -> IoLoop {
        waker::set_wake(wake);
        let io_loop = IoLoop { core: Rc::new(core), is_owner: true };
        io_loop.core.life.add_owner();
        let (id, core) = (io_loop.core.id(), Rc::downgrade(&io_loop.core));
        LOOPS.with(|loops| loops.borrow_mut().push((id, core)));
        if !is_ending() && with_current(|_| ()).is_none() {
            replace_current(Some(io_loop.guest()));
        }
        io_loop
    }

    /// A handle that does not keep the loop open.
    #[inline]
    pub(super) fn guest(&self) -> IoLoop {
        IoLoop { core: self.core.clone(), is_owner: false }
    }

    /// The loop `id`, if it is one of this thread, whether or not it is current or runs. The handle is a
    /// guest.
    pub(crate) fn of(id: LoopId) -> Option<IoLoop> {
        IoLoop::find(|known| known == id)
    }

    /// The loop of that number, if it is one of this thread. (No two loops have the same number at once, and
    /// a loop keeps its number as long as there are handles of it.) The handle is a guest.
    pub(crate) fn of_number(number: usize) -> Option<IoLoop> {
        IoLoop::find(|known| known.number() == number)
    }

    fn find(is_it: impl Fn(LoopId) -> bool) -> Option<IoLoop> {
        if let Some(current) = IoLoop::try_current().filter(|io_loop| is_it(io_loop.core.id())) {
            return Some(current);
        }
        let core = LOOPS.with(|loops| {
            let loops = loops.borrow();
            loops.iter().find(|(known, _)| is_it(*known)).map(|(_, core)| core.clone())
        });
        Some(IoLoop { core: core?.upgrade()?, is_owner: false })
    }

    /// This thread's current loop, made if there is none. Tornado: `IOLoop.current()`.
    ///
    /// It is never a loop of another thread. A loop that this has made is closed when its thread ends. The
    /// handle does not keep the loop open; only a handle from [`IoLoop::new`] or a builder does, and its
    /// clones.
    ///
    /// # Panics
    ///
    /// If a loop has to be made and the system refuses (too many open files), or if the thread is
    /// ending and its thread-locals are gone. [`try_current`](IoLoop::try_current) does not panic.
    #[inline]
    #[track_caller]
    pub fn current() -> IoLoop {
        match IoLoop::try_current() {
            Some(io_loop) => io_loop,
            None => IoLoop::of_thread(),
        }
    }

    #[cold]
    #[track_caller]
    fn of_thread() -> IoLoop {
        assert!(!is_ending(), "this thread is ending, it cannot have an IoLoop");
        let io_loop = match IoLoop::new() {
            Ok(io_loop) => io_loop,
            Err(error) => panic!("cannot make this thread's IoLoop: {error}"),
        };
        io_loop.core.life.belongs_to_thread();
        io_loop.guest()
    }

    /// This thread's current loop, if it has one. Tornado: `IOLoop.current(instance=False)`.
    #[inline]
    pub fn try_current() -> Option<IoLoop> {
        // What is kept there is a guest already. Making one anew saves the question that `clone` would ask.
        CURRENT.with(|current| current.borrow().as_ref().map(IoLoop::guest))
    }

    /// The loop that runs on this thread, if one does.
    pub(crate) fn running() -> Option<IoLoop> {
        IoLoop::try_current().filter(|io_loop| io_loop.core.life.state() == State::Running)
    }

    /// Makes this loop the thread's current one until another one becomes current, and keeps it open until
    /// then. Tornado: `make_current`.
    ///
    /// Nothing happens if this loop is closed, or while the thread ends.
    ///
    /// # Panics
    ///
    /// If another loop is running on this thread: everything that runs in it relies on it to be current.
    #[track_caller]
    pub fn make_current(&self) {
        if let Some(running) = IoLoop::running().filter(|running| running != self) {
            panic!("make_current: {running:?} is running, it stays current until it stops");
        }
        if is_ending() || self.core.is_closed() {
            return;
        }
        let before = replace_current(Some(self.guest()));
        if let Some(before) = &before {
            before.core.life.set_kept(false);
        }
        self.core.life.set_kept(true);
        drop(before);
    }

    /// Leaves the thread without a current loop. Nothing happens if it has none. If no handle owns
    /// the loop, it is closed when its last handle is dropped. Tornado: `clear_current`.
    ///
    /// # Panics
    ///
    /// If a loop is running on this thread.
    #[track_caller]
    pub fn clear_current() {
        if let Some(running) = IoLoop::running() {
            panic!("clear_current: {running:?} is running, it stays current until it stops");
        }
        if let Some(before) = replace_current(None) {
            before.core.life.set_kept(false);
        }
    }

    /// A handle of the loop that the whole process shares. Tornado: `IOLoop.instance()`.
    ///
    /// It is the current loop of the first thread that calls this. If several threads call at once, one of
    /// them is the first. When that loop is closed, the next thread that calls this has its current loop
    /// become the shared one.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`] does.
    #[track_caller]
    pub fn instance() -> LoopHandle {
        static INSTANCE: Mutex<Option<LoopHandle>> = Mutex::new(None);
        let mut instance = INSTANCE.lock().unwrap_or_else(PoisonError::into_inner);
        match &*instance {
            Some(handle) if !handle.is_closed() => handle.clone(),
            _ => instance.insert(IoLoop::current().handle()).clone(),
        }
    }
}

impl Clone for IoLoop {
    #[inline]
    fn clone(&self) -> IoLoop {
        if self.is_owner {
            self.core.life.add_owner();
        }
        IoLoop { core: self.core.clone(), is_owner: self.is_owner }
    }
}

impl Drop for IoLoop {
    #[inline]
    fn drop(&mut self) {
        if self.is_owner || Rc::strong_count(&self.core) == 1 {
            self.leave();
        }
    }
}

impl IoLoop {
    /// A handle is dropped that is an owner, or the last one.
    #[cold]
    fn leave(&self) {
        if self.is_owner {
            self.core.life.remove_owner();
        }
        if Rc::strong_count(&self.core) == 1 {
            self.core.life.set_kept(false);
        }
        self.close_if_unowned();
    }

    /// Closes the loop if nobody owns it any more. If it runs, it is closed when it has stopped.
    pub(super) fn close_if_unowned(&self) {
        let life = &self.core.life;
        if life.is_abandoned() && life.state() == State::Open {
            self.close();
        }
    }
}
