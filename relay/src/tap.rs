//! A place to listen to everything the relay handles: how a test shows that no plaintext passes by.

use happy_crypto::DeviceId;

/// Sees every frame of a relay, both ways. It exists for tests; production code leaves `Config.tap` empty, and the binary
/// has no way to set it. It is called on the path of every frame, so it must not wait.
pub trait Tap: Send + Sync + 'static {
    /// A frame arrived, from a device once it is known. The bytes are as received, valid or not.
    fn received(&self, from: Option<DeviceId>, frame: &[u8]);
    /// A frame is handed to the socket of a device, or of a stranger before the login.
    fn sent(&self, to: Option<DeviceId>, frame: &[u8]);
}
