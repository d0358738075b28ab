//! Whoever comes lets those go first who are there.
//!
//! A thousand sockets may become readable at once. If each of them is a login, which costs a hundred times as much as a frame, the frames that
//! arrive meanwhile would wait for all of them: tasks run in the order in which they were woken. So whatever happens to a socket until a device
//! is seated goes [through](Turnstile::through) here, where only a few tasks pass each time the runtime has looked for new input and has run what
//! else there was to do. A crowd is admitted as fast as before, in the order of its coming; it only waits outside the queue that the frames are in.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// So many pass at a time for each thread of the runtime. A turn takes 20 to 100 µs, so this is what a frame waits at most. Each time costs a system
/// call. While 10,000 devices come back, the p99 of the others' round trips is 1.8 times what it was before with two, and 2.5 times with four.
const AT_ONCE: usize = 2;

/// Lets a few pass at a time.
#[derive(Default)]
pub(crate) struct Turnstile(Mutex<State>);

#[derive(Default)]
struct State {
    /// How many may still pass this time without waiting.
    left: usize,
    /// How many of those who waited have been called.
    called: u64,
    /// Those who wait, from the number `called` on. Each is at most once in here; who was dropped stays until it is called.
    waiting: VecDeque<Waker>,
    /// A task turns it.
    turns: bool,
}

impl Turnstile {
    /// Makes something that takes its turn each time it goes on.
    pub(crate) fn through<F: Future + Unpin>(self: &Arc<Self>, inner: F) -> Through<F> {
        Through { turnstile: self.clone(), inner, number: None }
    }

    /// Whether the holder of this number, if it has one, may go on; it is woken when it may.
    fn passes(self: &Arc<Self>, number: &mut Option<u64>, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        if let Some(mine) = *number {
            let Some(before) = mine.checked_sub(state.called) else {
                *number = None;
                return true;
            };
            if let Some(waker) = usize::try_from(before).ok().and_then(|before| state.waiting.get_mut(before)) {
                waker.clone_from(cx.waker());
            }
            return false;
        }
        if !std::mem::replace(&mut state.turns, true) {
            tokio::spawn(turn(self.clone()));
        }
        if state.waiting.is_empty() && state.left > 0 {
            state.left -= 1;
            return true;
        }
        *number = Some(state.called + state.waiting.len() as u64);
        state.waiting.push_back(cx.waker().clone());
        false
    }
}

/// Turns it for as long as somebody comes.
async fn turn(turnstile: Arc<Turnstile>) {
    let at_once = AT_ONCE * tokio::runtime::Handle::current().metrics().num_workers();
    loop {
        // This task is woken again after the runtime has looked for new input and has run what was ready before.
        tokio::task::yield_now().await;
        let called: Vec<Waker> = {
            let mut state = turnstile.0.lock();
            if state.waiting.is_empty() && state.left == at_once {
                state.turns = false;
                return;
            }
            let count = state.waiting.len().min(at_once);
            state.called += count as u64;
            state.left = at_once - count;
            state.waiting.drain(..count).collect()
        };
        called.into_iter().for_each(Waker::wake);
    }
}

/// See [`Turnstile::through`].
pub(crate) struct Through<F> {
    turnstile: Arc<Turnstile>,
    inner: F,
    /// What it waits with.
    number: Option<u64>,
}

impl<F: Future + Unpin> Future for Through<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { turnstile, inner, number } = self.get_mut();
        if turnstile.passes(number, cx) { Pin::new(inner).poll(cx) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// One who comes, in so many steps, each of which is counted.
    async fn comes(steps: usize, counted: Arc<AtomicUsize>) {
        for _ in 0..steps {
            counted.fetch_add(1, Relaxed);
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn between_two_steps_of_others_only_a_few_of_a_crowd_pass() {
        const CROWD: usize = 1_000;
        let (turnstile, counted) = (Arc::new(Turnstile::default()), Arc::new(AtomicUsize::new(0)));
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            crowd.spawn(turnstile.through(Box::pin(comes(10, counted.clone()))));
        }
        let (mut before, mut most, mut steps) = (0, 0, 0);
        while before < CROWD * 10 {
            yield_now().await;
            let now = counted.load(Relaxed);
            most = most.max(now - before);
            (before, steps) = (now, steps + 1);
            assert!(steps < CROWD * 20, "the crowd does not come through: {now} steps");
        }
        assert!(most <= 2 * AT_ONCE, "{most} at once");
        assert_eq!(crowd.join_all().await.len(), CROWD);
    }

    #[tokio::test]
    async fn who_goes_away_while_it_waits_holds_up_nobody() {
        let (turnstile, counted) = (Arc::new(Turnstile::default()), Arc::new(AtomicUsize::new(0)));
        let mut gone = JoinSet::new();
        for _ in 0..100 {
            gone.spawn(turnstile.through(Box::pin(comes(usize::MAX, counted.clone()))));
        }
        while counted.load(Relaxed) < 50 {
            yield_now().await;
        }
        gone.shutdown().await;
        turnstile.through(Box::pin(comes(10, counted.clone()))).await;
        // It stands still again when nobody comes.
        while turnstile.0.lock().turns {
            yield_now().await;
        }
        let state = turnstile.0.lock();
        assert_eq!((state.waiting.len(), state.left), (0, AT_ONCE));
    }

    #[tokio::test]
    async fn whoever_comes_alone_does_not_wait_for_long() {
        let turnstile = Arc::new(Turnstile::default());
        for _ in 0..100 {
            let counted = Arc::new(AtomicUsize::new(0));
            turnstile.through(Box::pin(comes(10, counted.clone()))).await;
            assert_eq!(counted.load(Relaxed), 10);
        }
    }
}
