//! Time and timers of the browser.

use std::cell::RefCell;
use std::time::Duration;

use wasm_bindgen::JsValue;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::clocks::Moment;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_namespace = Date, js_name = now)]
    fn date_now() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &JsValue, milliseconds: i32) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);
}

/// Time since the page began. It never goes back.
pub fn now() -> Duration {
    Duration::try_from_secs_f64(performance_now() / 1000.0).unwrap_or_default()
}

/// Milliseconds since 1970, by a clock that a person may have set wrong.
pub fn unix_ms() -> u64 {
    // A float of JavaScript becomes the nearest number that is in range.
    date_now() as u64
}

/// Now, by both clocks.
pub fn moment() -> Moment {
    Moment { unix_ms: unix_ms(), steady: now() }
}

/// One timer, which calls the same function whenever it was set and its time has come.
pub struct Timer {
    callback: Closure<dyn FnMut()>,
    handle: RefCell<Option<JsValue>>,
}

impl Timer {
    /// A timer that is not set.
    pub fn new(act: impl FnMut() + 'static) -> Self {
        Self { callback: Closure::new(act), handle: RefCell::new(None) }
    }

    /// Sets it to a time of [`now`], in place of any other.
    pub fn set(&self, at: Option<Duration>) {
        self.clear();
        let Some(at) = at else { return };
        // Rounded up: a timer that fires a moment too early would only be set again.
        let wait = i32::try_from(at.saturating_sub(now()).as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        *self.handle.borrow_mut() = Some(set_timeout(self.callback.as_ref(), wait));
    }

    fn clear(&self) {
        if let Some(handle) = self.handle.borrow_mut().take() {
            clear_timeout(&handle);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clear();
    }
}
