//! The differences that are known and intended, each with its reason; `docs/compatibility.md` mirrors them.
//!
//! They are looked at only after a strict comparison failed, and counted, so that a run tells how often each was met.

use super::compare::Exchange;
use super::generate::Call;
use crate::grpc::Answer;

const INTERNAL: &str = "13";
/// What our protobuf library says of a known field with another wire type.
pub(crate) const WRONG_WIRE_TYPE: &str = "invalid wire type";

/// One intended difference.
pub(crate) struct Known {
    /// As in `docs/compatibility.md`.
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    applies: fn(&Exchange<'_>) -> bool,
}

pub(crate) static KNOWN: [Known; 4] = [
    Known {
        name: "Texts of protobuf and JSON parse errors",
        reason: "both refuse the bytes with Internal; what follows `grpc: error unmarshalling request:` is the \
                 text of the protobuf library",
        applies: |exchange| match exchange {
            Exchange::Grpc { call, reference, subject } => unreadable(call, reference, subject),
            Exchange::Gateway { .. } => false,
        },
    },
    Known {
        name: "A known field with another wire type",
        reason: "etcd passes over it as over an unknown field, here the message is refused",
        applies: |exchange| match exchange {
            Exchange::Grpc { call, subject, .. } => {
                call.malformed
                    && call.method.reads
                    && subject.code == INTERNAL
                    && subject.text.contains(WRONG_WIRE_TYPE)
            }
            Exchange::Gateway { .. } => false,
        },
    },
    Known {
        name: "A JSON field given twice",
        reason: "etcd refuses the body; here the last value counts, as JSON libraries commonly have it",
        applies: |exchange| match exchange {
            Exchange::Grpc { .. } => false,
            Exchange::Gateway { reference, subject, .. } => {
                let twice = |value: &serde_json::Value| {
                    value["message"].as_str().is_some_and(|text| text.contains("duplicate field"))
                };
                subject.status == 200
                    && reference.status == 400
                    && reference.values.iter().all(twice)
            }
        },
    },
    Known {
        name: "Texts of protobuf and JSON parse errors",
        reason: "both refuse the body with 400 and code 3; the text is that of the JSON library, and etcd's own \
                 varies from build to build on purpose",
        applies: |exchange| match exchange {
            Exchange::Grpc { .. } => false,
            Exchange::Gateway { reference, subject, .. } => {
                let refused = |value: &serde_json::Value| value["code"] == 3;
                reference.status == 400
                    && subject.status == 400
                    && reference.kind == subject.kind
                    && reference.values.len() == subject.values.len()
                    && reference.values.iter().all(refused)
                    && subject.values.iter().all(refused)
                    && reference.values.iter().all(|value| {
                        // etcd's own refusals have exact texts.
                        value["message"]
                            .as_str()
                            .is_some_and(|text| !text.starts_with("etcdserver:"))
                    })
            }
        },
    },
];

fn unreadable(call: &Call, reference: &Answer, subject: &Answer) -> bool {
    const START: &str = "grpc: error unmarshalling request: ";
    call.malformed
        && [reference, subject]
            .iter()
            .all(|answer| answer.code == INTERNAL && answer.text.starts_with(START))
}

/// Returns which known difference this is.
pub(crate) fn find(exchange: &Exchange<'_>) -> Option<usize> {
    KNOWN.iter().position(|known| (known.applies)(exchange))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_difference_is_in_the_document() {
        let document = include_str!("../../../../docs/compatibility.md");
        for known in &KNOWN {
            assert!(document.contains(known.name), "{}", known.name);
        }
    }
}
