//! The configuration file: YAML or JSON.
//!
//! etcd decodes it with Go's JSON decoder, whose habits show: keys match in any case, `null` leaves
//! a default, unknown keys are ignored, durations are integer nanoseconds, and a value of another
//! type is an error that names a Go type.

use std::io::Read;
use std::path::Path;

use super::duration::GoDuration;
use super::exit::Exit;
use super::flag::{Flag, Kind, Place, Value};
use super::settings::Settings;
use super::table;
use super::tree::Tree;
use super::url::Url;

/// A configuration file has no reason to be larger; a device or a log by mistake would not end.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads `path` into settings.
pub(super) fn read(path: &Path) -> Result<Settings, Exit> {
    let text = read_text(path).map_err(|(operation, error)| {
        let reason = crate::logging::io_text(&error);
        Exit::invalid(format!("{operation} {}: {reason}", path.display()))
    })?;
    parse(&text)
}

/// The text, or the operation that failed.
fn read_text(path: &Path) -> Result<String, (&'static str, std::io::Error)> {
    let file = std::fs::File::open(path).map_err(|error| ("open", error))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| ("read", error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let limit = format!("a configuration file may have at most {FILE_BYTES_MAX} bytes");
        return Err(("read", std::io::Error::new(std::io::ErrorKind::FileTooLarge, limit)));
    }
    Ok(text)
}

/// Decodes a document into settings.
pub(super) fn parse(text: &str) -> Result<Settings, Exit> {
    let tree: Tree = serde_yaml_ng::from_str(text)
        .map_err(|error| Exit::invalid(format!("error converting YAML to JSON: yaml: {error}")))?;
    let mut settings = Settings::default();
    match &tree {
        Tree::Null => {}
        Tree::Map(entries) => {
            let mut flags: Vec<_> = table::all()
                .chain(table::FILE_ONLY)
                .filter_map(|flag| Some((path_of(flag)?, flag)))
                .collect();
            // Go's decoder meets the keys in this order and reports the first error.
            flags.sort_by(|(one, _), (other, _)| one.cmp(other));
            for (path, flag) in flags {
                if let Some(value) = look_up(entries, &path, flag)? {
                    take(&mut settings, flag, &path, value)?;
                }
            }
            mark_deprecated(&mut settings, entries);
        }
        other => {
            return Err(decoding(&format!(
                "cannot unmarshal {} into Go value of type embed.configYAML",
                other.kind()
            )));
        }
    }
    Ok(settings)
}

/// `v2-deprecation` has no effect wherever it is written, but is worth its warning.
fn mark_deprecated(settings: &mut Settings, entries: &[(String, Tree)]) {
    if entries.iter().any(|(key, _value)| key == "v2-deprecation") {
        settings.mark("v2-deprecation");
    }
}

fn path_of(flag: &'static Flag) -> Option<Vec<&'static str>> {
    match flag.place {
        Place::Nowhere => None,
        Place::Top(_) => Some(vec![flag.name]),
        Place::Under(path, _) => Some(path.to_vec()),
    }
}

/// Finds the value at `path`; `null` on the way, or nothing, is `None`.
fn look_up<'a>(
    entries: &'a [(String, Tree)],
    path: &[&str],
    flag: &Flag,
) -> Result<Option<&'a Tree>, Exit> {
    let mut entries = entries;
    for (depth, key) in path.iter().enumerate() {
        let Some(found) = get(entries, key) else { return Ok(None) };
        if depth + 1 == path.len() {
            return Ok(Some(found).filter(|tree| **tree != Tree::Null));
        }
        match found {
            Tree::Map(inner) => entries = inner,
            Tree::Null => return Ok(None),
            other => return Err(group_mismatch(&path[..=depth], flag, other)),
        }
    }
    Ok(None)
}

/// The exact key, else the last that differs only in case.
fn get<'a>(entries: &'a [(String, Tree)], key: &str) -> Option<&'a Tree> {
    let exact = entries.iter().rev().find(|(name, _value)| name == key);
    exact
        .or_else(|| entries.iter().rev().find(|(name, _value)| name.eq_ignore_ascii_case(key)))
        .map(|(_name, value)| value)
}

/// Sets `flag` from `tree`, or says why that is not possible in Go's words.
fn take(
    settings: &mut Settings,
    flag: &'static Flag,
    path: &[&str],
    tree: &Tree,
) -> Result<(), Exit> {
    let is_text = matches!(flag.kind, Kind::Urls | Kind::Origins | Kind::Hosts | Kind::Gates);
    if let (true, Tree::Text(text)) = (is_text, tree) {
        return take_text(settings, flag, text);
    }
    let value = convert(flag.kind, tree).map_err(|Mismatch { go_type, found }| {
        let owner = match flag.place {
            Place::Top(owner) | Place::Under(_, owner) => owner,
            Place::Nowhere => "",
        };
        decoding(&format!(
            "cannot unmarshal {found} into Go struct field {owner}.{} of type {go_type}",
            path.join(".")
        ))
    })?;
    settings.put(flag.name, value);
    settings.mark(flag.name);
    Ok(())
}

/// A value of another type than the one that Go expects.
struct Mismatch {
    go_type: &'static str,
    found: String,
}

fn convert(kind: Kind, tree: &Tree) -> Result<Value, Mismatch> {
    let mismatch = |go_type| Mismatch { go_type, found: tree.kind().to_owned() };
    let wrong_number = |go_type| Mismatch { go_type, found: tree.digits() };
    let unsigned = |go_type, max| {
        let number = tree.integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| *number <= max);
        number.map(Value::Unsigned).ok_or_else(|| wrong_number(go_type))
    };
    let signed = |go_type| {
        let number = tree.integer().and_then(|number| i64::try_from(number).ok());
        number.ok_or_else(|| wrong_number(go_type))
    };
    match kind {
        Kind::Bool => match tree {
            Tree::Bool(on) => Ok(Value::Bool(*on)),
            Tree::Text(text) => old_bool(text).map(Value::Bool).ok_or_else(|| mismatch("bool")),
            _ => Err(mismatch("bool")),
        },
        Kind::Uint => unsigned("uint", u64::MAX),
        Kind::Uint64 => unsigned("uint64", u64::MAX),
        Kind::Uint32 => unsigned("uint32", u64::from(u32::MAX)),
        Kind::Int => signed("int").map(Value::Signed),
        Kind::Int64 => signed("int64").map(Value::Signed),
        Kind::Duration => {
            signed("time.Duration").map(|nanos| Value::Duration(GoDuration::from_nanos(nanos)))
        }
        Kind::Words | Kind::UniqueWords => match tree {
            Tree::List(items) => words(items).map(Value::Words),
            _ => Err(mismatch("[]string")),
        },
        Kind::Ignored => Ok(Value::Nothing),
        Kind::Text
        | Kind::Choice(_)
        | Kind::Choices(_)
        | Kind::Urls
        | Kind::Origins
        | Kind::Hosts
        | Kind::Gates => match tree {
            Tree::Text(text) => Ok(Value::Text(text.clone())),
            _ => Err(mismatch("string")),
        },
    }
}

/// Lists and gates that a file writes as one text; an empty one leaves the default.
fn take_text(settings: &mut Settings, flag: &'static Flag, text: &str) -> Result<(), Exit> {
    settings.mark(flag.name);
    if text.is_empty() {
        return Ok(());
    }
    if flag.kind == Kind::Urls {
        // Unlike on the command line, equal URLs stay; they are refused or merged where it matters.
        let urls = Url::parse_list(text).map_err(|error| {
            // The one key whose message has another name in etcd.
            let key = match flag.name {
                "advertise-client-urls" => "advertise-peer-urls",
                name => name,
            };
            Exit::plain(1, &format!("unexpected error setting up {key}: {error}"))
        })?;
        settings.put(flag.name, Value::Urls(urls));
        return Ok(());
    }
    settings.set(flag, text).map_err(|error| match flag.kind {
        // etcd panics here, which is exit code 2.
        Kind::Origins => Exit::plain(2, &format!("invalid value {text:?} for cors: {error}")),
        _ => Exit::invalid(error),
    })
}

fn words(items: &[Tree]) -> Result<Vec<String>, Mismatch> {
    let mut words = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Tree::Text(text) => words.push(text.clone()),
            Tree::Null => words.push(String::new()),
            other => {
                return Err(Mismatch { go_type: "string", found: other.kind().to_owned() });
            }
        }
    }
    Ok(words)
}

/// YAML 1.1 has more words for a bool than 1.2.
fn old_bool(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn group_mismatch(path: &[&str], flag: &Flag, found: &Tree) -> Exit {
    let (owner, go_type) = match path {
        ["client-transport-security" | "peer-transport-security"] => {
            ("configYAML.configJSON", "embed.securityConfig")
        }
        ["socket-options"] => ("configYAML.Config", "transport.SocketOpts"),
        ["discovery-config"] => ("configYAML.Config", "v3discovery.DiscoveryConfig"),
        ["discovery-config", "client"] => ("DiscoveryConfig.Config", "clientv3.ConfigSpec"),
        ["discovery-config", "client", "secure"] => ("ConfigSpec.Config", "clientv3.SecureConfig"),
        ["discovery-config", "client", "auth"] => ("ConfigSpec.Config", "clientv3.AuthConfig"),
        _ => ("configYAML.Config", flag.name),
    };
    decoding(&format!(
        "cannot unmarshal {} into Go struct field {owner}.{} of type {go_type}",
        found.kind(),
        path.join(".")
    ))
}

fn decoding(what: &str) -> Exit {
    Exit::invalid(format!("error unmarshaling JSON: while decoding JSON: json: {what}"))
}
