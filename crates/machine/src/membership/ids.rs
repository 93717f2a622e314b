//! Ids by SHA-1, as etcd computes them: every member of a bootstrapping cluster finds the same
//! ones.

use sha1::{Digest, Sha1};

/// Returns the id of a member that bootstraps with the cluster.
pub fn initial_member_id(peer_urls: &[String], cluster_token: &str) -> u64 {
    digest_id(&hash_urls(peer_urls, cluster_token))
}

/// Returns the id of a member that is added at `unix_seconds` by the adder's clock.
pub fn added_member_id(peer_urls: &[String], unix_seconds: i64) -> u64 {
    digest_id(&hash_urls(peer_urls, &unix_seconds.to_string()))
}

/// Returns the id of a cluster that bootstraps with `member_ids`.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut sorted = member_ids.to_vec();
    sorted.sort_unstable();
    let bytes: Vec<u8> = sorted.iter().flat_map(|id| id.to_be_bytes()).collect();
    digest_id(&bytes)
}

fn hash_urls(peer_urls: &[String], suffix: &str) -> Vec<u8> {
    let mut sorted = peer_urls.to_vec();
    sorted.sort_unstable();
    let mut text = sorted.concat();
    text.push_str(suffix);
    text.into_bytes()
}

fn digest_id(bytes: &[u8]) -> u64 {
    let digest = Sha1::digest(bytes);
    digest.iter().take(8).fold(0, |id, &byte| id << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_single_member_has_the_known_ids() {
        let member = initial_member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(format!("{member:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[member])), "cdf818194e3a8c32");
    }

    #[test]
    fn order_does_not_matter() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(
            initial_member_id(&[a.clone(), b.clone()], "t"),
            initial_member_id(&[b, a], "t")
        );
        assert_eq!(cluster_id(&[1, 2]), cluster_id(&[2, 1]));
    }
}
