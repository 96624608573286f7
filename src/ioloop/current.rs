//! Which loop a thread has, and who keeps a loop open.
//!
//! The first loop that is made on a thread becomes its current one, as in Tornado 4.5, so that a
//! program with one loop never has two. A loop that runs is current meanwhile. A closed loop is
//! nobody's: the thread is without one then.
//!
//! A loop stays open as long as somebody *owns* it: whoever made it, or was given a clone of such a
//! handle; or the thread, for a loop that [`IoLoop::current`] made or [`IoLoop::make_current`] was
//! called for. A handle from `IoLoop::current` is a *guest*: it is what coroutines hold, often in a
//! temporary across an `.await`, and the loop owns the coroutines. If such handles counted, a loop with
//! a coroutine that has one would never be closed.

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

/// Ends the thread's current loop with the thread: closes it if [`IoLoop::current`] has made it.
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
    /// Has no destructor, so that destructors at the end of the thread find it, too.
    static CURRENT: ManuallyDrop<RefCell<Option<IoLoop>>> =
        const { ManuallyDrop::new(RefCell::new(None)) };
    /// The loops of this thread. It has no destructor for the same reason, and no memory when it is
    /// empty.
    static LOOPS: ManuallyDrop<RefCell<Loops>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
    static AT_END: AtEnd = const { AtEnd };
}

/// Asks this thread's current loop, if there is one. `ask` runs no foreign code and does not change
/// which loop is current.
pub(crate) fn with_current<R>(ask: impl FnOnce(&Core) -> R) -> Option<R> {
    // Compiled for each question anew, so it is short.
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

/// Wakes a slot by its word, on any thread.
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

/// Makes `io_loop` the thread's current one, with its exception handler, and returns the one before.
fn replace_current(io_loop: Option<IoLoop>) -> Option<IoLoop> {
    report::install(io_loop.as_ref().map(|io_loop| io_loop.core.on_exception.clone()));
    CURRENT.with(|current| current.replace(io_loop))
}

/// A thread that is ending gets no current loop any more: nobody would take it away again.
fn is_ending() -> bool {
    AT_END.try_with(|_| ()).is_err()
}

impl Drop for Core {
    /// A loop is gone, with its last handle.
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

/// Restores the loop that was current before, also on unwinding.
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

    /// A new loop, whose owner the caller is. It is the thread's current one if that has none.
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

    /// The loop of that name, if it is one of this thread: current or not, running or not.
    pub(crate) fn of(id: LoopId) -> Option<IoLoop> {
        IoLoop::find(|known| known == id)
    }

    /// The loop of that number, if it is one of this thread. (A number is one loop's at a time, and a
    /// loop has its own as long as there are handles of it.)
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
    /// It is never another thread's. A loop made here is closed with its thread. The handle does not
    /// keep the loop open: that is for whoever made it.
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
        // What is kept there is a guest; said so, nobody has to look.
        CURRENT.with(|current| current.borrow().as_ref().map(IoLoop::guest))
    }

    /// The loop that runs on this thread, if one does.
    pub(crate) fn running() -> Option<IoLoop> {
        IoLoop::try_current().filter(|io_loop| io_loop.core.life.state() == State::Running)
    }

    /// Makes this loop the thread's current one, until another is, and keeps it open until then.
    /// Tornado: `make_current`.
    ///
    /// Nothing happens on a closed loop, or while the thread ends.
    ///
    /// # Panics
    ///
    /// If another loop is running on this thread: everything in it counts on being current.
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

    /// Leaves the thread without a current loop. Nothing happens if it has none. Tornado:
    /// `clear_current`.
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

    /// The handle of the process's loop, the same for every thread. Tornado: `IOLoop.instance()`.
    ///
    /// The first thread to ask lends its current loop; however many race, one wins. When that loop
    /// is closed, the next thread to ask lends its own.
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
    /// An owner goes, or the last handle.
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

    /// Closes the loop if nobody owns it any more. One that runs is closed when it has stopped.
    pub(super) fn close_if_unowned(&self) {
        let life = &self.core.life;
        if life.is_abandoned() && life.state() == State::Open {
            self.close();
        }
    }
}
