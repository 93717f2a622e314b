//! Messages as JSON, by their descriptors (`spec/http-api.md` §2.1).

use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};

use crate::grpc::method::Method;
use crate::grpc::status::{Code, Status};

/// Input and output of one method.
#[derive(Debug, Clone)]
pub struct Shape {
    input: MessageDescriptor,
    output: MessageDescriptor,
}

impl Shape {
    /// Returns the shape of `method`.
    pub fn of(method: Method) -> Self {
        let method = pool()
            .get_service_by_name(method.service())
            .and_then(|service| service.methods().find(|known| known.name() == method.name()))
            .expect("every method that is served is defined");
        Self { input: method.input(), output: method.output() }
    }

    /// Reads one JSON document into an encoded request; an empty one is an empty message.
    pub fn decode(&self, json: &[u8]) -> Result<Bytes, Status> {
        if json.iter().all(u8::is_ascii_whitespace) {
            return Ok(Bytes::new());
        }
        let mut input = serde_json::Deserializer::from_slice(json);
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message =
            DynamicMessage::deserialize_with_options(self.input.clone(), &mut input, &options)
                .map_err(|error| malformed(&error))?;
        input.end().map_err(|error| malformed(&error))?;
        Ok(message.encode_to_vec().into())
    }

    /// Writes an encoded response as JSON.
    pub fn encode(&self, message: Bytes) -> Result<Vec<u8>, Status> {
        let message = DynamicMessage::decode(self.output.clone(), message)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let mut json = Vec::new();
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .skip_default_fields(true)
            .stringify_64_bit_integers(true);
        message
            .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        Ok(json)
    }
}

fn malformed(error: &serde_json::Error) -> Status {
    Status::new(Code::InvalidArgument, format!("proto: {error}"))
}

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        DescriptorPool::decode(proto::DESCRIPTORS).expect("the generated descriptors are valid")
    })
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb as pb;

    use super::*;

    #[test]
    fn requests_are_read_in_both_spellings_and_unknown_fields_are_passed_over() {
        let json = br#"{"key":"Zm9v","rangeEnd":"Zm9w","sort_order":"DESCEND","limit":"5","revision":3,"what":1}"#;
        let message = Shape::of(Method::Range).decode(json).expect("valid");
        let request = pb::RangeRequest::decode(message).expect("valid");
        assert_eq!((&request.key[..], &request.range_end[..]), (&b"foo"[..], &b"fop"[..]));
        assert_eq!((request.limit, request.revision, request.sort_order), (5, 3, 2));
    }

    #[test]
    fn responses_use_proto_names_strings_for_64_bits_and_no_defaults() {
        let response = pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader { revision: 7, ..Default::default() }),
            id: 1,
            ttl: -1,
            granted_ttl: 0,
            keys: vec!["a".into()],
        };
        let json = Shape::of(Method::LeaseTimeToLive).encode(response.encode_to_vec().into());
        let json = String::from_utf8(json.expect("valid")).expect("text");
        assert_eq!(json, r#"{"header":{"revision":"7"},"ID":"1","TTL":"-1","keys":["YQ=="]}"#);
    }

    #[test]
    fn malformed_documents_are_refused() {
        let shape = Shape::of(Method::Put);
        for json in [&b"{"[..], b"[]", br#"{"key":"%%"}"#, br#"{"lease":"x"}"#, b"{} {}"] {
            assert_eq!(shape.decode(json).expect_err("malformed").code, Code::InvalidArgument);
        }
        assert_eq!(shape.decode(b" \n"), Ok(Bytes::new()));
    }
}
