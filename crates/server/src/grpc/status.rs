//! gRPC status: a code and a text. Clients compare the text, so both are part of the interface (`spec/errors.md`).

use std::borrow::Cow;
use std::fmt;

/// The canonical gRPC codes; the discriminants are the wire numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The caller gave up.
    Canceled = 1,
    /// No better code.
    Unknown = 2,
    /// The request can never be granted as it is.
    InvalidArgument = 3,
    /// The caller's deadline has passed.
    DeadlineExceeded = 4,
    /// What was named does not exist.
    NotFound = 5,
    /// What was to be made exists.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A bound was met.
    ResourceExhausted = 8,
    /// The state does not allow it.
    FailedPrecondition = 9,
    /// A conflict.
    Aborted = 10,
    /// Outside what exists now.
    OutOfRange = 11,
    /// Not offered here.
    Unimplemented = 12,
    /// A broken promise of the protocol.
    Internal = 13,
    /// Not now; try again.
    Unavailable = 14,
    /// Data is damaged.
    DataLoss = 15,
    /// No valid credentials.
    Unauthenticated = 16,
}

impl Code {
    /// All codes in wire order.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The number as the `grpc-status` trailer carries it.
    pub const fn digits(self) -> &'static str {
        const DIGITS: [&str; 17] = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16",
        ];
        DIGITS[self as usize]
    }

    /// The name that grpc-go prints and that the `grpc_code` metric label carries.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        NAMES[self as usize]
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text, UTF-8; percent-encoded only on the wire.
    pub message: Cow<'static, str>,
}

impl Status {
    /// Makes a status.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// Makes a status with a fixed text.
    pub const fn fixed(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }

    /// Returns the text as the `grpc-message` trailer carries it: bytes outside printable ASCII, and `%`, are
    /// percent-encoded (gRPC over HTTP/2 specification).
    pub fn encoded_message(&self) -> Cow<'_, str> {
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
        if self.message.bytes().all(plain) {
            return Cow::Borrowed(&self.message);
        }
        let mut encoded = String::with_capacity(self.message.len() + 16);
        for byte in self.message.bytes() {
            if plain(byte) {
                encoded.push(char::from(byte));
            } else {
                encoded.push('%');
                for digit in [byte >> 4, byte & 15] {
                    encoded.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
        Cow::Owned(encoded)
    }
}

impl fmt::Display for Status {
    /// Prints as grpc-go does; watch cancel reasons carry this form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_digits_and_order_agree() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(code.digits(), number.to_string());
        }
    }

    #[test]
    fn messages_are_percent_encoded_outside_printable_ascii() {
        let status = Status::fixed(Code::Unknown, "a%b\n\u{e9}");
        assert_eq!(status.encoded_message(), "a%25b%0A%C3%A9");
        assert_eq!(Status::fixed(Code::Unknown, "plain text").encoded_message(), "plain text");
    }
}
