//! Keys, ends of ranges, values and lease ids: few, so that requests meet.

use bytes::Bytes;

use crate::random::Random;

/// Leases that come and go.
const LEASES: [i64; 10] = [1, 2, 3, 4, 5, 6, 7, 1 << 40, i64::MAX, -5];

pub(super) fn key(random: &mut Random) -> Bytes {
    let key = match random.weighted(&[700, 150, 70, 10, 5, 65]) {
        0 => format!("k{:02}", random.below(40)).into_bytes(),
        1 => format!("p/{}/{}", random.pick(&["a", "b", "c"]), random.below(8)).into_bytes(),
        2 => random
            .pick(&[
                &b"\0"[..],
                b"\0\0",
                b"\xff",
                b"\xff\xff",
                b"k\xff",
                b"k01\0",
                b"k0",
                b"k",
                b"l",
                b"p/",
                b"\xc3\x28",
            ])
            .to_vec(),
        3 => Vec::new(),
        4 => {
            let length = random.pick(&[200, 255, 256, 1000, 3000]);
            let letter = random.pick(b"ab");
            vec![letter; length]
        }
        _ => {
            let length = 1 + random.below(2);
            (0..length).map(|_| random.pick(b"akp\0\xff")).collect()
        }
    };
    key.into()
}

pub(super) fn range_end(random: &mut Random, start: &[u8]) -> Bytes {
    match random.weighted(&[350, 250, 120, 150, 50, 50, 30]) {
        0 => Bytes::new(),
        1 => prefix_end(start),
        2 => Bytes::from_static(b"\0"),
        3 => key(random),
        4 => Bytes::copy_from_slice(start),
        5 => nearby_end(random, start),
        _ => Bytes::from_static(b"\xff"),
    }
}

/// An end that takes few keys.
pub(super) fn nearby_end(random: &mut Random, start: &[u8]) -> Bytes {
    let mut end = start.to_vec();
    match (random.below(3), end.last_mut()) {
        (0, _) | (_, None) => end.push(0),
        (step, Some(last)) => *last = last.saturating_add(if step == 1 { 1 } else { 3 }),
    }
    end.into()
}

/// The end of all keys that begin with `start`, as clients compute it.
pub(super) fn prefix_end(start: &[u8]) -> Bytes {
    let mut end = start.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

pub(super) fn value(random: &mut Random) -> Bytes {
    let length = match random.weighted(&[2000, 7500, 450, 40, 4, 1]) {
        0 => return Bytes::from_static(random.pick(&[&b""[..], b"v1", b"v2", b"v3"])),
        1 => random.below(24),
        2 => 1000 + random.below(9000),
        3 => 100_000,
        // About the limit of a request, then above that of a gRPC message.
        4 => 1_572_864 - 64 + random.below(128),
        _ => 2_097_152 + random.below(64),
    };
    if length < 1000 {
        return random.bytes(length).into();
    }
    // What matters is the length.
    vec![random.next().to_le_bytes()[0]; length].into()
}

pub(super) fn lease(random: &mut Random) -> i64 {
    if random.chance(60) {
        return random.pick(&[99, -1, i64::MIN, 0]);
    }
    random.pick(&LEASES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_its_successor() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"a\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff"), Bytes::from_static(b"\0"));
        assert_eq!(prefix_end(b""), Bytes::from_static(b"\0"));
    }
}
