//! Counts what is allocated.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// How often `body` allocates on this thread, growing included.
pub fn allocations(body: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    body();
    COUNT.get() - before
}

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The allocator of the system, and a number that grows. It costs a few instructions, and vodozemac a few times as many.
struct Counting;

#[expect(unsafe_code, reason = "there is no other way to see an allocation")]
// SAFETY: every call is passed on to the allocator of the system as it came, and counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.realloc(memory, layout, size) }
    }
}
