//! What the processes of sessions use, from `/proc`. One look at all processes serves every session, and is taken when somebody asks; a daemon
//! that nobody asks looks at nothing. Elsewhere than on Linux nothing is known.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use happy_rpc::Usage;
use tokio::sync::Mutex;

/// A look is good for so long, whoever asks and however often.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// The most processes that are looked at: more than a machine for people has, and a bound for the work of one look.
const MAX_PROCESSES: usize = 32_768;

/// The last look, and the turn of whoever takes the next one: others wait for that, and share it.
#[derive(Default)]
pub struct Processes(Mutex<Option<(Instant, Arc<Table>)>>);

/// All processes at one moment.
#[derive(Debug, Default)]
pub struct Table {
    processes: HashMap<u32, Process>,
    children: HashMap<u32, Vec<u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    stopped: bool,
    ticks: u64,
    pages: u64,
}

impl Processes {
    /// The processes as of now, or a moment ago.
    pub async fn look(&self) -> Arc<Table> {
        self.look_at(Instant::now(), || Table::read(Path::new("/proc"))).await
    }

    async fn look_at(&self, now: Instant, read: impl FnOnce() -> Table + Send + 'static) -> Arc<Table> {
        let mut last = self.0.lock().await;
        if let Some((_, table)) = last.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < GOOD_FOR) {
            return table.clone();
        }
        // It reads a file of each process. It fails only when the runtime ends, and then nobody is told anything.
        let table = Arc::new(tokio::task::spawn_blocking(read).await.unwrap_or_default());
        *last = Some((now, table.clone()));
        table
    }
}

impl Table {
    fn read(folder: &Path) -> Table {
        let mut table = Table::default();
        let Ok(entries) = std::fs::read_dir(folder) else { return table };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for id in ids.take(MAX_PROCESSES) {
            // It may have ended since.
            let Ok(text) = std::fs::read_to_string(folder.join(format!("{id}/stat"))) else { continue };
            if let Some(process) = parse(&text) {
                table.children.entry(process.parent).or_default().push(id);
                table.processes.insert(id, process);
            }
        }
        table
    }

    /// What a process and all below it use; none when there is no such process.
    pub fn usage(&self, root: u32) -> Option<Usage> {
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let page = rustix::param::page_size() as u64;
        self.processes.get(&root)?;
        let (mut usage, mut left, mut seen) = (Usage::default(), vec![root], 0);
        while let Some(id) = left.pop() {
            // Ids may be given anew while they are read, so that what should be a tree could be a circle.
            seen += 1;
            if seen > self.processes.len() {
                break;
            }
            if let Some(process) = self.processes.get(&id) {
                usage.cpu_ms = usage.cpu_ms.saturating_add(process.ticks.saturating_mul(1000) / ticks);
                usage.memory = usage.memory.saturating_add(process.pages.saturating_mul(page));
                usage.processes += 1;
                left.extend(self.children.get(&id).into_iter().flatten().filter(|child| **child != id));
            }
        }
        Some(usage)
    }

    /// Whether a process is stopped, as by `SIGSTOP`.
    pub fn is_stopped(&self, id: u32) -> bool {
        self.processes.get(&id).is_some_and(|process| process.stopped)
    }
}

/// A line of `/proc/PID/stat` (proc(5)). The name in parentheses may hold anything, parentheses and blanks too.
fn parse(text: &str) -> Option<Process> {
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at - 3)?.parse::<i64>().ok().map(|number| number.max(0) as u64);
    // utime and stime, and what children that were waited for had.
    let ticks = [14, 15, 16, 17].map(number).into_iter().try_fold(0u64, |sum, part| Some(sum.saturating_add(part?)))?;
    let stopped = matches!(*fields.first()?, "T" | "t");
    Some(Process { parent: u32::try_from(number(4)?).ok()?, stopped, ticks, pages: number(24)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(folder: &Path, id: u32, name: &str, state: &str, parent: u32, ticks: u64, pages: u64) {
        let path = folder.join(id.to_string());
        std::fs::create_dir_all(&path).unwrap();
        let rest = "0 0 0 0 0 0 0 0 0";
        let text = format!("{id} ({name}) {state} {parent} {rest} {ticks} 0 0 0 20 0 1 0 5 1000 {pages} 0");
        std::fs::write(path.join("stat"), text).unwrap();
    }

    #[test]
    fn a_session_has_what_its_program_and_all_below_it_have() {
        let folder = tempfile::tempdir().unwrap();
        stat(folder.path(), 10, "sh", "S", 1, 100, 3);
        stat(folder.path(), 11, "a ) S 99 (b", "R", 10, 50, 4);
        stat(folder.path(), 12, "cc", "T", 11, 25, 5);
        stat(folder.path(), 20, "other", "S", 1, 999, 999);
        std::fs::create_dir(folder.path().join("self")).unwrap();
        let table = Table::read(folder.path());
        let ticks = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        let wanted =
            Usage { cpu_ms: 100_000 / ticks + 50_000 / ticks + 25_000 / ticks, memory: 12 * page, processes: 3 };
        assert_eq!(table.usage(10), Some(wanted));
        assert_eq!(table.usage(13), None);
        assert!(table.is_stopped(12) && !table.is_stopped(10));
    }

    #[test]
    fn a_circle_and_nonsense_end() {
        let folder = tempfile::tempdir().unwrap();
        stat(folder.path(), 10, "a", "S", 11, 1, 1);
        stat(folder.path(), 11, "b", "S", 10, 1, 1);
        assert!(Table::read(folder.path()).usage(10).unwrap().processes <= 2);
        for text in ["", ")", "1 (a) S", "1 (a) S x 0 0 0 0 0 0 0 0 0 1 1 1 1 0 0 0 0 0 0 0"] {
            assert_eq!(parse(text), None, "{text}");
        }
        let huge = format!("1 (a) S 1 {}", "18446744073709551615 ".repeat(30));
        let _ = parse(&huge);
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_look() {
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        static LOOKS: AtomicU32 = AtomicU32::new(0);
        let read = || {
            LOOKS.fetch_add(1, SeqCst);
            Table::default()
        };
        let (processes, now) = (Processes::default(), Instant::now());
        let looks = futures_util::future::join_all((0..50).map(|_| processes.look_at(now, read))).await;
        assert!(looks.iter().all(|table| Arc::ptr_eq(table, &looks[0])), "it is shared and not copied");
        assert_eq!(LOOKS.load(SeqCst), 1);
        assert!(!Arc::ptr_eq(&processes.look_at(now + GOOD_FOR, read).await, &looks[0]));
        assert_eq!(LOOKS.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn this_very_process_is_found() {
        let table = Processes::default().look().await;
        if cfg!(target_os = "linux") {
            let usage = table.usage(std::process::id()).unwrap();
            assert!(usage.memory > 1024 * 1024 && usage.processes >= 1, "{usage:?}");
        }
    }
}
