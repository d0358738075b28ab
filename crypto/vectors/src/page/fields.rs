//! PROTOCOL 1: fields with a length, and how they are read.

/// `str8`.
pub(super) fn str8(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("it is short");
    [&[length][..], text.as_bytes()].concat()
}

/// `bytes16`.
pub(super) fn bytes16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("it is short").to_be_bytes();
    [&length[..], bytes].concat()
}

/// What is left to read. It is only given what was written as the page says, and anything else is a panic.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        head
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        self.bytes(N).try_into().expect("that many were taken")
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A u32 length and that many bytes.
    pub fn prefixed(&mut self) -> Vec<u8> {
        let length = self.u32();
        self.bytes(length as usize).to_vec()
    }
}
