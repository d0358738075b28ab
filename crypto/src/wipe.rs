//! Wiping many bytes at a time, where [`Zeroize`](zeroize::Zeroize) goes byte by byte: a turn of the ratchet drops some thirty secrets.

use zeroize::ZeroizeOnDrop;

/// Makes zeros of them.
// On a phone a call is slower than the four stores, and smaller at each of the places where secrets are dropped: it has to be downloaded.
#[cfg_attr(target_arch = "wasm32", inline(never))]
pub(crate) fn wipe<const N: usize>(bytes: &mut [u8; N]) {
    *bytes = [0; N];
    zeroize::optimization_barrier(bytes);
}

/// Bytes that wipe themselves when dropped.
#[derive(Clone)]
pub(crate) struct Wiped<const N: usize>(pub [u8; N]);

impl<const N: usize> Drop for Wiped<N> {
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl<const N: usize> ZeroizeOnDrop for Wiped<N> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiped_bytes_are_zeros() {
        let mut bytes = [7; 32];
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 32]);
    }
}
