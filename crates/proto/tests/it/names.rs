//! All names, numbers and types of etcd 3.7.1 (`testdata/names.txt`) against `proto::DESCRIPTORS`.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

/// What etcd 3.7 removed and the logs of older members hold.
const LEGACY: [&str; 19] = [
    "etcdserverpb.InternalRaftRequest.v2 = 2 etcdserverpb.Request",
    "message etcdserverpb.Request",
    "etcdserverpb.Request.ID = 1 uint64",
    "etcdserverpb.Request.Method = 2 string",
    "etcdserverpb.Request.Path = 3 string",
    "etcdserverpb.Request.Val = 4 string",
    "etcdserverpb.Request.Dir = 5 bool",
    "etcdserverpb.Request.PrevValue = 6 string",
    "etcdserverpb.Request.PrevIndex = 7 uint64",
    "etcdserverpb.Request.PrevExist = 8 bool",
    "etcdserverpb.Request.Expiration = 9 int64",
    "etcdserverpb.Request.Wait = 10 bool",
    "etcdserverpb.Request.Since = 11 uint64",
    "etcdserverpb.Request.Recursive = 12 bool",
    "etcdserverpb.Request.Sorted = 13 bool",
    "etcdserverpb.Request.Quorum = 14 bool",
    "etcdserverpb.Request.Time = 15 int64",
    "etcdserverpb.Request.Stream = 16 bool",
    "etcdserverpb.Request.Refresh = 17 bool",
];

#[test]
fn names_numbers_and_types_are_those_of_etcd() {
    let expected: BTreeSet<String> = include_str!("../../testdata/names.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .chain(LEGACY)
        .map(str::to_owned)
        .collect();
    let actual = describe();
    let missing: Vec<&String> = expected.difference(&actual).collect();
    let surplus: Vec<&String> = actual.difference(&expected).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}, surplus {surplus:#?}");
    assert!(expected.len() > 600, "the list is not empty: {}", expected.len());
}

fn describe() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let mut lines = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        file.enum_type.iter().for_each(|kind| describe_enum(package, kind, &mut lines));
        file.message_type.iter().for_each(|kind| describe_message(package, kind, &mut lines));
        file.service.iter().for_each(|service| describe_service(package, service, &mut lines));
    }
    lines
}

fn describe_enum(scope: &str, kind: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &kind.value {
        lines.insert(format!("{scope}.{}.{} = {}", kind.name(), value.name(), value.number()));
    }
}

fn describe_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let scope = format!("{scope}.{}", message.name());
    lines.insert(format!("message {scope}"));
    for field in &message.field {
        let text = describe_type(message, field);
        lines.insert(format!("{scope}.{} = {} {text}", field.name(), field.number()));
    }
    message.enum_type.iter().for_each(|kind| describe_enum(&scope, kind, lines));
    message.nested_type.iter().for_each(|kind| describe_message(&scope, kind, lines));
}

fn describe_type(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let mut text = String::new();
    if let Some(index) = field.oneof_index {
        let oneof = &message.oneof_decl[usize::try_from(index).unwrap()];
        text.push_str("oneof ");
        text.push_str(oneof.name());
        text.push(' ');
    }
    if field.label() == Label::Repeated {
        text.push_str("repeated ");
    }
    text.push_str(match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.'),
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Uint32 => "uint32",
        Type::Uint64 => "uint64",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        other => panic!("etcd has no field of type {other:?}"),
    });
    text
}

fn describe_service(scope: &str, service: &ServiceDescriptorProto, lines: &mut BTreeSet<String>) {
    let side = |streams: bool, name: &str| {
        format!("{}{}", if streams { "stream " } else { "" }, name.trim_start_matches('.'))
    };
    for method in &service.method {
        lines.insert(format!(
            "rpc {scope}.{}/{} ({}) returns ({})",
            service.name(),
            method.name(),
            side(method.client_streaming(), method.input_type()),
            side(method.server_streaming(), method.output_type()),
        ));
    }
}
