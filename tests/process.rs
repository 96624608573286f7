//! `Subprocess`: children, their pipes and their end.

mod child;
mod common;

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use common::{turns, until};
use futures::future::join_all;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use rustix::io::retry_on_intr;
use rustix::process::{
    self, Pid, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid,
};
use waterspout::IoLoop;
use waterspout::coroutine::{now, sleep, spawn, start, with_timeout};
use waterspout::net::pipe::PipeReader;
use waterspout::process::Subprocess;
use waterspout::signal::Signal;
use waterspout::testing::ExpectLog;

/// A shell that runs `script`.
fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Ends when its standard input does.
fn cat() -> Command {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command
}

/// What the system says of a process: `R`unning, `S`leeping, s`T`opped, `Z`ombie; `None` if there is
/// none.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

fn pid(child: &Subprocess) -> Pid {
    Pid::from_raw(child.pid() as i32).unwrap()
}

/// Waits until a child is in a state that the system tells its parent of, and leaves it so. The loop
/// waits meanwhile.
fn wait_until(pid: u32, state: WaitIdOptions) {
    let child = Pid::from_raw(pid as i32).unwrap();
    let waited = retry_on_intr(|| waitid(WaitId::Pid(child), state | WaitIdOptions::NOWAIT));
    assert!(waited.unwrap().is_some());
}

/// Waits until a child has ended, and leaves the zombie to who reaps it.
fn wait_until_ended(pid: u32) {
    wait_until(pid, WaitIdOptions::EXITED);
}

// ---------------------------------------------------------------------------------------------
// Pipes

#[waterspout::test(timeout = 30)]
async fn what_is_written_to_a_child_comes_back() {
    let mut child = Subprocess::spawn_piped(&mut Command::new("cat")).unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for word in ["hello", "again"] {
        AsyncWriteExt::write_all(&mut stdin, word.as_bytes()).await.unwrap();
        let mut answer = [0; 5];
        AsyncReadExt::read_exact(&mut stdout, &mut answer).await.unwrap();
        assert_eq!(&answer, word.as_bytes());
    }
    drop(stdin);
    assert_eq!(stdout.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    assert!(child.wait_for_exit().await.unwrap().success());
}

#[waterspout::test(timeout = 30)]
async fn standard_output_and_error_are_apart() {
    let mut child = Subprocess::spawn_piped(&mut sh("echo out; echo err >&2; exit 3")).unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((&*out, &*err), ("out\n", "err\n"));
    assert_eq!(child.wait_for_exit().await.unwrap().code(), Some(3));
}

#[waterspout::test(timeout = 30)]
async fn only_what_was_asked_for_is_a_pipe() {
    let child = Subprocess::spawn(sh("exit").stdout(Stdio::piped())).unwrap();
    assert!(child.stdin.is_none() && child.stderr.is_none() && child.stdout.is_some());
}

#[waterspout::test(timeout = 30)]
async fn a_child_that_floods_its_pipe_waits_for_its_reader() {
    const LENGTH: usize = 5_000_000;
    let mut command = sh(&format!("head -c {LENGTH} /dev/zero"));
    let mut child = Subprocess::spawn(command.stdout(Stdio::piped())).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // It is not lost meanwhile: it has not ended, and the pipe is full.
    let early = with_timeout(Duration::from_millis(50), child.wait_for_exit()).await;
    assert!(early.is_err());
    let mut all = Vec::new();
    stdout.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), LENGTH);
    assert!(child.wait_for_exit().await.unwrap().success());
}

#[waterspout::test(timeout = 30)]
async fn waiting_for_the_end_ends_the_input_that_nobody_has_taken() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    assert!(child.wait_for_exit().await.unwrap().success());
}

// ---------------------------------------------------------------------------------------------
// All at once

/// Writes 300,000 bytes to its standard output and as many to its error, one after the other.
fn flood(first: &str, second: &str) -> Command {
    sh(&format!("head -c 300000 /dev/zero {first}; head -c 300000 /dev/zero {second}; exit 3"))
}

#[waterspout::test(timeout = 30)]
async fn output_reads_both_pipes_at_the_same_time_and_gives_the_status() {
    for (first, second) in [("", ">&2"), (">&2", "")] {
        let output = Subprocess::output(&mut flood(first, second)).await.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout == [0; 300_000] && output.stderr == [0; 300_000]);
    }
}

#[waterspout::test(timeout = 30)]
async fn output_ends_an_input_that_is_a_pipe_and_takes_no_other_from_the_command() {
    let output = Subprocess::output(Command::new("cat").stdin(Stdio::piped())).await.unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    let input = File::open("/proc/self/status").unwrap();
    let output = Subprocess::output(Command::new("cat").stdin(input)).await.unwrap();
    assert!(output.stdout.starts_with(b"Name:"));
}

#[waterspout::test(timeout = 30)]
async fn what_is_written_while_the_output_is_awaited_comes_back_whole() {
    let mut child = Subprocess::spawn_piped(&mut sh("tee /dev/stderr")).unwrap();
    let stdin = child.stdin.take().unwrap();
    let input: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let written = input.clone();
    let writes = start(async move { stdin.write_all(&written).await });
    let output = child.wait_with_output().await.unwrap();
    writes.await.unwrap();
    assert!(output.status.success() && output.stdout == input && output.stderr == input);
}

#[waterspout::test(timeout = 30)]
async fn a_pipe_that_was_taken_or_is_none_gives_no_output() {
    let mut child = Subprocess::spawn_piped(&mut sh("echo out; echo err >&2")).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.stdout, output.stderr), (vec![], b"err\n".to_vec()));
    let mut taken = String::new();
    stdout.read_to_string(&mut taken).await.unwrap();
    assert_eq!(taken, "out\n");
    let child = Subprocess::spawn(sh("exit 6").stdout(Stdio::null())).unwrap();
    assert_eq!(child.wait_with_output().await.unwrap().status.code(), Some(6));
}

#[waterspout::test(timeout = 30)]
async fn the_output_goes_on_after_the_end_of_the_child_if_others_have_its_pipe() {
    // The shell ends at once; its child keeps the pipes, and ends with its input.
    let mut child = Subprocess::spawn_piped(&mut sh("exec 3<&0; cat <&3 & exit 7")).unwrap();
    let (pid, stdin) = (child.pid(), child.stdin.take().unwrap());
    let output = start(child.wait_with_output());
    until(|| state(pid).is_none()).await;
    assert!(!output.done());
    stdin.write_all(b"late").await.unwrap();
    drop(stdin);
    let output = output.await.unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(7), b"late".to_vec()));
}

#[waterspout::test(timeout = 30)]
async fn status_runs_a_child_to_its_end() {
    assert_eq!(Subprocess::status(&mut sh("exit 9")).await.unwrap().code(), Some(9));
    assert!(Subprocess::status(&mut cat()).await.unwrap().success());
    // Nobody would read what this one writes.
    let status = Subprocess::status(flood("", ">&2").stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert!(!status.await.unwrap().success());
}

#[waterspout::test(timeout = 30)]
async fn children_of_output_and_status_run_from_the_call_on_and_errors_come_by_awaiting() {
    let mut child = Subprocess::spawn_piped(&mut Command::new("cat")).unwrap();
    let (stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let ends = Stdio::from(stdin.into_fd().unwrap());
    let status = Subprocess::status(sh("echo runs").stdout(ends));
    let mut line = [0; 5];
    AsyncReadExt::read_exact(&mut stdout, &mut line).await.unwrap();
    assert_eq!(&line, b"runs\n");
    assert!(status.await.unwrap().success());
    let missing = Subprocess::output(&mut Command::new("/no/such/program"));
    assert_eq!(missing.await.unwrap_err().kind(), ErrorKind::NotFound);
    let missing = Subprocess::status(&mut Command::new("/no/such/program"));
    assert_eq!(missing.await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[waterspout::test(timeout = 30)]
async fn a_child_whose_output_is_given_up_is_killed_if_it_is_to_be() {
    let child = Subprocess::spawn_piped(&mut Command::new("yes")).unwrap().kill_on_drop();
    let pid = child.pid();
    assert!(with_timeout(Duration::from_millis(20), child.wait_with_output()).await.is_err());
    until(|| state(pid).is_none()).await;
}

// ---------------------------------------------------------------------------------------------
// The end

#[waterspout::test(timeout = 30)]
async fn the_exit_status_is_told_as_often_as_it_is_asked_for() {
    for code in [0, 1, 255] {
        let mut child = Subprocess::spawn(&mut sh(&format!("exit {code}"))).unwrap();
        for _ in 0..2 {
            assert_eq!(child.wait_for_exit().await.unwrap().code(), Some(code));
        }
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(code));
    }
}

#[waterspout::test(timeout = 30)]
async fn a_child_that_ended_before_it_was_waited_for_is_no_other() {
    let mut child = Subprocess::spawn(&mut sh("exit 7")).unwrap();
    wait_until_ended(child.pid());
    assert_eq!(state(child.pid()), Some('Z'));
    assert_eq!(child.wait_for_exit().await.unwrap().code(), Some(7));
    assert_eq!(state(child.pid()), None);
}

#[waterspout::test(timeout = 30)]
async fn a_child_that_a_signal_ended_says_which() {
    for signal in [Signal::TERMINATE, Signal::USER1, Signal::USER2] {
        let mut child = Subprocess::spawn(&mut cat()).unwrap();
        child.send_signal(signal).unwrap();
        let status = child.wait_for_exit().await.unwrap();
        assert_eq!((status.code(), status.signal()), (None, Some(signal.number())));
    }
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait_for_exit().await.unwrap().signal(), Some(9));
    // It has ended, which is what was wanted.
    child.kill().unwrap();
    let error = child.send_signal(Signal::TERMINATE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[waterspout::test(timeout = 30)]
async fn killing_a_child_that_has_ended_unseen_is_no_error() {
    let mut child = Subprocess::spawn(&mut sh("exit 4")).unwrap();
    wait_until_ended(child.pid());
    assert_eq!(state(child.pid()), Some('Z'));
    child.kill().unwrap();
    assert_eq!(child.wait_for_exit().await.unwrap().code(), Some(4));
}

#[waterspout::test(timeout = 30)]
async fn a_stopped_child_has_not_ended() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    let stdin = child.stdin.take();
    kill_process(pid(&child), process::Signal::STOP).unwrap();
    wait_until(child.pid(), WaitIdOptions::STOPPED);
    assert_eq!(state(child.pid()), Some('T'));
    drop(stdin);
    let stopped = with_timeout(Duration::from_millis(50), child.wait_for_exit()).await;
    assert!(stopped.is_err());
    assert!(child.try_wait().unwrap().is_none());
    kill_process(pid(&child), process::Signal::CONT).unwrap();
    assert!(child.wait_for_exit().await.unwrap().success());
}

#[waterspout::test(timeout = 30)]
async fn a_child_that_somebody_else_has_reaped_is_an_error_and_no_hang() {
    for before in [true, false] {
        let mut child = Subprocess::spawn(&mut cat()).unwrap();
        let (stdin, pid) = (child.stdin.take(), pid(&child));
        let reap = move || waitpid(Some(pid), WaitOptions::empty()).unwrap();
        let waiting = async move {
            if !before {
                drop(stdin);
                assert!(reap().is_some());
                return (child.wait_for_exit().await, child);
            }
            let waiting = start(async move { (child.wait_for_exit().await, child) });
            turns(3).await;
            drop(stdin);
            assert!(reap().is_some());
            waiting.await
        };
        let (waited, mut child) = waiting.await;
        let echild = Some(rustix::io::Errno::CHILD.raw_os_error());
        assert_eq!(waited.unwrap_err().raw_os_error(), echild);
        for _ in 0..2 {
            assert_eq!(child.wait_for_exit().await.unwrap_err().raw_os_error(), echild);
            assert_eq!(child.try_wait().unwrap_err().raw_os_error(), echild);
        }
        // The number may be somebody else's by now.
        assert!(child.send_signal(Signal::TERMINATE).is_err());
        child.kill().unwrap();
    }
}

#[waterspout::test(timeout = 30)]
async fn a_wait_that_was_given_up_can_be_begun_again() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    let stdin = child.stdin.take();
    for _ in 0..3 {
        let waited = with_timeout(Duration::from_millis(1), child.wait_for_exit()).await;
        assert!(waited.is_err());
    }
    drop(stdin);
    assert!(child.wait_for_exit().await.unwrap().success());
}

#[waterspout::test(timeout = 30)]
async fn try_wait_does_not_wait() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    wait_until_ended(child.pid());
    assert_eq!(child.try_wait().unwrap(), Some(ExitStatus::from_raw(0)));
    assert_eq!(child.wait_for_exit().await.unwrap().code(), Some(0));
}

#[waterspout::test(timeout = 60)]
async fn a_hundred_children_at_once_end_each_with_its_status() {
    let mut children: Vec<_> =
        (0..100).map(|n| Subprocess::spawn(&mut sh(&format!("exit {n}"))).unwrap()).collect();
    let all = join_all(children.iter_mut().map(Subprocess::wait_for_exit)).await;
    let codes: Vec<_> = all.into_iter().map(|status| status.unwrap().code().unwrap()).collect();
    assert!(codes.into_iter().eq(0..100));
}

#[waterspout::test(timeout = 30)]
async fn an_exit_callback_is_called_once_with_the_status() {
    let told: Rc<RefCell<Vec<_>>> = Rc::default();
    for script in ["exit 5", "kill -TERM $$"] {
        let (child, tells) = (Subprocess::spawn(&mut sh(script)).unwrap(), told.clone());
        let pid = child.pid();
        child.set_exit_callback(move |status| {
            let status = status.unwrap();
            tells.borrow_mut().push((status.code(), status.signal()));
        });
        until(|| state(pid).is_none()).await;
    }
    turns(5).await;
    assert_eq!(*told.borrow(), [(Some(5), None), (None, Some(15))]);
}

#[waterspout::test(timeout = 30)]
async fn a_child_with_exit_callbacks_is_signalled_and_awaited_as_any_other() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    let (_stdin, told) = (child.stdin.take(), Rc::<RefCell<Vec<_>>>::default());
    for n in 0..3 {
        let tells = told.clone();
        child.set_exit_callback(move |status| {
            tells.borrow_mut().push((n, status.unwrap().signal()))
        });
    }
    turns(3).await;
    assert!(told.borrow().is_empty() && child.try_wait().unwrap().is_none());
    child.send_signal(Signal::TERMINATE).unwrap();
    assert_eq!(child.wait_for_exit().await.unwrap().signal(), Some(15));
    until(|| told.borrow().len() == 3).await;
    // One that comes when the status is known, too.
    let tells = told.clone();
    child.set_exit_callback(move |status| tells.borrow_mut().push((3, status.unwrap().signal())));
    until(|| told.borrow().len() == 4).await;
    let mut told = told.take();
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2, 3].map(|n| (n, Some(15))));
}

#[waterspout::test(timeout = 30)]
async fn a_status_that_somebody_asks_for_is_not_kept_from_those_who_wait() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    let (stdin, told) = (child.stdin.take(), Rc::new(Cell::new(None)));
    let tells = told.clone();
    child.set_exit_callback(move |status| tells.set(status.unwrap().code()));
    turns(3).await;
    drop(stdin);
    wait_until_ended(child.pid());
    assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(0));
    until(|| told.get().is_some()).await;
    assert_eq!(told.get(), Some(0));
}

#[waterspout::test(timeout = 30)]
async fn an_exit_callback_is_called_after_its_handle_was_dropped_also_by_being_killed() {
    let told = Rc::<RefCell<Vec<_>>>::default();
    let set = |child: &Subprocess| {
        let tells = told.clone();
        child.set_exit_callback(move |status| tells.borrow_mut().push(status.unwrap().signal()));
    };
    let mut left = Subprocess::spawn(&mut cat()).unwrap();
    let stdin = left.stdin.take();
    set(&left);
    drop(left);
    turns(5).await;
    assert!(told.borrow().is_empty());
    drop(stdin);
    until(|| told.borrow().len() == 1).await;
    let mut killed = Subprocess::spawn(&mut cat()).unwrap().kill_on_drop();
    let _stdin = killed.stdin.take();
    set(&killed);
    drop(killed);
    until(|| told.borrow().len() == 2).await;
    assert_eq!(*told.borrow(), [None, Some(9)]);
}

#[waterspout::test(timeout = 30)]
async fn an_exit_callback_may_set_another_drop_the_handle_and_panic() {
    let child = Rc::new(RefCell::new(Some(Subprocess::spawn(&mut sh("exit")).unwrap())));
    let told = Rc::new(Cell::new(0));
    let (inner, tells) = (child.clone(), told.clone());
    let callback = move |_| {
        let child = inner.take().unwrap();
        child.set_exit_callback(move |status| {
            assert!(status.unwrap().success());
            tells.set(tells.get() + 1);
        });
        drop(child);
        panic!("an exit callback");
    };
    let expected = ExpectLog::new("waterspout", "exception in coroutine");
    child.borrow().as_ref().unwrap().set_exit_callback(callback);
    until(|| told.get() == 1).await;
    assert_eq!(expected.count(), 1);
}

#[test]
fn an_exit_callback_is_called_by_the_current_loop_if_the_childs_has_gone() {
    let spawn = || {
        let io_loop = IoLoop::new().unwrap();
        let mut child =
            io_loop.run_sync(|| async { Subprocess::spawn(&mut cat()) }).unwrap().unwrap();
        let stdin = io_loop.run_sync(|| async { child.stdin.take().unwrap().into_fd() }).unwrap();
        (child, stdin.unwrap())
    };
    let (child, stdin) = spawn();
    let told = Rc::new(Cell::new(None));
    let tells = told.clone();
    let io_loop = IoLoop::new().unwrap();
    let run = || async move {
        child.set_exit_callback(move |status| tells.set(status.unwrap().code()));
        drop(stdin);
        until(|| told.get().is_some()).await;
        told.get()
    };
    assert_eq!(io_loop.run_sync(run).unwrap(), Some(0));
    // Or is another thread's.
    let (child, stdin) = spawn();
    let elsewhere = thread::spawn(move || {
        let told = Rc::new(Cell::new(None));
        let tells = told.clone();
        let run = || async move {
            child.set_exit_callback(move |status| tells.set(status.unwrap().code()));
            drop(stdin);
            until(|| told.get().is_some()).await;
            told.get()
        };
        IoLoop::new().unwrap().run_sync(run).unwrap()
    });
    assert_eq!(elsewhere.join().unwrap(), Some(0));
}

#[test]
fn an_exit_callback_hears_of_it_if_there_is_no_way_to_be_told_of_the_end() {
    child::alone("an_exit_callback_hears_of_it_if_there_is_no_way_to_be_told_of_the_end", || {
        child::limit_open_files(64);
        let io_loop = IoLoop::new().unwrap();
        let ran = io_loop.run_sync(|| async {
            let mut child = Subprocess::spawn(&mut cat()).unwrap();
            let (stdin, told) = (child.stdin.take(), Rc::new(Cell::new(None)));
            let tells = told.clone();
            let mut files: Vec<File> = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                files.push(file);
            }
            let callback =
                move |status: io::Result<_>| tells.set(status.unwrap_err().raw_os_error());
            child.set_exit_callback(callback);
            until(|| told.get().is_some()).await;
            assert_eq!(told.get(), Some(rustix::io::Errno::MFILE.raw_os_error()));
            drop(stdin);
            assert!(child.wait_for_exit().await.unwrap().success());
        });
        ran.unwrap();
    });
}

#[waterspout::test(timeout = 30)]
async fn an_exit_callback_is_never_called_inside_set_exit_callback() {
    let child = Subprocess::spawn(&mut sh("exit 3")).unwrap();
    wait_until_ended(child.pid());
    let told = Rc::new(Cell::new(None));
    let tells = told.clone();
    child.set_exit_callback(move |status| tells.set(status.unwrap().code()));
    assert_eq!(told.get(), None);
    until(|| told.get().is_some()).await;
    assert_eq!(told.get(), Some(3));
}

#[test]
fn an_exit_callback_belongs_to_the_childs_own_loop() {
    for ends_before in [true, false] {
        let (io_loop, other) = (IoLoop::new().unwrap(), IoLoop::new().unwrap());
        let mut child =
            io_loop.run_sync(|| async { Subprocess::spawn(&mut cat()) }).unwrap().unwrap();
        let (stdin, told) = (child.stdin.take(), Rc::new(Cell::new(None)));
        if ends_before {
            io_loop.run_sync(|| async { drop(stdin) }).unwrap();
            wait_until_ended(child.pid());
            other.make_current();
            let tells = told.clone();
            child.set_exit_callback(move |status| tells.set(Some(status.unwrap().success())));
        } else {
            let tells = told.clone();
            let set = || async {
                child.set_exit_callback(move |s| tells.set(Some(s.unwrap().success())))
            };
            other.run_sync(set).unwrap();
            io_loop.run_sync(|| async { drop(stdin) }).unwrap();
        }
        other.run_sync(|| turns(5)).unwrap();
        assert_eq!(told.get(), None, "not by a loop that it does not belong to");
        io_loop.run_sync(|| until(|| told.get().is_some())).unwrap();
        assert_eq!(told.get(), Some(true));
        IoLoop::clear_current();
    }
}

#[test]
fn a_child_runs_also_where_the_system_reaps_it() {
    child::alone("a_child_runs_also_where_the_system_reaps_it", || {
        // As a program inherits it from one that ignores `SIGCHLD`.
        const IGNORED: &str = "SIGCHLD_IS_IGNORED";
        if std::env::var_os(IGNORED).is_none() {
            let mut again = Command::new("env");
            again.arg("--ignore-signal=CHLD").args(std::env::args()).env(IGNORED, "");
            panic!("{}", again.exec());
        }
        let io_loop = IoLoop::new().unwrap();
        let run = || async {
            let echild = Some(rustix::io::Errno::CHILD.raw_os_error());
            for n in 0..200 {
                let mut child = Subprocess::spawn_piped(&mut sh("echo out"))
                    .unwrap_or_else(|error| panic!("number {n} has run: {error}"));
                let mut output = String::new();
                child.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
                assert_eq!(output, "out\n");
                assert_eq!(child.wait_for_exit().await.unwrap_err().raw_os_error(), echild);
                assert_eq!(child.try_wait().unwrap_err().raw_os_error(), echild);
                assert!(child.send_signal(Signal::TERMINATE).is_err());
                child.kill().unwrap();
            }
            // One that is dropped and one that is killed leave nothing behind.
            drop(Subprocess::spawn(&mut cat()).unwrap());
            drop(Subprocess::spawn(&mut cat()).unwrap().kill_on_drop());
            turns(5).await;
        };
        io_loop.run_sync(run).unwrap();
    });
}

#[waterspout::test(timeout = 30)]
async fn a_handle_that_is_dropped_closes_the_pipes_that_nobody_has_taken() {
    let child = Subprocess::spawn(&mut cat()).unwrap();
    let ended = Rc::new(Cell::new(false));
    let ends = ended.clone();
    child.set_exit_callback(move |status| ends.set(status.unwrap().success()));
    drop(child);
    until(|| ended.get()).await;
}

// ---------------------------------------------------------------------------------------------
// Virtual time

const HOUR: Duration = Duration::from_secs(3600);

#[waterspout::test(virtual_time)]
async fn virtual_time_does_not_jump_past_a_child_that_is_awaited() {
    let begun = now();
    let mut child = Subprocess::spawn(&mut sh("sleep 0.05")).unwrap();
    assert!(with_timeout(HOUR, child.wait_for_exit()).await.unwrap().unwrap().success());
    // By the pipes alone, however they are read and written.
    let mut child =
        Subprocess::spawn_piped(&mut sh("sleep 0.05; head -c 100000; sleep 0.05")).unwrap();
    let (stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writing = start(async move { stdin.write_all(&[7; 100_000]).await });
    let mut byte = [0];
    assert_eq!(with_timeout(HOUR, PipeReader::read(&stdout, &mut byte)).await.unwrap().unwrap(), 1);
    assert_eq!(byte, [7]);
    with_timeout(HOUR, writing).await.unwrap().unwrap();
    let mut all = Vec::new();
    with_timeout(HOUR, stdout.read_to_end(&mut all)).await.unwrap().unwrap();
    assert_eq!(all.len(), 99_999);
    let output = Subprocess::output(&mut sh("sleep 0.05; echo out"));
    assert_eq!(with_timeout(HOUR, output).await.unwrap().unwrap().stdout, b"out\n");
    let told = Rc::new(Cell::new(false));
    let tells = told.clone();
    Subprocess::spawn(&mut sh("sleep 0.05")).unwrap().set_exit_callback(move |_| tells.set(true));
    sleep(HOUR / 2).await;
    assert!(told.get());
    assert!(now() - begun < HOUR);
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_for_a_child_that_does_not_end_takes_real_time_and_comes() {
    let mut child = Subprocess::spawn_piped(&mut sh("exec sleep 1000")).unwrap().kill_on_drop();
    let (real, begun) = (Instant::now(), now());
    let limit = Duration::from_millis(30);
    assert!(with_timeout(limit, child.wait_for_exit()).await.is_err());
    assert!(with_timeout(limit, child.stdout.as_ref().unwrap().read(&mut [0])).await.is_err());
    assert!(real.elapsed() >= 2 * limit);
    assert_eq!(now() - begun, 2 * limit);
    // Also while another pipe is never quiet.
    let mut busy = Subprocess::spawn_piped(&mut Command::new("yes")).unwrap().kill_on_drop();
    let stdout = busy.stdout.take().unwrap();
    let reading = async { while stdout.read(&mut [0; 100]).await.unwrap() > 0 {} };
    assert!(with_timeout(limit, reading).await.is_err());
    // A child that nobody waits for does not hold the clock.
    sleep(HOUR).await;
    assert_eq!(now() - begun, 3 * limit + HOUR);
    drop(busy);
    drop(Subprocess::spawn(&mut cat()).unwrap().kill_on_drop());
    sleep(HOUR).await;
}

// ---------------------------------------------------------------------------------------------
// Dropping

#[waterspout::test(timeout = 30)]
async fn a_child_that_is_dropped_runs_on_and_leaves_no_zombie() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap();
    let (stdin, pid) = (child.stdin.take(), child.pid());
    drop(child);
    turns(5).await;
    assert!(matches!(state(pid), Some('R' | 'S' | 'D')));
    drop(stdin);
    until(|| state(pid).is_none()).await;
    // One that has ended already, too.
    let child = Subprocess::spawn(&mut sh("exit")).unwrap();
    let pid = child.pid();
    wait_until_ended(pid);
    drop(child);
    until(|| state(pid).is_none()).await;
}

#[waterspout::test(timeout = 30)]
async fn a_child_can_be_killed_by_dropping_it() {
    let mut child = Subprocess::spawn(&mut cat()).unwrap().kill_on_drop();
    let (_stdin, pid) = (child.stdin.take(), child.pid());
    // Also inside of something that is cancelled.
    let waiting = start(async move { child.wait_for_exit().await });
    turns(3).await;
    assert!(state(pid).is_some());
    waiting.cancel();
    until(|| state(pid).is_none()).await;
}

#[test]
fn a_killed_child_is_reaped_also_when_its_loop_has_gone() {
    child::alone("a_killed_child_is_reaped_also_when_its_loop_has_gone", || {
        let io_loop = IoLoop::new().unwrap();
        let spawn = || {
            let mut sleep = Command::new("sleep");
            Subprocess::spawn(sleep.arg("1000")).unwrap().kill_on_drop()
        };
        let (between, elsewhere, killed, closed) =
            io_loop.run_sync(|| async { (spawn(), spawn(), spawn(), spawn()) }).unwrap();
        let pids = [&between, &elsewhere, &killed, &closed].map(Subprocess::pid);
        // Dropped between two runs, on another thread, in a coroutine of a loop that is closed, after
        // that.
        drop(between);
        thread::spawn(move || drop(elsewhere)).join().unwrap();
        let mut killed = killed;
        killed.kill().unwrap();
        drop(io_loop.spawn(async move { killed.wait_for_exit().await }));
        drop(io_loop);
        drop(closed);
        while pids.iter().any(|pid| state(*pid).is_some()) {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn children_of_a_loop_that_was_closed_are_reaped_at_the_next_start_of_one() {
    child::alone("children_of_a_loop_that_was_closed_are_reaped_at_the_next_start_of_one", || {
        let io_loop = IoLoop::new().unwrap();
        // Left in a coroutine, to a callback, and dropped before the loop was closed.
        let left = io_loop.run_sync(|| async {
            let mut children: Vec<_> =
                (0..3).map(|_| Subprocess::spawn(&mut cat()).unwrap()).collect();
            let pids: Vec<_> = children.iter().map(Subprocess::pid).collect();
            let stdins: Vec<_> = children.iter_mut().map(|child| child.stdin.take()).collect();
            drop(children.pop());
            children.pop().unwrap().set_exit_callback(|_| panic!("the loop was closed"));
            let mut last = children.pop().unwrap();
            spawn(async move { last.wait_for_exit().await });
            turns(2).await;
            let stdins = stdins.into_iter().map(|stdin| stdin.unwrap().into_fd().unwrap());
            (pids, stdins.collect::<Vec<_>>())
        });
        let (pids, stdins) = left.unwrap();
        io_loop.close();
        assert!(pids.iter().all(|pid| matches!(state(*pid), Some('R' | 'S' | 'D'))));
        drop(stdins);
        pids.iter().copied().for_each(wait_until_ended);
        assert!(pids.iter().all(|pid| state(*pid) == Some('Z')));
        let io_loop = IoLoop::new().unwrap();
        let next = io_loop
            .run_sync(|| async { Subprocess::spawn(&mut sh("exit"))?.wait_for_exit().await });
        assert!(next.unwrap().unwrap().success());
        assert!(pids.iter().all(|pid| state(*pid).is_none()));
    });
}

#[test]
fn a_child_that_is_dropped_elsewhere_is_reaped_at_the_next_start_of_one() {
    child::alone("a_child_that_is_dropped_elsewhere_is_reaped_at_the_next_start_of_one", || {
        let io_loop = IoLoop::new().unwrap();
        let start = || {
            let mut child = Subprocess::spawn(&mut cat()).unwrap();
            let stdin = child.stdin.take().unwrap().into_fd().unwrap();
            (child, stdin)
        };
        let (here, there) = io_loop.run_sync(|| async { (start(), start()) }).unwrap();
        let pids = [here.0.pid(), there.0.pid()];
        // On a thread with another loop, and on one without any.
        let stdins = [(here, true), (there, false)].map(|((child, stdin), with_loop)| {
            let dropped = thread::spawn(move || {
                if with_loop {
                    let io_loop = IoLoop::new().unwrap();
                    io_loop.run_sync(|| async { drop(child) }).unwrap();
                    io_loop.run_sync(|| turns(3)).unwrap();
                } else {
                    drop(child);
                }
            });
            dropped.join().unwrap();
            stdin
        });
        drop(stdins);
        pids.iter().copied().for_each(wait_until_ended);
        assert!(pids.iter().all(|pid| state(*pid) == Some('Z')));
        let next = io_loop
            .run_sync(|| async { Subprocess::spawn(&mut sh("exit"))?.wait_for_exit().await });
        assert!(next.unwrap().unwrap().success());
        assert!(pids.iter().all(|pid| state(*pid).is_none()));
    });
}

// ---------------------------------------------------------------------------------------------
// What goes wrong

#[test]
fn a_program_that_cannot_be_started_is_an_error_and_leaves_nothing_open() {
    child::alone("a_program_that_cannot_be_started_is_an_error_and_leaves_nothing_open", || {
        let io_loop = IoLoop::new().unwrap();
        let ran = io_loop.run_sync(|| async {
            let sources = IoLoop::current().counters().sources;
            let before = child::open_files();
            for _ in 0..3 {
                let mut missing = Command::new("/no/such/program");
                let error = Subprocess::spawn_piped(&mut missing).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound);
                let error = Subprocess::spawn_piped(&mut Command::new("/")).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            }
            assert_eq!(child::open_files(), before);
            assert_eq!(IoLoop::current().counters().sources, sources);
        });
        ran.unwrap();
    });
}

#[test]
fn a_child_leaves_nothing_open() {
    child::alone("a_child_leaves_nothing_open", || {
        let io_loop = IoLoop::new().unwrap();
        let ran = io_loop.run_sync(|| async {
            let before = child::open_files();
            for _ in 0..10 {
                let mut child = Subprocess::spawn_piped(&mut Command::new("cat")).unwrap();
                drop(child.stdin.take());
                child.wait_for_exit().await.unwrap();
            }
            assert_eq!(child::open_files(), before);
        });
        ran.unwrap();
    });
}

#[test]
fn with_too_few_file_descriptors_no_child_is_left_behind() {
    child::alone("with_too_few_file_descriptors_no_child_is_left_behind", || {
        child::limit_open_files(64);
        let io_loop = IoLoop::new().unwrap();
        let ran = io_loop.run_sync(|| async {
            let (mut failed, mut started) = (0, 0);
            for free in 0..16 {
                let before = child::open_files();
                let mut files: Vec<File> = Vec::new();
                while let Ok(file) = File::open("/dev/null") {
                    files.push(file);
                }
                files.truncate(files.len() - free);
                let spawned = Subprocess::spawn_piped(&mut Command::new("cat"));
                drop(files);
                match spawned {
                    Ok(mut child) => {
                        child.wait_for_exit().await.unwrap();
                        started += 1;
                    }
                    Err(error) => {
                        let too_many = Some(rustix::io::Errno::MFILE.raw_os_error());
                        assert_eq!(error.raw_os_error(), too_many, "{error}");
                        failed += 1;
                    }
                }
                assert_eq!(child::open_files(), before, "with {free} free");
                let children = waitpid(None, WaitOptions::NOHANG);
                assert_eq!(children.unwrap_err(), rustix::io::Errno::CHILD, "with {free} free");
            }
            assert!(failed > 5 && started > 0, "{failed} failed, {started} were started");
        });
        ran.unwrap();
    });
}

#[waterspout::test(timeout = 30)]
async fn a_child_that_is_awaited_on_another_loop_is_an_error() {
    let child = Subprocess::spawn(&mut cat()).unwrap();
    let pid = child.pid();
    let elsewhere = thread::spawn(move || {
        let mut child = child;
        let stdin = child.stdin.take();
        let io_loop = IoLoop::new().unwrap();
        let waited = io_loop.run_sync(|| child.wait_for_exit()).unwrap();
        (waited, child, stdin)
    });
    let (waited, mut child, stdin) = elsewhere.join().unwrap();
    let error: io::Error = waited.unwrap_err();
    assert!(error.to_string().contains("belongs to"), "{error}");
    drop(stdin);
    assert!(child.wait_for_exit().await.unwrap().success());
    assert_eq!(state(pid), None);
}
