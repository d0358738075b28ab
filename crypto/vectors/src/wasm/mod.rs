//! What `check.mjs` calls, as plain functions and pointers, so that nothing stands between: the files, made in wasm, and [`machine`].

#![expect(unsafe_code, reason = "the names of the exports must be kept as they are")]

mod exchange;
mod machine;

use std::sync::{Mutex, OnceLock};

use crate::{File, all};

/// The file with this number.
fn file(index: usize) -> Option<&'static File> {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        std::panic::set_hook(Box::new(|panic| {
            if let Ok(mut text) = PANIC.lock() {
                *text = panic.to_string();
            }
        }));
        all()
    });
    files.get(index)
}

/// What the two implementations did not agree on, for a panic has no other way out of wasm.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Where that begins.
#[unsafe(no_mangle)]
extern "C" fn panic_text() -> usize {
    PANIC.lock().map_or(0, |text| text.as_ptr() as usize)
}

/// How long it is.
#[unsafe(no_mangle)]
extern "C" fn panic_text_length() -> usize {
    PANIC.lock().map_or(0, |text| text.len())
}

/// Where the name of a file begins; 0 when there is no such file.
#[unsafe(no_mangle)]
extern "C" fn name(index: usize) -> usize {
    file(index).map_or(0, |file| file.name.as_ptr() as usize)
}

/// How long its name is.
#[unsafe(no_mangle)]
extern "C" fn name_length(index: usize) -> usize {
    file(index).map_or(0, |file| file.name.len())
}

/// Where its text begins.
#[unsafe(no_mangle)]
extern "C" fn text(index: usize) -> usize {
    file(index).map_or(0, |file| file.text.as_ptr() as usize)
}

/// How long its text is.
#[unsafe(no_mangle)]
extern "C" fn text_length(index: usize) -> usize {
    file(index).map_or(0, |file| file.text.len())
}
