//! What several APIs need to fill their answers. It owns no API.

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::protocol::StrBytes;

/// "Not asked for", in fields of authorised operations.
pub(super) const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// The code of "no error".
pub(super) const NONE: i16 = 0;

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
