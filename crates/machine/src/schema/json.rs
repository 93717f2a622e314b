//! JSON exactly as Go's `encoding/json` writes it: field order, omitted empty fields, escaped HTML
//! characters.

use std::fmt::Write;

use serde::Deserialize;

use crate::membership::{Downgrade, Member};

/// Membership of the consensus group, as raft counts it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
pub struct ConfState {
    /// Members that vote.
    #[serde(default)]
    pub voters: Vec<u64>,
    /// Members that only follow.
    #[serde(default)]
    pub learners: Vec<u64>,
}

#[derive(Deserialize)]
struct MemberJson {
    #[serde(default)]
    id: u64,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(default, rename = "isLearner")]
    is_learner: bool,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
    #[serde(default, rename = "isPromote")]
    is_promote: bool,
}

#[derive(Deserialize)]
struct DowngradeJson {
    #[serde(default, rename = "target-version")]
    target_version: String,
    #[serde(default)]
    enabled: bool,
}

impl From<MemberJson> for Member {
    fn from(json: MemberJson) -> Self {
        Self {
            id: json.id,
            peer_urls: json.peer_urls.unwrap_or_default(),
            is_learner: json.is_learner,
            name: json.name,
            client_urls: json.client_urls.unwrap_or_default(),
        }
    }
}

pub(super) fn encode_member(member: &Member) -> String {
    let mut out = String::with_capacity(128);
    push_member(&mut out, member, false);
    out.push('}');
    out
}

pub(super) fn encode_conf_change_context(member: &Member, is_promotion: bool) -> String {
    let mut out = String::with_capacity(128);
    push_member(&mut out, member, is_promotion);
    if is_promotion {
        out.push_str(",\"isPromote\":true");
    }
    out.push('}');
    out
}

fn push_member(out: &mut String, member: &Member, is_promotion: bool) {
    push_number(out, "{\"id\":", member.id);
    out.push_str(",\"peerURLs\":");
    if is_promotion {
        out.push_str("null");
    } else {
        push_strings(out, &member.peer_urls);
    }
    if member.is_learner && !is_promotion {
        out.push_str(",\"isLearner\":true");
    }
    if !member.name.is_empty() {
        out.push_str(",\"name\":");
        push_string(out, &member.name);
    }
    if !member.client_urls.is_empty() {
        out.push_str(",\"clientURLs\":");
        push_strings(out, &member.client_urls);
    }
}

pub(super) fn decode_member(value: &[u8]) -> Option<Member> {
    serde_json::from_slice::<MemberJson>(value).ok().map(Member::from)
}

pub(super) fn decode_conf_change_context(value: &[u8]) -> Option<(Member, bool)> {
    let json: MemberJson = serde_json::from_slice(value).ok()?;
    let is_promote = json.is_promote;
    Some((json.into(), is_promote))
}

pub(super) fn decode_attributes(value: &[u8]) -> Option<(String, Vec<String>)> {
    let member = decode_member(value)?;
    Some((member.name, member.client_urls))
}

pub(super) fn encode_conf_state(state: &ConfState) -> String {
    let mut out = String::from("{");
    push_ids(&mut out, "voters", &state.voters);
    push_ids(&mut out, "learners", &state.learners);
    out.push_str("\"auto_leave\":false}");
    out
}

pub(super) fn decode_conf_state(value: &[u8]) -> Option<ConfState> {
    serde_json::from_slice(value).ok()
}

pub(super) fn encode_downgrade(downgrade: &Downgrade) -> String {
    let mut out = String::from("{\"target-version\":");
    push_string(&mut out, &downgrade.target_version);
    out.push_str(if downgrade.is_enabled { ",\"enabled\":true}" } else { ",\"enabled\":false}" });
    out
}

pub(super) fn decode_downgrade(value: &[u8]) -> Option<Downgrade> {
    let json: DowngradeJson = serde_json::from_slice(value).ok()?;
    Some(Downgrade { target_version: json.target_version, is_enabled: json.enabled })
}

fn push_ids(out: &mut String, name: &str, ids: &[u64]) {
    if ids.is_empty() {
        return;
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":[");
    for (position, id) in ids.iter().enumerate() {
        push_number(out, if position > 0 { "," } else { "" }, *id);
    }
    out.push_str("],");
}

fn push_number(out: &mut String, prefix: &str, number: u64) {
    write!(out, "{prefix}{number}").expect("writing to a string cannot fail");
}

fn push_strings(out: &mut String, strings: &[String]) {
    out.push('[');
    for (position, string) in strings.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        push_string(out, string);
    }
    out.push(']');
}

/// Go escapes the characters that could end a script element, and both Unicode line separators.
fn push_string(out: &mut String, string: &str) {
    out.push('"');
    for character in string.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(character))
                    .expect("writing to a string cannot fail");
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            id: u64::MAX,
            peer_urls: vec!["http://a:2380?x=1&y=<2>".into()],
            is_learner: true,
            name: "m\"1".into(),
            client_urls: vec![],
        }
    }

    #[test]
    fn members_are_written_as_go_writes_them() {
        assert_eq!(
            encode_member(&member()),
            "{\"id\":18446744073709551615,\"peerURLs\":[\"http://a:2380?x=1\\u0026y=\\u003c2\\u003e\"],\
             \"isLearner\":true,\"name\":\"m\\\"1\"}"
        );
        assert_eq!(decode_member(encode_member(&member()).as_bytes()), Some(member()));
    }

    #[test]
    fn a_promotion_has_null_urls() {
        let promoted = Member { id: 7, ..Member::default() };
        let text = encode_conf_change_context(&promoted, true);
        assert_eq!(text, "{\"id\":7,\"peerURLs\":null,\"isPromote\":true}");
        assert_eq!(decode_conf_change_context(text.as_bytes()), Some((promoted, true)));
    }

    #[test]
    fn conf_state_omits_empty_lists() {
        let state = ConfState { voters: vec![1, 2], learners: vec![] };
        let text = encode_conf_state(&state);
        assert_eq!(text, "{\"voters\":[1,2],\"auto_leave\":false}");
        assert_eq!(decode_conf_state(text.as_bytes()), Some(state));
        assert_eq!(encode_conf_state(&ConfState::default()), "{\"auto_leave\":false}");
    }

    #[test]
    fn downgrade_info_survives_a_round_trip() {
        let info = Downgrade { target_version: "3.6.0".into(), is_enabled: true };
        let text = encode_downgrade(&info);
        assert_eq!(text, "{\"target-version\":\"3.6.0\",\"enabled\":true}");
        assert_eq!(decode_downgrade(text.as_bytes()), Some(info));
    }
}
