//! Little-endian base-128 numbers, plain and with two flag bits in the first byte.

/// Appends `value`, 1–10 bytes.
pub(super) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value, 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value, 0x7f));
}

/// Appends a length or offset.
pub(super) fn write_len(out: &mut Vec<u8>, value: usize) {
    write(out, value as u64);
}

/// Reads what [`write`] wrote at `*at` and moves `*at` behind it.
#[inline]
pub(super) fn read(bytes: &[u8], at: &mut usize) -> u64 {
    let first = bytes[*at];
    *at += 1;
    if first < 0x80 { u64::from(first) } else { read_more(bytes, at, u64::from(first & 0x7f), 7) }
}

/// Reads a length or offset.
#[inline]
pub(super) fn read_len(bytes: &[u8], at: &mut usize) -> usize {
    usize::try_from(read(bytes, at)).unwrap_or(usize::MAX)
}

/// Appends `value` with `flags` (two bits) in the low bits of the first byte. Unlike a shifted plain number it holds all
/// 64 bits of `value`.
pub(super) fn write_flagged(out: &mut Vec<u8>, flags: u8, value: u64) {
    debug_assert!(flags < 4, "two bits are reserved for flags");
    let first = low_bits(value, 0x1f) << 2 | flags;
    if value < 0x20 {
        out.push(first);
    } else {
        out.push(first | 0x80);
        write(out, value >> 5);
    }
}

/// Reads what [`write_flagged`] wrote at `*at` and moves `*at` behind it.
#[inline]
pub(super) fn read_flagged(bytes: &[u8], at: &mut usize) -> (u8, u64) {
    let first = bytes[*at];
    *at += 1;
    let low = u64::from(first >> 2 & 0x1f);
    let value = if first < 0x80 { low } else { read_more(bytes, at, low, 5) };
    (first & 3, value)
}

#[inline]
fn read_more(bytes: &[u8], at: &mut usize, mut value: u64, mut shift: u32) -> u64 {
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

fn low_bits(value: u64, mask: u8) -> u8 {
    value.to_le_bytes()[0] & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_come_back() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                for flags in 0..4 {
                    let mut out = vec![0xaa];
                    write(&mut out, value);
                    write_flagged(&mut out, flags, value);
                    let mut at = 1;
                    assert_eq!(read(&out, &mut at), value);
                    assert_eq!(read_flagged(&out, &mut at), (flags, value));
                    assert_eq!(at, out.len());
                }
            }
        }
    }
}
