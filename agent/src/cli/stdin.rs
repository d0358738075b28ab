//! Standard input, read by a thread of its own: a wait for the keyboard cannot be taken back.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

/// The longest line that is read; a code or a name is far shorter.
const MAX_LINE: u64 = 4096;
/// The most bytes of one read of keys; a paste comes in several.
const CHUNK: usize = 16 * 1024;

/// Lines of standard input, without their end; the channel closes at its end.
pub fn lines() -> mpsc::Receiver<String> {
    // One line waits at most: nobody types ahead of a question that is not asked yet, and a pipe waits.
    let (give, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match stdin.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if give.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Bytes of standard input as they come; the channel closes at its end.
pub fn bytes() -> mpsc::Receiver<Vec<u8>> {
    let (give, bytes) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut chunk = vec![0; CHUNK];
        loop {
            match stdin.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    if give.blocking_send(chunk[..n].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    bytes
}
