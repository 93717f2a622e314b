//! `HashKV` of members, compared at revisions that they have in common.

use std::time::Duration;

use anyhow::{Result, bail};
use tonic::Code;

use super::api::Api;
use crate::random::Random;

const PATIENCE: Duration = Duration::from_secs(10);
/// How far below the newest common revision one is looked at.
const DEPTH: i64 = 300;

/// What one comparison found equal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Equal {
    pub(crate) revision: i64,
    pub(crate) members: usize,
}

/// A member's name and its API.
pub(crate) type Named = (String, Api);

/// Compares the hashes of those `members` that answer, at a revision all of them have: the newest, or with `random` one
/// near it. An error if they differ, `None` if fewer than two can be compared now.
pub(crate) async fn compare(
    members: &[Named],
    random: Option<&mut Random>,
) -> Result<Option<Equal>> {
    let mut newest = Vec::new();
    for (name, api) in members {
        if let Ok(status) = api.within(Duration::from_secs(1)).status().await {
            newest.push((name, api, status.header.map_or(0, |header| header.revision)));
        }
    }
    let Some(revision) = newest.iter().map(|(_, _, revision)| *revision).min() else {
        return Ok(None);
    };
    let revision = random
        .map_or(revision, |random| random.within(revision.saturating_sub(DEPTH).max(2), revision));
    let mut hashes = Vec::new();
    for (name, api, _) in newest {
        match api.within(PATIENCE).hash(revision).await {
            Ok(answer) => hashes.push((name, answer.compact_revision, answer.hash)),
            // Compacted meanwhile, or away.
            Err(status) if status.code() == Code::OutOfRange => return Ok(None),
            Err(_away) => {}
        }
    }
    judge(revision, &hashes)
}

/// Members whose history begins at the same compaction must have the same hash.
fn judge(revision: i64, hashes: &[(&String, i64, u32)]) -> Result<Option<Equal>> {
    let Some((_, compacted, hash)) = hashes.iter().max_by_key(|(_, compacted, _)| *compacted)
    else {
        return Ok(None);
    };
    let same: Vec<_> = hashes.iter().filter(|(_, other, _)| other == compacted).collect();
    if same.iter().any(|(_, _, other)| other != hash) {
        bail!("HashKV differs at revision {revision}: (member, compacted, hash) {hashes:?}");
    }
    Ok((same.len() >= 2).then_some(Equal { revision, members: same.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_equal_histories_must_be_equal() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let [a, b, c] = &names;
        assert!(judge(5, &[(a, 1, 7), (b, 1, 8)]).is_err());
        assert!(judge(5, &[(a, 1, 7), (b, 2, 8)]).unwrap().is_none());
        assert_eq!(judge(5, &[(a, 2, 7), (b, 1, 8), (c, 2, 7)]).unwrap().unwrap().members, 2);
        assert!(judge(5, &[]).unwrap().is_none());
    }
}
