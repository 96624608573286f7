//! Who ends whom: sets of coroutines, handles that cancel, groups that close, tokens with children.

mod common;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use common::{AtDrop, Diary, poll_once, seconds, turns};
use futures::StreamExt as _;
use waterspout::coroutine::{
    self, CancelToken, JoinSet, TaskGroup, shield, sleep, start, with_timeout,
};
use waterspout::{Coroutine, IoLoop};

const SECOND: Duration = Duration::from_secs(1);

#[waterspout::test(virtual_time)]
async fn a_set_gives_outputs_as_they_come_and_grows_meanwhile() {
    let mut set = JoinSet::new();
    let after = |n: u32| async move {
        sleep(n * SECOND).await;
        n
    };
    set.spawn(after(3));
    set.add(coroutine::start(after(1)));
    assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
    set.spawn(after(1));
    assert_eq!(set.len(), 2);
    let rest: Vec<_> = set.by_ref().map(Result::unwrap).collect().await;
    assert_eq!(rest, [1, 3]);
    assert!(set.is_empty() && set.join_next().await.is_none());
}

#[waterspout::test]
async fn who_panics_or_is_cancelled_is_an_error_of_the_set_and_the_others_go_on() {
    let mut set = JoinSet::new();
    set.spawn(async { panic!("one of them") });
    let cancelled = set.spawn(pending());
    set.spawn(async { 7 });
    cancelled.cancel();
    assert!(cancelled.done());
    let mut outcomes = Vec::new();
    while let Some(outcome) = set.join_next().await {
        outcomes.push(match outcome {
            Ok(output) => output.to_string(),
            Err(error) if error.is_cancelled() => "cancelled".into(),
            Err(error) => error.to_string(),
        });
    }
    outcomes.sort();
    assert_eq!((outcomes[0].as_str(), outcomes[2].as_str()), ("7", "cancelled"));
    assert!(outcomes[1].contains("one of them"), "{outcomes:?}");
}

#[waterspout::test]
async fn a_set_that_is_dropped_or_cancelled_ends_those_in_it_and_what_they_await() {
    let diary = Diary::new();
    let mut set = JoinSet::new();
    let waits = |diary: &Diary, word: &'static str| {
        let end = diary.at_end(word);
        coroutine::start(async move {
            let inner = coroutine::start(async move {
                end.keep();
                pending::<()>().await
            });
            inner.await
        })
    };
    set.add(waits(&diary, "one"));
    set.add(waits(&diary, "two"));
    set.cancel();
    assert_eq!(set.len(), 2);
    let mut ended = diary.read();
    ended.sort();
    assert_eq!(ended, ["one", "two"]);
    assert!(set.join_next().await.unwrap().unwrap_err().is_cancelled());
    set.add(waits(&diary, "three"));
    drop(set);
    assert!(diary.read().contains(&"three".to_owned()));
}

#[waterspout::test]
async fn giving_up_to_wait_for_the_next_one_loses_nobody() {
    let mut set = JoinSet::new();
    set.spawn(async {
        turns(2).await;
        7
    });
    assert!(poll_once(std::pin::pin!(set.join_next())).await.is_pending());
    turns(4).await;
    assert_eq!(set.join_next().await.unwrap().unwrap(), 7);
}

#[test]
fn sets_within_sets_end_without_more_stack() {
    let io_loop = IoLoop::new().unwrap();
    io_loop
        .run_sync(|| async {
            let mut outer = JoinSet::new();
            for _ in 0..100_000 {
                let inner = outer;
                outer = JoinSet::new();
                outer.spawn(async move {
                    let _inner = inner;
                    pending::<()>().await
                });
            }
            turns(2).await;
            drop(outer);
        })
        .unwrap();
    assert_eq!(io_loop.coroutines().len(), 0);
}

#[waterspout::test]
async fn a_handle_cancels_a_coroutine_that_another_awaits_and_keeps_nothing_of_it() {
    let ended = Rc::new(Cell::new(0));
    let count = ended.clone();
    let coroutine = coroutine::start(async move {
        let _end = AtDrop(move || count.set(count.get() + 1));
        pending::<()>().await
    });
    let handle = coroutine.cancel_handle();
    let joins = coroutine::start(coroutine.join());
    assert!(!handle.done() && format!("{handle:?}").contains("done: false"));
    handle.clone().cancel();
    assert_eq!((handle.done(), ended.get()), (true, 1));
    assert!(joins.await.unwrap_err().is_cancelled());
    handle.cancel();
}

#[waterspout::test]
async fn a_coroutine_may_have_its_own_handle_and_cancels_itself_at_its_next_suspension() {
    let own = Rc::new(RefCell::new(None::<coroutine::CancelHandle>));
    let has = own.clone();
    let coroutine: Coroutine<()> = coroutine::spawn(async move {
        has.borrow().as_ref().unwrap().cancel();
        turns(1).await;
        unreachable!("it was cancelled");
    });
    *own.borrow_mut() = Some(coroutine.cancel_handle());
    assert!(coroutine.join().await.unwrap_err().is_cancelled());
}

#[waterspout::test]
async fn what_joins_can_be_asked_and_cancels_if_it_is_tied() {
    let coroutine = || coroutine::spawn(pending::<()>());
    let joins = coroutine().join();
    assert!(!joins.done());
    joins.cancel();
    assert!(joins.done() && joins.await.unwrap_err().is_cancelled());
    let tied = coroutine().cancel_on_drop().join();
    let handle = tied.cancel_handle();
    drop(tied);
    assert!(handle.done());
    let loose = coroutine();
    let handle = loose.cancel_handle();
    drop(loose.join());
    drop(coroutine().cancel_on_drop().detach());
    assert!(!handle.done());
    let alive = IoLoop::current().coroutines();
    assert_eq!(alive.iter().filter(|info| info.name.contains("pending")).count(), 2, "{alive:?}");
}

#[waterspout::test(virtual_time)]
async fn a_time_limit_around_what_is_tied_ends_it() {
    let tied = coroutine::spawn(pending::<()>()).cancel_on_drop().join();
    let handle = tied.cancel_handle();
    assert!(with_timeout(SECOND, tied).await.is_err());
    assert!(handle.done());
}

#[waterspout::test(virtual_time)]
async fn a_group_that_is_closed_takes_nobody_and_lets_those_in_it_come_to_their_end() {
    let group: TaskGroup = TaskGroup::new();
    let done = Rc::new(Cell::new(false));
    let ends = done.clone();
    group.start(async move {
        sleep(SECOND).await;
        ends.set(true);
        Ok(())
    });
    group.close();
    let refused = group.start_named("late", async { unreachable!("it is refused") });
    assert!(refused.done() && format!("{refused:?}").contains("None"));
    refused.cancel();
    assert_eq!(group.len(), 1);
    group.join().await.unwrap();
    assert!(done.get() && group.start(async { Ok(()) }).done() && group.is_empty());
}

#[waterspout::test]
async fn a_child_of_a_group_has_a_name_and_a_handle_that_ends_it_alone() {
    let group: TaskGroup = TaskGroup::new();
    let handle = group.start_named("a child", pending());
    group.start(pending());
    let named = || IoLoop::current().coroutines().iter().any(|info| info.name == "a child");
    assert!(named());
    handle.cancel();
    assert!(!named());
    assert_eq!(group.len(), 1);
}

#[waterspout::test]
async fn a_child_of_a_token_is_cancelled_with_it_and_not_the_other_way_round() {
    let token = CancelToken::new();
    let (child, other) = (token.child(), token.child());
    let grandchild = child.child();
    let waits = coroutine::start(grandchild.cancelled());
    child.cancel();
    waits.await;
    assert!(!token.is_cancelled() && !other.is_cancelled());
    // Those that nobody has any more are nobody's loss.
    (0..1000).for_each(|_| drop(token.child()));
    token.cancel();
    assert!(other.is_cancelled() && token.child().is_cancelled());
    let ran = other.run(pending::<()>()).await;
    assert!(ran.is_none());
}

#[test]
fn a_long_line_of_tokens_is_cancelled_without_more_stack() {
    let mut line = vec![CancelToken::new()];
    for n in 0..100_000 {
        line.push(line[n].child());
    }
    line[0].cancel();
    assert!(line.iter().all(CancelToken::is_cancelled));
}

#[waterspout::test(virtual_time)]
async fn a_token_is_cancelled_with_its_grandparent_although_nobody_keeps_its_parent() {
    let token = CancelToken::new();
    let leaf = token.child().child().child();
    for _ in 0..100 {
        drop(token.child()); // those that have gone are thrown out now and then
    }
    let waits = start({
        let leaf = leaf.clone();
        async move { leaf.cancelled().await }
    });
    token.cancel();
    assert!(leaf.is_cancelled());
    waits.await;
}

#[test]
fn a_long_line_of_tokens_is_dropped_from_either_end() {
    let token = CancelToken::new();
    let mut last = token.clone();
    for _ in 0..200_000 {
        last = last.child();
    }
    drop(token);
    drop(last);
}

#[waterspout::test(virtual_time)]
async fn a_shield_also_keeps_coroutines_that_are_tied_to_their_handles() {
    let done = Rc::new(Cell::new(0));
    let work = |n| {
        let done = done.clone();
        start(async move {
            sleep(seconds(1)).await;
            done.set(done.get() + n);
        })
    };
    let (tied, other) = (work(1).cancel_on_drop(), work(10).cancel_on_drop());
    let request = start(async move {
        let _other = other;
        shield(tied).await
    });
    request.cancel();
    sleep(seconds(2)).await;
    assert_eq!(done.get(), 1, "what is not shielded ends");
}
