//! `TaskGroup` and `CancelToken`: structured endings.

mod common;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use common::{Diary, seconds};
use futures::FutureExt;
use waterspout::coroutine::{CancelToken, TaskGroup, moment, sleep, spawn};
use waterspout::{IoLoop, coroutine};

#[waterspout::test(virtual_time)]
async fn join_waits_for_all_children() {
    let group = TaskGroup::<()>::new();
    let begun = IoLoop::current().time();
    for n in [1, 3, 2] {
        group.start(async move {
            sleep(seconds(n)).await;
            Ok(())
        });
    }
    assert_eq!(group.len(), 3);
    assert_eq!(group.join().await, Ok(()));
    assert_eq!((group.len(), IoLoop::current().time() - begun), (0, seconds(3)));
    assert_eq!(group.join().await, Ok(()), "an empty group is joined at once");
}

#[waterspout::test(virtual_time)]
async fn who_joins_a_group_does_not_borrow_it() {
    let group = TaskGroup::new();
    group.start(std::future::pending::<Result<(), ()>>());
    let joining = spawn(group.join());
    moment().await;
    assert!(!joining.done());
    drop(group);
    assert_eq!(joining.await, Ok(()));
}

#[waterspout::test(virtual_time)]
async fn dropping_a_group_cancels_its_children() {
    let diary = Diary::new();
    let group = TaskGroup::<()>::new();
    for n in 1..=2 {
        let held = diary.at_end(n);
        group.start(async move {
            let _held = held;
            std::future::pending().await
        });
    }
    assert!(diary.read().is_empty());
    drop(group);
    assert_eq!(diary.read(), ["1", "2"]);
}

#[waterspout::test(virtual_time)]
async fn the_first_failure_cancels_the_others_and_is_what_join_gives() {
    let diary = Diary::new();
    let group = TaskGroup::new();
    for n in 1..=4u64 {
        let held = diary.at_end(n);
        group.start(async move {
            let _held = held;
            sleep(seconds(n)).await;
            if n >= 2 { Err(n) } else { Ok(()) }
        });
    }
    assert_eq!(group.join().await, Err(2));
    assert_eq!(diary.read(), ["1", "2", "3", "4"]);
    assert_eq!(group.join().await, Ok(()), "a failure is given once");
}

#[waterspout::test(virtual_time)]
async fn a_panic_of_a_child_goes_on_in_join() {
    let group = TaskGroup::<()>::new();
    group.start(async {
        moment().await;
        panic!("in a child")
    });
    let panic = AssertUnwindSafe(group.join()).catch_unwind().await.unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "in a child");
}

#[test]
fn children_of_an_independent_group_fail_alone_and_are_reported() {
    let diary = Diary::new();
    let io_loop = diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap();
    io_loop
        .run_sync(|| async {
            let group = TaskGroup::independent();
            for n in 1..=3u32 {
                group.start(async move {
                    sleep(seconds(n.into())).await;
                    assert_ne!(n, 2, "two is out");
                    if n == 1 { Err("one is wrong") } else { Ok(()) }
                });
            }
            assert_eq!(group.join().await, Ok(()));
        })
        .unwrap();
    let reported = diary.read();
    assert_eq!(reported.len(), 2);
    assert_eq!(reported[0], "\"one is wrong\"");
    assert!(reported[1].contains("two is out"), "{}", reported[1]);
}

#[waterspout::test(virtual_time)]
async fn a_finished_child_leaves_nothing_behind() {
    let group = TaskGroup::<()>::new();
    let held = Rc::new(());
    for _ in 0..if cfg!(miri) { 300 } else { 10_000 } {
        let held = held.clone();
        group.start(async move {
            moment().await;
            drop(held);
            Ok(())
        });
        if group.len() == 100 {
            group.join().await.unwrap();
        }
    }
    group.join().await.unwrap();
    assert_eq!((group.len(), Rc::strong_count(&held)), (0, 1));
    assert!(IoLoop::current().counters().live <= 2);
}

#[waterspout::test(virtual_time)]
async fn shutdown_waits_until_its_deadline_and_cancels_the_rest() {
    let group = TaskGroup::<()>::new();
    for n in [1, 2, 60] {
        group.start(async move {
            sleep(seconds(n)).await;
            Ok(())
        });
    }
    let begun = IoLoop::current().time();
    assert_eq!(group.shutdown(seconds(5)).await, 1);
    assert_eq!(IoLoop::current().time() - begun, seconds(5));
    assert!(group.is_empty());
    assert_eq!(group.shutdown(seconds(5)).await, 0);
    assert_eq!(IoLoop::current().time() - begun, seconds(5));
}

#[waterspout::test(virtual_time)]
async fn a_child_may_cancel_its_group_and_the_group_goes_on() {
    let group = Rc::new(TaskGroup::<()>::new());
    let inner = group.clone();
    group.start(async move {
        inner.cancel();
        Ok(()) // it never suspends, so it comes to its end
    });
    let ran = Rc::new(Cell::new(false));
    let inside = ran.clone();
    group.start(async move {
        moment().await;
        inside.set(true);
        Ok(())
    });
    assert_eq!(group.len(), 1);
    group.join().await.unwrap();
    assert!(ran.get());
}

#[waterspout::test(virtual_time)]
async fn a_token_is_heard_by_all_its_clones_at_any_time() {
    let token = CancelToken::new();
    let heard = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let (token, heard) = (token.clone(), heard.clone());
        spawn(async move {
            token.cancelled().await;
            heard.set(heard.get() + 1);
        });
    }
    moment().await;
    assert_eq!((heard.get(), token.is_cancelled()), (0, false));
    token.cancel();
    token.cancel();
    moment().await;
    assert_eq!((heard.get(), token.is_cancelled()), (3, true));
    token.cancelled().await;
}

#[waterspout::test(virtual_time)]
async fn what_runs_under_a_token_ends_with_it_unless_it_is_done() {
    let token = CancelToken::new();
    assert_eq!(token.run(async { 5 }).await, Some(5));
    let listening = token.clone();
    let held = Rc::new(());
    let inside = held.clone();
    let runs = coroutine::start(async move {
        listening
            .run(async move {
                let _inside = inside;
                sleep(seconds(60)).await;
            })
            .await
    });
    token.cancel();
    assert_eq!(runs.await, None);
    assert_eq!(Rc::strong_count(&held), 1);
    assert_eq!(token.run(async { 6 }).await, Some(6), "what is ready wins");
}

#[waterspout::test(virtual_time)]
async fn a_child_that_cancels_its_group_before_it_was_suspended_ends_with_it() {
    let diary = Diary::new();
    let group = Rc::new(TaskGroup::<()>::new());
    let (own, held) = (group.clone(), diary.at_end(1));
    group.start(async move {
        let _held = held;
        own.cancel();
        std::future::pending().await
    });
    assert_eq!(diary.read(), ["1"]);
    assert!(group.is_empty());
}

fn listening() -> (IoLoop, Diary) {
    let diary = Diary::new();
    (diary.exceptions_of(IoLoop::builder().virtual_time()).build().unwrap(), diary)
}

#[test]
fn a_failure_that_nobody_joins_for_is_reported() {
    let (io_loop, diary) = listening();
    io_loop
        .run_sync(|| async {
            let group = TaskGroup::<()>::new();
            group.start(async {
                moment().await;
                panic!("lost")
            });
            sleep(seconds(1)).await;
            assert!(diary.read().is_empty(), "somebody may still join");
        })
        .unwrap();
    assert_eq!(diary.read(), ["panicked: lost"]);
}

#[test]
fn join_gives_the_first_failure_and_others_are_reported() {
    let (io_loop, diary) = listening();
    let joined = io_loop.run_sync(|| async {
        let group = Rc::new(TaskGroup::new());
        let ends = group.clone();
        group.start(async move {
            moment().await;
            // Cancelled from within, it runs on to its next suspension.
            ends.cancel();
            Err("its own")
        });
        group.join().await
    });
    assert_eq!(joined.unwrap(), Err("its own"));
    let joined = io_loop.run_sync(|| async {
        let group = Rc::new(TaskGroup::new());
        let fails = group.clone();
        group.start(async move {
            fails.start(async { Err("first") });
            Err("second")
        });
        group.join().await
    });
    assert_eq!(joined.unwrap(), Err("first"));
    assert_eq!(diary.read(), ["\"second\""]);
}

#[waterspout::test(virtual_time)]
async fn a_group_that_is_ending_refuses_children_until_its_failure_was_taken() {
    let (group, diary) = (TaskGroup::new(), Diary::new());
    group.start(async { Err("failed") });
    let refused = diary.at_end("refused");
    let note = diary.clone();
    group.start(async move {
        note.write("it ran");
        refused.keep();
        Ok(())
    });
    assert_eq!((group.len(), diary.read()), (0, vec!["refused".to_owned()]));
    assert_eq!(group.join().await, Err("failed"));
    group.start(async { Ok(()) });
    assert_eq!(group.join().await, Ok(()));
}

#[waterspout::test(virtual_time)]
async fn a_child_whose_destructor_starts_another_leaves_nobody_alive() {
    for cancel in [false, true] {
        let group = Rc::new(TaskGroup::<()>::new());
        let again = group.clone();
        let starts = common::AtDrop(move || drop(again.start(std::future::pending())));
        group.start(async move {
            let _starts = starts;
            std::future::pending().await
        });
        if cancel {
            group.cancel();
        } else {
            assert_eq!(group.shutdown(seconds(1)).await, 1);
        }
        assert_eq!(group.len(), 0);
        group.join().await.unwrap();
    }
}

#[waterspout::test(virtual_time)]
async fn a_group_that_was_shut_down_takes_no_children() {
    let group = TaskGroup::<()>::new();
    assert_eq!(group.shutdown(seconds(1)).await, 0);
    group.start(async { unreachable!("it is refused") });
    assert!(group.is_empty());
}

#[test]
fn a_group_whose_loop_was_closed_is_empty() {
    let group = Rc::new(TaskGroup::<()>::new());
    let (first, second) = (common::virtual_loop(), common::virtual_loop());
    let held = group.clone();
    first.run_sync(|| async move { held.start(std::future::pending()) }).unwrap();
    assert_eq!(group.len(), 1);
    first.close();
    assert_eq!(group.len(), 0);
    second.run_sync_timeout(seconds(1), || async { group.join().await }).unwrap().unwrap();
}

#[test]
fn a_child_is_named_by_what_was_started_not_by_the_group() {
    async fn echo() -> Result<(), ()> {
        std::future::pending().await
    }
    let io_loop = common::virtual_loop();
    let group = TaskGroup::new();
    io_loop.run_sync(|| async { group.start(echo()) }).unwrap();
    let name = io_loop.coroutines()[0].name;
    assert!(name.contains("echo") && !name.contains("TaskGroup"), "{name}");
}

#[waterspout::test(virtual_time)]
async fn a_child_that_closes_its_group_in_its_first_step_goes_on() {
    let group = Rc::new(TaskGroup::<String>::new());
    let closes = group.clone();
    group.start(async move {
        let inner = closes.clone();
        closes.start(async move {
            inner.close();
            sleep(seconds(1)).await;
            Ok(())
        });
        sleep(seconds(2)).await;
        Err("of the first".into())
    });
    assert_eq!(group.len(), 2);
    assert_eq!(group.join().await, Err("of the first".into()));
}

#[waterspout::test(virtual_time)]
async fn a_child_that_closes_and_cancels_its_group_in_its_first_step_ends() {
    let group = Rc::new(TaskGroup::<String>::new());
    let ends = group.clone();
    group.start(async move {
        ends.close();
        ends.cancel();
        std::future::pending().await
    });
    assert_eq!((group.len(), group.join().await), (0, Ok(())));
}
