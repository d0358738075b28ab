//! The two loops between the terminal and the session. Neither waits for the other, so that a program which prints while it is
//! pasted into cannot lock both.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::server::Holder;
use super::state::MAX_READ;

/// Reads in a row before others get their turn: a flood must not delay the keys that would stop it.
const READS_IN_A_ROW: usize = 16;

/// After the program has ended, output is awaited for so long: what it printed last may still be on its way through the kernel.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// Children that the program leaves behind may keep its terminal open and go on printing. So much is read after its end, more than the
/// kernel can hold; then the terminal is closed.
const LAST_BYTES: usize = 1024 * 1024;

/// Says that the program has ended.
#[derive(Default)]
pub struct Ending {
    has_ended: Cell<bool>,
    wake: Notify,
}

impl Ending {
    /// It has.
    pub fn announce(&self) {
        self.has_ended.set(true);
        self.wake.notify_one();
    }
}

/// Takes output to the session until there is none any more.
pub async fn read_output(holder: &Holder, ending: &Ending) {
    let wakes = holder.state.borrow().wakes();
    let mut buffer = vec![0; MAX_READ];
    let mut in_a_row = 0;
    while !ending.has_ended.get() {
        if !holder.state.borrow().may_read() {
            // A lossless viewer makes the program wait.
            tokio::select! { () = wakes.output_room.notified() => {}, () = ending.wake.notified() => {} }
            continue;
        }
        let read =
            tokio::select! { read = holder.pty.read(&mut buffer) => read, () = ending.wake.notified() => continue };
        if !take(holder, &buffer, read) {
            break;
        }
        in_a_row += 1;
        if in_a_row == READS_IN_A_ROW {
            in_a_row = 0;
            yield_now().await;
        }
    }
    let mut left = LAST_BYTES;
    while left > 0 {
        let Ok(read) = timeout(LAST_OUTPUT, holder.pty.read(&mut buffer)).await else { return };
        left = left.saturating_sub(read.as_ref().map_or(0, |count| *count));
        if !take(holder, &buffer, read) {
            return;
        }
        yield_now().await;
    }
}

/// Whether there may be more.
fn take(holder: &Holder, buffer: &[u8], read: io::Result<usize>) -> bool {
    match read {
        Ok(0) => false,
        Ok(count) => {
            holder.state.borrow_mut().on_output(&buffer[..count]);
            true
        }
        Err(error) => {
            tracing::error!("the terminal cannot be read: {error}");
            false
        }
    }
}

/// Takes input to the program, for as long as it is polled.
pub async fn write_input(holder: &Holder) {
    let wakes = holder.state.borrow().wakes();
    loop {
        if holder.state.borrow().pending_input().is_empty() {
            wakes.input.notified().await;
            continue;
        }
        match holder.pty.write(|write| write(holder.state.borrow().pending_input())).await {
            Ok(count) => holder.state.borrow_mut().on_typed(count),
            Err(error) => {
                tracing::debug!("the terminal takes no more input: {error}");
                return;
            }
        }
        yield_now().await;
    }
}
