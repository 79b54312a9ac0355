//! What several APIs need to fill their answers. It owns no API.

use std::path::PathBuf;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;

/// "Not asked for", in fields of authorised operations.
pub(super) const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Bits of every operation on a topic: read, write, create, delete, alter, describe, and configs (KIP-430).
pub(super) const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// Why ACLs can neither be listed nor made.
pub(super) const NO_AUTHORIZER_ON_BROKER: &str = "No Authorizer is configured on the broker";

/// Why ACLs cannot be removed; Kafka has these two texts, too.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

/// The code of "no error".
pub(super) const NONE: i16 = 0;

/// The data directory as an absolute path, which clients take for its name.
pub(super) fn log_dir(broker: &Broker) -> PathBuf {
    let given = broker.log.data_dir();
    std::path::absolute(given).unwrap_or_else(|_| given.to_owned())
}

/// A string of ours as the protocol holds it.
pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// The first error among the codes of an answer.
pub(super) fn first_error(codes: impl IntoIterator<Item = i16>) -> Option<ErrorCode> {
    let mut codes = codes.into_iter();
    codes
        .find(|code| *code != NONE)
        .and_then(ErrorCode::try_from_code)
}

/// The code of an error, or 0.
pub(super) fn code(error: Option<ErrorCode>) -> i16 {
    error.map_or(NONE, |error| error.code())
}
