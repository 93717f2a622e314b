//! Names that a mistyped one may have meant.

/// How many letters a meant name may differ by.
const DISTANCE_MAX: usize = 2;

/// Those of `names` that are near to `word` or begin with it.
pub(super) fn similar(word: &str, names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let word = word.to_lowercase();
    names.filter(|name| name.starts_with(&word) || distance(&word, name) <= DISTANCE_MAX).collect()
}

/// How many letters must be added, removed or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested() {
        let names = || ["get", "del", "endpoint", "elect", "snapshot"].into_iter();
        assert_eq!(similar("gte", names()), ["get"]);
        assert_eq!(similar("e", names()), ["get", "del", "endpoint", "elect"]);
        assert_eq!(similar("bogus", names()), [""; 0]);
    }
}
