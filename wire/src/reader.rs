//! Reading and writing the primitive types of `PROTOCOL 1`.

use happy_crypto::DeviceId;

/// Why bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ended inside a field.
    #[error("the message is cut short")]
    Cut,
    /// Bytes follow where none may.
    #[error("the message has bytes after its end")]
    Trailing,
    /// The version is not ours.
    #[error("protocol version {0} is not spoken here; upgrade the older side")]
    Version(u8),
    /// A type that this version does not know. Receivers skip it and count it.
    #[error("message type {0:#04x} is unknown")]
    UnknownType(u8),
    /// A field has a value outside its range.
    #[error("the field `{0}` is out of range")]
    Field(&'static str),
}

/// A cursor over received bytes. Every method fails with [`WireError::Cut`] rather than read past the end.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(WireError::Cut)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Cut)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn device(&mut self) -> Result<DeviceId, WireError> {
        Ok(DeviceId::from_bytes(self.array()?))
    }

    pub(crate) fn str8(&mut self) -> Result<&'a str, WireError> {
        let n = self.u8()?;
        std::str::from_utf8(self.take(n.into())?).map_err(|_| WireError::Field("text"))
    }

    pub(crate) fn version(&mut self) -> Result<(), WireError> {
        match self.u8()? {
            crate::VERSION => Ok(()),
            other => Err(WireError::Version(other)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

/// Appends a `str8`. Text longer than 255 bytes is cut at a character boundary: it is for people, and a peer's limits
/// must not turn a long file name into an error.
pub(crate) fn put_str8(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(u8::MAX.into())];
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
