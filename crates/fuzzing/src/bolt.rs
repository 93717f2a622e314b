//! bbolt files: any bytes, with or without the right checksums of both meta pages.
//!
//! `check_image` reads the file in every way there is, and then verifies it as a whole.

use storage::bolt;

use crate::input::Input;

/// Where the two meta pages' contents lie for the smallest and etcd's page size.
const META_BYTES: usize = 64;
const HEADER_BYTES: usize = 16;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let mut image = input.rest().to_vec();
    // 0 leaves the bytes as they are; otherwise the page size is a power of two from 1 KiB to 64 KiB.
    if mode != 0 {
        let page_bytes = 1024_usize << (mode % 7);
        for page in [0, page_bytes] {
            if let Some(meta) = image.get_mut(page + HEADER_BYTES..page + HEADER_BYTES + META_BYTES)
            {
                let sum = fnv1a(&meta[..META_BYTES - 8]);
                meta[META_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
    // A fault is an answer.
    drop(bolt::check_image(&image));
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
