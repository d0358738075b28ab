//! The protocol a second time, and the test vectors on which both implementations agree.
//!
//! [`page`] follows sections 2 to 11 and 14 of `docs/PROTOCOL.md`, as far as they are about bytes, with nothing but the primitives. It is slow, keeps its secrets in
//! the open and checks no more than it must, so that it reads like the page and can also play somebody hostile. [`all`] lets
//! the product speak, with randomness that is written down, and has `page` derive every byte again; what the two do not
//! agree on is a panic and never a vector. The intermediate keys in a vector come from `page`: `happy_crypto` gives none away,
//! and need not, because every one of them ends in bytes that it sends or opens.
//!
//! The files themselves lie beside this package; `cargo xtask vectors` writes them, a test and a wasm build compare them.

mod files;
pub mod json;
pub mod page;
mod randomness;
#[cfg(target_arch = "wasm32")]
mod wasm;

pub use files::{File, all};
pub use randomness::Randomness;
