//! `add_handler`, `update_handler`, `remove_handler`: level-triggered to the user, whatever the
//! selector does.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use common::{AtDrop, Diary, give_number, turns, virtual_loop};
use waterspout::coroutine::{sleep, with_timeout};
use waterspout::{Interest, IoLoop, net};

/// A loop in virtual time: when a sleep on it ends, nothing more is to be had from the selector.
/// And two connected sockets.
fn connected() -> (IoLoop, UnixStream, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    (virtual_loop(), here, there)
}

/// Runs until nothing is left to do.
fn settle(io_loop: &IoLoop) {
    io_loop.run_sync(|| sleep(Duration::from_secs(1))).unwrap();
}

fn read_some(mut socket: &UnixStream, at_most: usize) -> String {
    let mut bytes = vec![0; at_most];
    let n = socket.read(&mut bytes).unwrap();
    String::from_utf8(bytes[..n].to_vec()).unwrap()
}

#[test]
fn a_handler_that_reads_part_is_called_again() {
    let (io_loop, here, mut there) = connected();
    let diary = Diary::new();
    let note = diary.clone();
    io_loop
        .add_handler(here, Interest::READ, move |here, _| note.write(read_some(here, 2)))
        .unwrap();
    there.write_all(b"abcde").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["ab", "cd", "e"]);
    there.write_all(b"fg").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["fg"]);
}

#[test]
fn it_is_called_once_a_turn() {
    let (io_loop, here, mut there) = connected();
    let turns = Rc::new(RefCell::new(Vec::new()));
    let noted = turns.clone();
    io_loop
        .add_handler(here, Interest::READ, move |here, _| {
            read_some(here, 1);
            noted.borrow_mut().push(IoLoop::current().counters().turns);
        })
        .unwrap();
    there.write_all(&[b'x'; 10]).unwrap();
    settle(&io_loop);
    let turns = turns.borrow();
    assert_eq!(turns.len(), 10);
    assert!(turns.windows(2).all(|pair| pair[0] < pair[1]), "{turns:?}");
}

#[test]
fn what_is_there_before_the_handler_is_told() {
    let (io_loop, here, mut there) = connected();
    there.write_all(b"early").unwrap();
    let diary = Diary::new();
    let note = diary.clone();
    io_loop
        .add_handler(here, Interest::READ, move |here, _| note.write(read_some(here, 9)))
        .unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["early"]);
}

#[test]
fn a_listener_whose_handler_accepts_one_is_called_for_the_others() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let note = diary.clone();
    io_loop
        .add_handler(listener, Interest::READ, move |listener: &TcpListener, _| {
            listener.accept().unwrap();
            note.write("accepted");
        })
        .unwrap();
    let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    settle(&io_loop);
    assert_eq!(diary.read(), ["accepted"; 5]);
}

#[test]
fn a_read_handler_never_sees_write() {
    let (io_loop, here, mut there) = connected();
    let diary = Diary::new();
    let note = diary.clone();
    io_loop
        .add_handler(here, Interest::READ, move |here, told| {
            note.write(format!("{told:?} {}", read_some(here, 9)));
        })
        .unwrap();
    settle(&io_loop); // writable all the time
    assert!(diary.read().is_empty());
    there.write_all(b"x").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["READ x"]);
}

#[test]
fn a_write_handler_never_sees_read() {
    let (io_loop, here, mut there) = connected();
    there.write_all(b"x").unwrap();
    let told = Rc::new(RefCell::new(Vec::new()));
    let (inner, noted, fd) = (io_loop.clone(), told.clone(), here.as_raw_fd());
    io_loop
        .add_handler(here, Interest::WRITE, move |_, interest| {
            noted.borrow_mut().push(interest);
            if noted.borrow().len() == 3 {
                inner.remove_handler(&fd);
            }
        })
        .unwrap();
    settle(&io_loop);
    assert_eq!(*told.borrow(), [Interest::WRITE; 3]);
}

#[test]
fn a_handler_of_both_directions_is_told_which_of_them_is_ready() {
    let (io_loop, here, mut there) = connected();
    let (here, told) = (Rc::new(here), Rc::new(Cell::new(Interest::NONE)));
    let (inner, noted) = (io_loop.clone(), told.clone());
    io_loop
        .add_handler(here.clone(), Interest::READ | Interest::WRITE, move |_, interest| {
            noted.set(interest);
            inner.stop();
        })
        .unwrap();
    io_loop.start().unwrap();
    assert_eq!(told.get(), Interest::WRITE);
    while (&*here).write(&[0; 1 << 16]).is_ok() {}
    there.write_all(b"x").unwrap();
    io_loop.start().unwrap();
    assert_eq!(told.get(), Interest::READ);
    // It holds its loop.
    assert!(io_loop.remove_handler(&here));
}

#[test]
fn a_handler_gets_just_what_was_registered() {
    let (io_loop, here, mut there) = connected();
    let here = Rc::new(here);
    let (same, inner) = (here.clone(), io_loop.clone());
    io_loop
        .add_handler(here.clone(), Interest::READ, move |given: &Rc<UnixStream>, _| {
            assert!(Rc::ptr_eq(given, &same));
            inner.stop();
        })
        .unwrap();
    there.write_all(b"x").unwrap();
    io_loop.start().unwrap();
    assert_eq!(io_loop.counters().exceptions, 0);
    assert_eq!(Rc::strong_count(&here), 3);
    assert!(io_loop.remove_handler(&here));
    assert_eq!(Rc::strong_count(&here), 1);
}

#[test]
fn the_hang_up_of_the_other_side_is_told_whatever_was_asked_for() {
    for interest in [Interest::READ, Interest::WRITE, Interest::NONE] {
        let (io_loop, here, there) = connected();
        let told = Rc::new(Cell::new(Interest::NONE));
        let (inner, noted, fd) = (io_loop.clone(), told.clone(), here.as_raw_fd());
        io_loop
            .add_handler(here, interest, move |_, interest| {
                noted.set(noted.get() | interest);
                if interest.contains(Interest::ERROR) {
                    inner.remove_handler(&fd);
                }
            })
            .unwrap();
        drop(there);
        io_loop.run_sync(|| turns(200)).unwrap();
        assert!(told.get().contains(Interest::ERROR), "{interest:?}: {:?}", told.get());
        assert!((interest | Interest::ERROR).contains(told.get()));
        assert_eq!(io_loop.counters().sources, 0);
    }
}

#[test]
fn update_handler_fires_if_data_already_waits() {
    let (io_loop, here, mut there) = connected();
    let (diary, fd) = (Diary::new(), here.as_raw_fd());
    let note = diary.clone();
    io_loop
        .add_handler(here, Interest::NONE, move |here, told| {
            note.write(format!("{told:?} {}", read_some(here, 9)));
        })
        .unwrap();
    there.write_all(b"waiting").unwrap();
    settle(&io_loop);
    assert!(diary.read().is_empty());
    io_loop.update_handler(&fd, Interest::READ).unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["READ waiting"]);
}

#[test]
fn update_handler_replaces_what_was_asked_for() {
    let (io_loop, here, mut there) = connected();
    let (diary, fd) = (Diary::new(), here.as_raw_fd());
    let note = diary.clone();
    io_loop
        .add_handler(here, Interest::READ, move |_, told| {
            note.write(format!("{told:?}"));
            // From within the handler, with what it was called for still there.
            let next = if told == Interest::READ { Interest::WRITE } else { Interest::NONE };
            IoLoop::current().update_handler(&fd, next).unwrap();
        })
        .unwrap();
    there.write_all(b"x").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["READ", "WRITE"]);
}

/// Two sockets that are ready in one batch, and the other ends.
fn both_ready() -> (Vec<UnixStream>, Vec<UnixStream>) {
    let mut pairs: Vec<_> = (0..2).map(|_| UnixStream::pair().unwrap()).collect();
    pairs.iter_mut().for_each(|(_, there)| there.write_all(b"x").unwrap());
    pairs.into_iter().unzip()
}

#[test]
fn update_handler_takes_back_an_event_that_was_polled_already() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (heres, _theres) = both_ready();
    let fds: Vec<RawFd> = heres.iter().map(UnixStream::as_raw_fd).collect();
    for here in heres {
        let (note, fds) = (diary.clone(), fds.clone());
        io_loop
            .add_handler(here, Interest::READ, move |here, told| {
                note.write(format!("{told:?}"));
                read_some(here, 1);
                let other = fds.iter().find(|fd| **fd != here.as_raw_fd()).unwrap();
                IoLoop::current().update_handler(other, Interest::NONE).unwrap();
            })
            .unwrap();
    }
    settle(&io_loop);
    assert_eq!(diary.read(), ["READ"]);
}

#[test]
fn removing_is_idempotent() {
    let (io_loop, here, _there) = connected();
    let fd = here.as_raw_fd();
    assert!(!io_loop.remove_handler(&fd));
    assert!(!io_loop.remove_handler(&123_456));
    io_loop.add_handler(here, Interest::READ, |_, _| ()).unwrap();
    assert!(io_loop.remove_handler(&fd));
    assert!(!io_loop.remove_handler(&fd));
    let error = io_loop.update_handler(&fd, Interest::READ).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let counters = io_loop.counters();
    assert_eq!((counters.sources, counters.live), (0, 0));
}

#[test]
fn removing_takes_back_an_event_that_was_polled_already() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let (heres, _theres) = both_ready();
    let fds: Vec<RawFd> = heres.iter().map(UnixStream::as_raw_fd).collect();
    // Whichever comes first removes the other.
    for here in heres {
        let (note, fds) = (diary.clone(), fds.clone());
        io_loop
            .add_handler(here, Interest::READ, move |here, _| {
                note.write("called");
                read_some(here, 1);
                let other = fds.iter().find(|fd| **fd != here.as_raw_fd()).unwrap();
                note.write(IoLoop::current().remove_handler(other));
                note.write(IoLoop::current().remove_handler(other));
            })
            .unwrap();
    }
    settle(&io_loop);
    assert_eq!(diary.read(), ["called", "true", "false"]);
    assert_eq!(io_loop.counters().sources, 1);
}

#[test]
fn removed_and_added_again_in_one_batch_only_the_new_handler_is_called() {
    let (io_loop, diary) = (virtual_loop(), Diary::new());
    let mut pairs: Vec<_> = (0..2).map(|_| UnixStream::pair().unwrap()).collect();
    pairs.iter_mut().for_each(|(_, there)| there.write_all(b"x").unwrap());
    let (heres, _theres): (Vec<_>, Vec<_>) =
        pairs.into_iter().map(|(here, there)| (Rc::new(here), there)).unzip();
    for here in &heres {
        let (note, inner, heres) = (diary.clone(), io_loop.clone(), heres.clone());
        io_loop
            .add_handler(here.clone(), Interest::READ, move |here, _| {
                note.write("old");
                read_some(here, 1);
                let other = heres.iter().find(|other| !Rc::ptr_eq(other, here)).unwrap();
                inner.remove_handler(other);
                let note = note.clone();
                inner
                    .add_handler(other.clone(), Interest::READ, move |here, _| {
                        note.write(format!("new {}", read_some(here, 1)));
                    })
                    .unwrap();
            })
            .unwrap();
    }
    settle(&io_loop);
    assert_eq!(diary.read(), ["old", "new x"]);
    io_loop.close();
}

#[test]
fn a_handler_may_remove_itself() {
    let (io_loop, here, mut there) = connected();
    let (diary, fd) = (Diary::new(), here.as_raw_fd());
    let (note, end, inner) = (diary.clone(), diary.at_end("dropped"), io_loop.clone());
    io_loop
        .add_handler(here, Interest::READ, move |_, _| {
            end.keep();
            note.write(inner.remove_handler(&fd));
            note.write("still there");
        })
        .unwrap();
    there.write_all(b"unread").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["true", "still there", "dropped"]);
    assert_eq!(io_loop.counters().sources, 0);
    // The socket went with it.
    assert_eq!(there.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_panicking_destructor_of_a_handler_that_removed_itself_is_reported() {
    let (_, here, mut there) = connected();
    let (diary, fd) = (Diary::new(), here.as_raw_fd());
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let (panicking, inner) = (AtDrop(|| panic!("dropped")), io_loop.clone());
    io_loop
        .add_handler(here, Interest::READ, move |_, _| {
            panicking.keep();
            inner.remove_handler(&fd);
        })
        .unwrap();
    there.write_all(b"x").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["panicked: dropped"]);
}

#[test]
fn a_panic_in_a_handler_is_reported_and_the_handler_stays() {
    let (_, here, mut there) = connected();
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    let note = diary.clone();
    io_loop
        .add_handler(here, Interest::READ, move |here, _| {
            let word = read_some(here, 1);
            assert_ne!(word, "a", "not this");
            note.write(word);
        })
        .unwrap();
    there.write_all(b"abc").unwrap();
    settle(&io_loop);
    let words = diary.read();
    assert!(words[0].starts_with("panicked: ") && words[0].contains("not this"), "{words:?}");
    assert_eq!(words[1..], ["b", "c"]);
}

#[test]
fn one_fd_has_one_handler_by_whatever_object() {
    let (io_loop, here, mut there) = connected();
    let (diary, fd) = (Diary::new(), here.as_raw_fd());
    let here = Rc::new(here);
    let note = diary.clone();
    io_loop
        .add_handler(here.clone(), Interest::READ, move |here, _| {
            note.write(read_some(here, 9));
        })
        .unwrap();
    let raw = io_loop.add_handler(fd, Interest::READ, |_, _| ()).unwrap_err();
    let object = io_loop.add_handler(here, Interest::READ, |_, _| ()).unwrap_err();
    for error in [raw, object] {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("update_handler"), "{error}");
    }
    // The first is none the worse.
    there.write_all(b"x").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["x"]);
    assert!(io_loop.remove_handler(&fd));
    io_loop.add_handler(there, Interest::READ, |_, _| ()).unwrap();
}

#[test]
fn each_loop_has_its_own_handlers() {
    let (io_loop, here, mut there) = connected();
    let (other, diary, here) = (virtual_loop(), Diary::new(), Rc::new(here));
    for io_loop in [&io_loop, &other] {
        let (note, inner) = (diary.clone(), io_loop.clone());
        io_loop
            .add_handler(here.clone(), Interest::READ, move |here, _| {
                note.write("called");
                inner.remove_handler(here);
            })
            .unwrap();
    }
    there.write_all(b"x").unwrap();
    settle(&io_loop);
    settle(&other);
    assert_eq!(diary.read(), ["called", "called"]);
}

#[test]
fn a_handler_left_behind_by_an_fd_that_was_closed_elsewhere_is_replaced() {
    let (io_loop, here, _there) = connected();
    let (diary, fd) = (Diary::new(), here.as_raw_fd());
    let end = diary.at_end("replaced");
    io_loop.add_handler(fd, Interest::READ, move |_, _| end.keep()).unwrap();
    // Closed behind the loop's back.
    let (fresh, mut there) = UnixStream::pair().unwrap();
    let reused = give_number(here, fresh);
    assert_eq!(reused.as_raw_fd(), fd);
    let note = diary.clone();
    io_loop
        .add_handler(reused, Interest::READ, move |here, _| note.write(read_some(here, 9)))
        .unwrap();
    there.write_all(b"x").unwrap();
    settle(&io_loop);
    assert_eq!(diary.read(), ["replaced", "x"]);
}

/// What is left behind when an fd is closed elsewhere: a handler by number. The number then goes to a
/// socket of the loop.
async fn stale_handler(
    io_loop: &IoLoop,
    handler: impl FnMut(&RawFd, Interest) + 'static,
) -> (net::UnixStream, net::UnixStream) {
    let (gone, _there) = UnixStream::pair().unwrap();
    let number = gone.as_raw_fd();
    io_loop.add_handler(number, Interest::READ, handler).unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    let here = net::UnixStream::from_std(give_number(gone, here)).unwrap();
    assert_eq!(here.as_raw_fd(), number);
    (here, net::UnixStream::from_std(there).unwrap())
}

/// The loop goes on to watch the socket, in both directions.
async fn assert_hears(here: &net::UnixStream, there: &net::UnixStream) {
    let second = Duration::from_secs(1);
    for _ in 0..2 {
        assert!(with_timeout(second, here.read(&mut [0])).await.is_err());
        there.write_all(b"x").await.unwrap();
        let read = with_timeout(second, here.read(&mut [0])).await;
        assert_eq!(read.expect("the loop watches it").unwrap(), 1);
    }
    while here.try_write(&[0; 4096]).is_ok() {}
    assert!(with_timeout(second, here.writable()).await.is_err());
    while there.try_read(&mut [0; 4096]).is_ok() {}
    with_timeout(second, here.writable()).await.expect("the loop watches it").unwrap();
}

/// Uses a handler whose fd was closed, and whose number is a socket's now.
fn use_stale_handler(use_it: impl FnOnce(&IoLoop, RawFd)) {
    let io_loop = virtual_loop();
    let body = async || {
        let (here, there) = stale_handler(&io_loop, |_, _| unreachable!("its fd is gone")).await;
        use_it(&io_loop, here.as_raw_fd());
        assert_hears(&here, &there).await;
    };
    io_loop.run_sync(body).unwrap();
}

#[test]
fn removing_a_stale_handler_leaves_the_socket_that_has_its_number() {
    use_stale_handler(|io_loop, number| assert!(io_loop.remove_handler(&number)));
}

#[test]
fn updating_a_stale_handler_is_an_error_and_leaves_the_socket_that_has_its_number() {
    use_stale_handler(|io_loop, number| {
        let error = io_loop.update_handler(&number, Interest::WRITE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("closed"), "{error}");
    });
}

#[test]
fn adding_a_handler_for_a_socket_that_has_a_stale_number_is_an_error() {
    use_stale_handler(|io_loop, number| {
        let error = io_loop.add_handler(number, Interest::READ, |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    });
}

#[test]
fn a_handler_that_gives_its_number_away_leaves_it_to_the_new_socket() {
    let io_loop = virtual_loop();
    let body = async || {
        let (gone, mut peer) = UnixStream::pair().unwrap();
        let (number, gone) = (gone.as_raw_fd(), Cell::new(Some(gone)));
        let (made, calls) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(0)));
        let (make, count) = (made.clone(), calls.clone());
        let handler = move |_: &RawFd, _| {
            count.set(count.get() + 1);
            let (here, there) = UnixStream::pair().unwrap();
            let here = net::UnixStream::from_std(give_number(gone.take().unwrap(), here)).unwrap();
            *make.borrow_mut() = Some((here, net::UnixStream::from_std(there).unwrap()));
        };
        io_loop.add_handler(number, Interest::READ, handler).unwrap();
        peer.write_all(b"x").unwrap();
        sleep(Duration::from_secs(1)).await;
        let (here, there) = made.take().unwrap();
        assert_eq!(here.as_raw_fd(), number);
        assert_hears(&here, &there).await;
        assert_eq!(calls.get(), 1);
    };
    io_loop.run_sync(body).unwrap();
}

/// Nobody can end the registration of a file whose number is another's; its events are nobody's.
#[test]
fn an_event_of_a_duplicate_is_not_told_to_the_handler_of_a_number_that_is_gone() {
    let io_loop = virtual_loop();
    let body = async || {
        let (gone, mut peer) = UnixStream::pair().unwrap();
        let (number, twin) = (gone.as_raw_fd(), gone.try_clone().unwrap());
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        let handler = move |_: &RawFd, _| count.set(count.get() + 1);
        io_loop.add_handler(number, Interest::READ, handler).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let here = net::UnixStream::from_std(give_number(gone, here)).unwrap();
        let there = net::UnixStream::from_std(there).unwrap();
        peer.write_all(b"x").unwrap();
        assert_hears(&here, &there).await;
        assert_eq!(calls.get(), 0);
        drop(twin);
    };
    io_loop.run_sync(body).unwrap();
}

#[test]
fn a_regular_file_is_refused_by_epoll_and_always_ready_for_poll() {
    let io_loop = virtual_loop();
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let (called, inner) = (Rc::new(Cell::new(false)), io_loop.clone());
    let noted = called.clone();
    let added = io_loop.add_handler(file, Interest::READ, move |file, _| {
        noted.set(true);
        inner.remove_handler(file);
    });
    match IoLoop::selector() {
        "epoll" => {
            assert_eq!(added.unwrap_err().kind(), ErrorKind::PermissionDenied);
            assert_eq!(io_loop.counters().sources, 0);
        }
        "poll" => {
            added.unwrap();
            settle(&io_loop);
            assert!(called.get());
        }
        _ => {}
    }
}

#[test]
fn a_closed_fd_is_an_error_or_told_as_one() {
    let io_loop = virtual_loop();
    let (told, inner) = (Rc::new(Cell::new(Interest::NONE)), io_loop.clone());
    let noted = told.clone();
    let added = io_loop.add_handler(999_999, Interest::READ, move |fd, interest| {
        noted.set(interest);
        inner.remove_handler(fd);
    });
    if IoLoop::selector() == "poll" {
        added.unwrap();
        io_loop.run_sync(|| turns(200)).unwrap();
        assert!(told.get().contains(Interest::ERROR));
    } else {
        added.unwrap_err();
        assert_eq!((io_loop.counters().sources, io_loop.counters().live), (0, 0));
    }
}

#[test]
fn interests_are_written_as_they_are_combined() {
    assert_eq!(format!("{:?}", Interest::READ | Interest::WRITE), "READ | WRITE");
    assert_eq!(format!("{:?}", Interest::NONE), "NONE");
    assert!((Interest::READ | Interest::ERROR).contains(Interest::NONE));
    assert!(!Interest::READ.contains(Interest::WRITE));
}

#[test]
fn more_handlers_than_events_fit_are_all_called() {
    let io_loop = IoLoop::builder().virtual_time().event_capacity(2).build().unwrap();
    let called = Rc::new(Cell::new(0));
    let mut theres = Vec::new();
    for _ in 0..20 {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(b"x").unwrap();
        theres.push(there);
        let noted = called.clone();
        io_loop
            .add_handler(here, Interest::READ, move |here, _| {
                read_some(here, 1);
                noted.set(noted.get() + 1);
            })
            .unwrap();
    }
    settle(&io_loop);
    assert_eq!(called.get(), 20);
}
