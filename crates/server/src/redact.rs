//! Requests as lines of the log show them: as etcd's stringers do, with the size of a value in its place.
//!
//! Two notations, as in etcd: protobuf's text form for what holds no value (`key:"a"  limit:3`), and an older one for
//! what does (`key:"a" value_size:1 `). Passwords and tokens have no place in either.

use std::fmt::{self, Display, Write as _};

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    AlarmRequest, AlarmType, Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest,
    RangeRequest, RequestHeader, RequestOp, TxnRequest,
};

/// Shows a log entry's request.
pub(crate) fn entry(request: &InternalRaftRequest) -> String {
    let header = request.header.as_ref().map(header).unwrap_or_default();
    if let Some(grant) = &request.lease_grant {
        return format!(
            "header:<{header}> lease_grant:<ttl:{}-second id:{:016x}>",
            grant.ttl, grant.id
        );
    }
    if let Some(revoke) = &request.lease_revoke {
        return format!("header:<{header}> lease_revoke:<id:{:016x}>", revoke.id);
    }
    if let Some(request) = &request.put {
        return format!("header:<{header}> put:<{}>", put(request));
    }
    if let Some(request) = &request.txn {
        return format!("header:<{header}> txn:<{}>", txn(request));
    }
    let mut fields = Fields::new(Notation::Text);
    fields.message("header", &header);
    plain_payload(request, &mut fields);
    fields.text
}

/// Payloads without anything to hide. Others, such as those of Auth, are left out.
fn plain_payload(request: &InternalRaftRequest, fields: &mut Fields) {
    if let Some(request) = &request.range {
        fields.message("range", &range(request));
    }
    if let Some(request) = &request.delete_range {
        fields.message("delete_range", &delete_range(request));
    }
    if let Some(request) = &request.compaction {
        let inner = Fields::new(Notation::Text)
            .number("revision", request.revision)
            .flag("physical", request.physical);
        fields.message("compaction", &inner.text);
    }
    if let Some(request) = &request.alarm {
        fields.message("alarm", &alarm(request));
    }
    if let Some(request) = &request.lease_checkpoint {
        let mut inner = Fields::new(Notation::Text);
        for checkpoint in &request.checkpoints {
            let checkpoint = Fields::new(Notation::Text)
                .number("ID", checkpoint.id)
                .number("remaining_TTL", checkpoint.remaining_ttl);
            inner.message("checkpoints", &checkpoint.text);
        }
        fields.message("lease_checkpoint", &inner.text);
    }
    if let Some(request) = &request.cluster_version_set {
        let inner = Fields::new(Notation::Text).bytes("ver", request.ver.as_bytes());
        fields.message("cluster_version_set", &inner.text);
    }
    if let Some(request) = &request.cluster_member_attr_set {
        let mut inner = Fields::new(Notation::Text).number("member_ID", request.member_id);
        if let Some(attributes) = &request.member_attributes {
            let mut shown = Fields::new(Notation::Text).bytes("name", attributes.name.as_bytes());
            for url in &attributes.client_urls {
                shown = shown.bytes("client_urls", url.as_bytes());
            }
            inner.message("member_attributes", &shown.text);
        }
        fields.message("cluster_member_attr_set", &inner.text);
    }
    if let Some(request) = &request.downgrade_info_set {
        let inner = Fields::new(Notation::Text)
            .flag("enabled", request.enabled)
            .bytes("ver", request.ver.as_bytes());
        fields.message("downgrade_info_set", &inner.text);
    }
}

fn header(header: &RequestHeader) -> String {
    let fields = Fields::new(Notation::Text)
        .number("ID", header.id)
        .bytes("username", header.username.as_bytes())
        .number("auth_revision", header.auth_revision);
    fields.text
}

/// Shows a range.
pub(crate) fn range(request: &RangeRequest) -> String {
    let order = SortOrder::try_from(request.sort_order).map(|order| order.as_str_name());
    let target = SortTarget::try_from(request.sort_target).map(|target| target.as_str_name());
    let fields = Fields::new(Notation::Text)
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .number("limit", request.limit)
        .number("revision", request.revision)
        .choice("sort_order", request.sort_order, order.ok())
        .choice("sort_target", request.sort_target, target.ok())
        .flag("serializable", request.serializable)
        .flag("keys_only", request.keys_only)
        .flag("count_only", request.count_only)
        .number("min_mod_revision", request.min_mod_revision)
        .number("max_mod_revision", request.max_mod_revision)
        .number("min_create_revision", request.min_create_revision)
        .number("max_create_revision", request.max_create_revision);
    fields.text
}

/// Shows a put without its value.
pub(crate) fn put(request: &PutRequest) -> String {
    let fields = Fields::new(Notation::Redacted)
        .bytes("key", &request.key)
        .number("value_size", request.value.len())
        .number("lease", request.lease)
        .flag("prev_kv", request.prev_kv)
        .flag("ignore_value", request.ignore_value)
        .flag("ignore_lease", request.ignore_lease);
    fields.text
}

/// Shows a range deletion.
pub(crate) fn delete_range(request: &DeleteRangeRequest) -> String {
    let fields = Fields::new(Notation::Text)
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .flag("prev_kv", request.prev_kv);
    fields.text
}

/// Shows a transaction without values.
pub(crate) fn txn(request: &TxnRequest) -> String {
    let joined = |texts: Vec<String>| texts.join(" ");
    format!(
        "compare:<{}> success:<{}> failure:<{}>",
        joined(request.compare.iter().map(compare).collect()),
        joined(request.success.iter().map(operation).collect()),
        joined(request.failure.iter().map(operation).collect()),
    )
}

fn operation(operation: &RequestOp) -> String {
    match &operation.request {
        Some(Request::RequestPut(request)) => format!("request_put:<{}>", put(request)),
        Some(Request::RequestTxn(request)) => format!("request_txn:<{}>", txn(request)),
        Some(Request::RequestRange(request)) => format!("request_range:{{{}}}", range(request)),
        Some(Request::RequestDeleteRange(request)) => {
            format!("request_delete_range:{{{}}}", delete_range(request))
        }
        None => String::new(),
    }
}

fn compare(compare: &Compare) -> String {
    let is_value = matches!(compare.target_union, Some(TargetUnion::Value(_)));
    let notation = if is_value { Notation::Redacted } else { Notation::Text };
    let result = CompareResult::try_from(compare.result).map(|result| result.as_str_name());
    let target = CompareTarget::try_from(compare.target).map(|target| target.as_str_name());
    let mut fields = Fields::new(notation)
        .choice("result", compare.result, result.ok())
        .choice("target", compare.target, target.ok())
        .bytes("key", &compare.key);
    match &compare.target_union {
        Some(TargetUnion::Value(value)) => fields = fields.number("value_size", value.len()),
        Some(TargetUnion::Version(version)) => fields.put("version", version),
        Some(TargetUnion::CreateRevision(revision)) => fields.put("create_revision", revision),
        Some(TargetUnion::ModRevision(revision)) => fields.put("mod_revision", revision),
        Some(TargetUnion::Lease(lease)) => fields.put("lease", lease),
        None => {}
    }
    fields.bytes("range_end", &compare.range_end).text
}

fn alarm(request: &AlarmRequest) -> String {
    let action = AlarmAction::try_from(request.action).map(|action| action.as_str_name());
    let kind = AlarmType::try_from(request.alarm).map(|kind| kind.as_str_name());
    let fields = Fields::new(Notation::Text)
        .choice("action", request.action, action.ok())
        .number("memberID", request.member_id)
        .choice("alarm", request.alarm, kind.ok());
    fields.text
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    Text,
    Redacted,
}

/// Writes fields one after the other; those with their default value are left out.
#[derive(Debug)]
struct Fields {
    text: String,
    notation: Notation,
}

impl Fields {
    fn new(notation: Notation) -> Self {
        Self { text: String::new(), notation }
    }

    fn put(&mut self, name: &str, value: impl Display) {
        let (before, after) = match self.notation {
            Notation::Text if self.text.is_empty() => ("", ""),
            Notation::Text => ("  ", ""),
            Notation::Redacted => ("", " "),
        };
        write!(self.text, "{before}{name}:{value}{after}").expect("a string takes all");
    }

    fn message(&mut self, name: &str, inner: &str) {
        self.put(name, format_args!("{{{inner}}}"));
    }

    fn number<N: Display + Default + PartialEq>(mut self, name: &str, number: N) -> Self {
        if number != N::default() {
            self.put(name, number);
        }
        self
    }

    fn flag(mut self, name: &str, flag: bool) -> Self {
        if flag {
            self.put(name, true);
        }
        self
    }

    /// An enumeration's value, by its name if it has one.
    fn choice(self, name: &str, number: i32, known: Option<&str>) -> Self {
        match known {
            Some(known) if number != 0 => {
                let mut fields = self;
                fields.put(name, known);
                fields
            }
            _ => self.number(name, number),
        }
    }

    fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            let quoted = Quoted { bytes, notation: self.notation };
            self.put(name, quoted);
        }
        self
    }
}

/// Bytes in quotes, with what is not readable escaped.
struct Quoted<'a> {
    bytes: &'a [u8],
    notation: Notation,
}

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        match self.notation {
            Notation::Redacted => self.bytes.iter().try_for_each(|byte| match byte {
                b' '..=b'~' | b'\n' | b'\r' | b'\t' => f.write_str(&escaped(char::from(*byte))),
                other => write!(f, "\\{other:03o}"),
            })?,
            Notation::Text => {
                for chunk in self.bytes.utf8_chunks() {
                    chunk.valid().chars().try_for_each(|letter| f.write_str(&escaped(letter)))?;
                    chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
                }
            }
        }
        f.write_char('"')
    }
}

fn escaped(letter: char) -> String {
    match letter {
        '"' | '\\' => format!("\\{letter}"),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\0'..='\x1f' | '\x7f' => format!("\\x{:02x}", u32::from(letter)),
        '\u{80}'..='\u{9f}' => format!("\\u{:04x}", u32::from(letter)),
        _ => letter.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::{CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest};
    use proto::membershippb::{Attributes, ClusterMemberAttrSetRequest};

    use super::*;

    fn logged(request: InternalRaftRequest) -> String {
        let header = RequestHeader { id: 1_353_509_966_987_090_435, ..RequestHeader::default() };
        entry(&InternalRaftRequest { header: Some(header), ..request })
    }

    /// The texts are those of a real etcd's log.
    #[test]
    fn entries_read_as_in_etcd() {
        let put = PutRequest {
            key: "k\"é".into(),
            value: "v\nx".into(),
            prev_kv: true,
            ..PutRequest::default()
        };
        let expected =
            r#"header:<ID:1353509966987090435> put:<key:"k\"\303\251" value_size:3 prev_kv:true >"#;
        let request = InternalRaftRequest { put: Some(put), ..InternalRaftRequest::default() };
        assert_eq!(logged(request), expected);
        let lease_grant = Some(LeaseGrantRequest { ttl: 100, id: 0x12c8_a224_ce37_5a05 });
        let request = InternalRaftRequest { lease_grant, ..InternalRaftRequest::default() };
        let expected =
            "header:<ID:1353509966987090435> lease_grant:<ttl:100-second id:12c8a224ce375a05>";
        assert_eq!(logged(request), expected);
        let lease_revoke = Some(LeaseRevokeRequest { id: 0x77 });
        let request = InternalRaftRequest { lease_revoke, ..InternalRaftRequest::default() };
        let expected = "header:<ID:1353509966987090435> lease_revoke:<id:0000000000000077>";
        assert_eq!(logged(request), expected);
        let compaction = Some(CompactionRequest { revision: 4, physical: false });
        let request = InternalRaftRequest { compaction, ..InternalRaftRequest::default() };
        assert_eq!(logged(request), "header:{ID:1353509966987090435}  compaction:{revision:4}");
        let alarm = Some(AlarmRequest::default());
        let request = InternalRaftRequest { alarm, ..InternalRaftRequest::default() };
        assert_eq!(logged(request), "header:{ID:1353509966987090435}  alarm:{}");
        let attributes = Attributes {
            name: "default".into(),
            client_urls: vec!["http://127.0.0.1:2379".into()],
        };
        let cluster_member_attr_set =
            Some(ClusterMemberAttrSetRequest { member_id: 7, member_attributes: Some(attributes) });
        let request =
            InternalRaftRequest { cluster_member_attr_set, ..InternalRaftRequest::default() };
        let expected = r#"header:{ID:1353509966987090435}  cluster_member_attr_set:{member_ID:7  member_attributes:{name:"default"  client_urls:"http://127.0.0.1:2379"}}"#;
        assert_eq!(logged(request), expected);
    }

    #[test]
    fn a_range_reads_as_in_etcd() {
        let request = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            limit: 3,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Mod.into(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let expected = r#"key:"\x00"  range_end:"\x00"  limit:3  sort_order:DESCEND  sort_target:MOD  keys_only:true"#;
        assert_eq!(range(&request), expected);
        let odd = RangeRequest {
            key: b"\xff\"\xc3\xa9\n".as_slice().into(),
            sort_order: 9,
            ..RangeRequest::default()
        };
        assert_eq!(range(&odd), r#"key:"\xff\"é\n"  sort_order:9"#);
    }

    #[test]
    fn a_transaction_shows_sizes_in_place_of_values() {
        let op = |request| RequestOp { request: Some(request) };
        let secret =
            PutRequest { key: "a".into(), value: "secret".into(), ..PutRequest::default() };
        let value = Compare {
            target: CompareTarget::Value.into(),
            result: CompareResult::NotEqual.into(),
            key: "a".into(),
            target_union: Some(TargetUnion::Value("secret".into())),
            ..Compare::default()
        };
        let create = Compare {
            target: CompareTarget::Create.into(),
            key: "q".into(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..Compare::default()
        };
        let nested = TxnRequest {
            success: vec![op(Request::RequestPut(secret.clone()))],
            ..TxnRequest::default()
        };
        let range = RangeRequest { key: "b".into(), ..RangeRequest::default() };
        let request = TxnRequest {
            compare: vec![value, create],
            success: vec![op(Request::RequestPut(secret)), op(Request::RequestTxn(nested))],
            failure: vec![op(Request::RequestRange(range))],
        };
        let text = txn(&request);
        assert!(!text.contains("secret"), "{text}");
        let expected = concat!(
            r#"compare:<result:NOT_EQUAL target:VALUE key:"a" value_size:6  "#,
            r#"target:CREATE  key:"q"  create_revision:0> "#,
            r#"success:<request_put:<key:"a" value_size:6 > "#,
            r#"request_txn:<compare:<> success:<request_put:<key:"a" value_size:6 >> failure:<>>> "#,
            r#"failure:<request_range:{key:"b"}>"#
        );
        assert_eq!(text, expected);
    }
}
