//! Sizes for people, in powers of a thousand.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// `size` with at most two significant digits below ten: `20 kB`, `2.1 GB`.
#[expect(
    clippy::cast_precision_loss,
    reason = "two digits are shown; the reference rounds in floating point too"
)]
pub fn si_bytes(size: u64) -> String {
    if size < 10 {
        return format!("{size} B");
    }
    let exponent = (size as f64).ln() / 1000_f64.ln();
    let index = (0..UNITS.len()).rev().find(|i| *i as f64 <= exponent).unwrap_or_default();
    let unit = UNITS[index];
    let scaled = size as f64 / 1000_f64.powi(i32::try_from(index).unwrap_or_default());
    let value = (scaled * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
