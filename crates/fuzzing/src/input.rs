//! Takes a fuzzer's bytes apart: numbers, pieces, and what is left. Never fails: what is missing is zero or empty.

/// A fuzzer's bytes, from front to back.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Takes `bytes` apart.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Takes two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Takes a number that is mostly small: one byte, or eight after 0xff.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            u8::MAX => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            small => u64::from(small),
        }
    }

    /// Takes a number that may be negative: the bits of [`Self::number`], and -1 for 0xfe.
    pub fn signed(&mut self) -> i64 {
        match self.number() {
            0xfe => -1,
            number => number.cast_signed(),
        }
    }

    /// Takes a piece that says its length: one byte, or two after 0xff.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = match self.byte() {
            u8::MAX => usize::from(self.short()),
            small => usize::from(small),
        };
        self.take(len)
    }

    /// Takes a piece as text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    /// Takes up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Takes everything.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Builds an input, for seeds: what [`Input`] takes apart.
#[derive(Debug, Default, Clone)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// Begins with `first`.
    pub fn new(first: u8) -> Self {
        Self { bytes: vec![first] }
    }

    /// Adds one byte.
    pub fn byte(mut self, byte: u8) -> Self {
        self.bytes.push(byte);
        self
    }

    /// Adds a number.
    pub fn number(mut self, number: u64) -> Self {
        match u8::try_from(number) {
            Ok(small) if small < u8::MAX => self.bytes.push(small),
            _ => {
                self.bytes.push(u8::MAX);
                self.bytes.extend(number.to_le_bytes());
            }
        }
        self
    }

    /// Adds a piece with its length.
    pub fn piece(mut self, piece: &[u8]) -> Self {
        match u8::try_from(piece.len()) {
            Ok(small) if small < u8::MAX => self.bytes.push(small),
            _ => {
                self.bytes.push(u8::MAX);
                let len = u16::try_from(piece.len()).expect("seeds are small");
                self.bytes.extend(len.to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(piece);
        self
    }

    /// Adds bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Returns the input.
    pub fn build(self) -> Vec<u8> {
        self.bytes
    }
}
