//! Reading a structure from its bytes.

use crate::DecodeError;

/// What is left to read. Never allocates, never reads past the end.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| *byte)
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// So many bytes.
    pub fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    /// A `u16` length and that many bytes.
    pub fn bytes16(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.slice(usize::from(length))
    }

    /// Version and suite, the first two bytes of most structures.
    pub fn version_and_suite(&mut self) -> Result<(), DecodeError> {
        self.version()?;
        match self.u8()? {
            crate::SUITE => Ok(()),
            other => Err(DecodeError::UnsupportedSuite(other)),
        }
    }

    pub fn version(&mut self) -> Result<(), DecodeError> {
        match self.u8()? {
            crate::VERSION => Ok(()),
            other => Err(DecodeError::UnsupportedVersion(other)),
        }
    }

    /// PROTOCOL 1: a structure that is followed by unread bytes is refused.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}
