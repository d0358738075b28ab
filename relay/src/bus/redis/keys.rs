//! The keys of other nodes' tokens, remembered for a moment (`PROTOCOL 7`, Tokens and REST).
//!
//! Whoever sends a token names the node that made it, and that costs nobody a login. So each name is asked for once in a while, whatever
//! came of it; requests that name the same node share one question; and names that nobody has heard of get no more than some questions a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::bus::{Apart, NodeId};
use crate::rates::Bucket;

/// How long what Redis said counts. Less than the lease of a node lasts, and nobody waits for it: the name of a node is random, so it is
/// in no token, and asked for by nobody, before the node is there.
const FRESH: Duration = Duration::from_secs(3);
/// And for how long there is no other question when Redis said nothing.
const FRESH_WITHOUT_ANSWER: Duration = Duration::from_millis(500);
/// Questions a second, and at once. A relay has some nodes, each asked for once in [`FRESH`].
const ASKS: f64 = 100.0;
/// How long a key that was there may be used when no question is left: a flood of invented names does no harm to who has a token.
const STALE: Duration = Duration::from_secs(60);
/// Nodes that are remembered: more than are asked for within [`FRESH`], and those of a large relay.
const MAX_NODES: usize = 1_024;

type Key = [u8; 32];
type Said = Result<Option<Key>, Apart>;

/// What is known of other nodes' keys.
pub(super) struct Keys {
    nodes: Mutex<HashMap<NodeId, Arc<Slot>>>,
    asks: Mutex<Bucket>,
}

/// What is known of one node. Locked while it is asked for.
type Slot = tokio::sync::Mutex<Option<Answered>>;

#[derive(Clone, Copy)]
struct Answered {
    at: Instant,
    said: Said,
}

impl Answered {
    fn is_fresh(&self, now: Instant) -> bool {
        let fresh = if self.said.is_ok() { FRESH } else { FRESH_WITHOUT_ANSWER };
        now < self.at + fresh
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.is_fresh(now) || matches!(self.said, Ok(Some(_))) && now < self.at + STALE
    }
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { nodes: Mutex::default(), asks: Mutex::new(Bucket::new(ASKS, ASKS, Instant::now())) }
    }

    /// The key of a node, by `ask` if it is not known. Whoever comes while it is being asked for waits for the same answer.
    pub(super) async fn of(&self, node: NodeId, ask: impl Future<Output = Said>) -> Said {
        let slot = self.slot(node).ok_or(Apart)?;
        let mut known = slot.lock().await;
        let now = Instant::now();
        if let Some(answered) = known.filter(|answered| answered.is_fresh(now)) {
            return answered.said;
        }
        if !self.asks.lock().take(now, 0.0) {
            return known.filter(|answered| answered.is_of_use(now)).map_or(Err(Apart), |answered| answered.said);
        }
        let said = ask.await;
        *known = Some(Answered { at: Instant::now(), said });
        said
    }

    /// None when too many are remembered.
    fn slot(&self, node: NodeId) -> Option<Arc<Slot>> {
        let mut nodes = self.nodes.lock();
        if let Some(slot) = nodes.get(&node) {
            return Some(slot.clone());
        }
        if nodes.len() >= MAX_NODES {
            let now = Instant::now();
            // One that is locked is being asked for.
            nodes.retain(|_, slot| {
                slot.try_lock().map_or(true, |known| known.is_some_and(|answered| answered.is_of_use(now)))
            });
            if nodes.len() >= MAX_NODES {
                return None;
            }
        }
        Some(nodes.entry(node).or_default().clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    const KEY: Key = [7; 32];
    const KNOWN: NodeId = NodeId([1; 8]);

    fn node(n: u64) -> NodeId {
        NodeId(n.to_be_bytes())
    }

    /// Redis, which counts what it is asked and takes its time.
    #[derive(Default)]
    struct Asked(AtomicU64);

    impl Asked {
        async fn answer(&self, said: Said) -> Said {
            self.0.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            said
        }

        fn count(&self) -> u64 {
            self.0.load(Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_name_one_node_share_a_question_whatever_the_answer() {
        for (said, again_after) in [(Ok(None), FRESH), (Ok(Some(KEY)), FRESH), (Err(Apart), FRESH_WITHOUT_ANSWER)] {
            let (keys, asked) = (Keys::new(), Asked::default());
            let all = join_all((0..500).map(|_| keys.of(KNOWN, asked.answer(said)))).await;
            assert!(all.iter().all(|one| *one == said));
            tokio::time::advance(again_after - Duration::from_millis(100)).await;
            assert_eq!(keys.of(KNOWN, asked.answer(said)).await, said);
            assert_eq!(asked.count(), 1);
            tokio::time::advance(Duration::from_millis(200)).await;
            assert_eq!(keys.of(KNOWN, asked.answer(said)).await, said);
            assert_eq!(asked.count(), 2, "it is asked for again");
        }
    }

    /// A thousand a second for ten seconds, by somebody who does not wait for the answers.
    #[tokio::test(start_paused = true)]
    async fn invented_names_get_few_questions_and_little_room_and_known_nodes_are_believed() {
        let (keys, asked) = (Keys::new(), Asked::default());
        assert_eq!(keys.of(KNOWN, asked.answer(Ok(Some(KEY)))).await, Ok(Some(KEY)));
        for n in 0..10_000 {
            let _ = keys.of(node(1 << 40 | n), asked.answer(Ok(None))).now_or_never();
            tokio::time::advance(Duration::from_millis(1)).await;
            if n % 100 == 0 {
                assert_eq!(keys.of(KNOWN, asked.answer(Ok(Some(KEY)))).await, Ok(Some(KEY)), "{n}");
            }
        }
        let asks = asked.count();
        assert!((100..=1_400).contains(&asks), "{asks}");
        assert!(keys.nodes.lock().len() <= MAX_NODES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_is_full_gets_room_again() {
        let (keys, asked) = (Keys::new(), Asked::default());
        for n in 0..MAX_NODES as u64 {
            *keys.slot(node(n)).unwrap().lock().await = Some(Answered { at: Instant::now(), said: Ok(None) });
        }
        assert_eq!(keys.of(KNOWN, asked.answer(Ok(Some(KEY)))).await, Err(Apart));
        tokio::time::advance(FRESH).await;
        assert_eq!(keys.of(KNOWN, asked.answer(Ok(Some(KEY)))).await, Ok(Some(KEY)));
        assert_eq!(keys.nodes.lock().len(), 1);
    }
}
