//! What a name server answers to a question for SRV records: any bytes, or any bytes behind an honest beginning.
//!
//! Compared: targets are names that a URL may have.

use client::dns::{Answer, Question};

use crate::input::Input;

const NAME: &str = "_etcd-server._tcp.example.com";
const ID: u16 = 7;

/// Runs the target: the first byte tells whether the answer repeats the question.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let question = Question::with_id(NAME, ID).expect("a name");
    let answer = if input.byte() == 0 { input.rest().to_vec() } else { honest(&mut input) };
    if let Some(Answer::Records(records)) = question.read(&answer) {
        assert!(!records.is_empty(), "there are some");
        for record in records {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert!(record.target.bytes().all(is_good), "{record:?}");
        }
    }
}

/// A header with these flags and this number of records, the question, and anything.
fn honest(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = ID.to_be_bytes().to_vec();
    bytes.extend([0x80 | input.byte(), input.byte(), 0, 1, 0, input.byte(), 0, 0, 0, 0]);
    for part in NAME.split('.') {
        bytes.push(u8::try_from(part.len()).expect("short"));
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend([0, 0, 33, 0, 1]);
    bytes.extend_from_slice(input.rest());
    bytes
}
