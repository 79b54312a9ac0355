//! The target for request frames: from the first bytes on a connection to the decoded body, as the broker goes.
//!
//! Owns what must hold of every frame: an error or a body, and no more memory than what was reserved for it.

use bytes::Bytes;
use keelson_protocol::api::{APIS, ApiSpec};
use keelson_protocol::frame::{
    FRAME_HEAD_BYTES, FrameHead, FrameLimits, RequestHeader, encode_request, parse_head,
};
use keelson_protocol::kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use keelson_protocol::legacy;
use keelson_protocol::safe::{self, DECODED_BYTES_MAX};
use keelson_protocol::specimen::{self, Specimen};

use crate::memory::most_held;

/// What decoding may hold beyond its charge: the words of an error, and what one string's bytes are shared by.
const BESIDE_BYTES: usize = 4 * 1024;
/// The answer to a Produce of a version of the past: its own bound, twice while it grows.
const REFUSAL_BYTES_MAX: usize = 9 * 1024 * 1024;

/// A frame without its length: header and body.
pub(crate) fn frame(input: &[u8]) {
    let Some(head) = head(input) else { return };
    let mut body = Bytes::copy_from_slice(input);
    let (header, held) = most_held(|| RequestHeader::decode(&mut body));
    assert!(held <= BESIDE_BYTES, "a header takes {held} bytes");
    let Ok(header) = header else { return };
    assert_eq!(
        (header.api_key, header.api_version),
        (head.api_key, head.api_version)
    );
    let spec = spec(head.api_key);
    if !spec.supports(head.api_version) {
        return refused(spec, &header, body);
    }
    // A body that is of one version is tried as all others, too: chance alone would seldom come by each.
    for version in spec.min..=spec.max {
        decoded(spec, version, &body);
    }
}

fn spec(api_key: i16) -> &'static ApiSpec {
    keelson_protocol::api::spec(api_key).expect("the head was taken, so the API is served")
}

/// The judgement of the first bytes.
fn head(input: &[u8]) -> Option<FrameHead> {
    let mut first = [0; FRAME_HEAD_BYTES];
    first[..4].copy_from_slice(&(input.len() as u32).to_be_bytes());
    first[4..].copy_from_slice(input.first_chunk::<4>()?);
    let head = parse_head(&first, &FrameLimits::default()).ok()?;
    assert_eq!(head.length, input.len());
    Some(head)
}

fn decoded(spec: &ApiSpec, version: i16, body: &Bytes) {
    let (decoded, held) = most_held(|| specimen::decode(spec, version, body));
    let charge = match &decoded {
        Ok(decoded) => {
            assert!(decoded.body <= body.len());
            decoded.charge_bytes
        }
        // What the decoder refused after the guard had let it pass was charged, too.
        Err(_) => {
            let key = spec.key as i16;
            safe::decoded_bytes(key, version, body, DECODED_BYTES_MAX).unwrap_or(0)
        }
    };
    assert!(
        held <= charge + BESIDE_BYTES,
        "{} v{version}: {held} bytes held, {charge} charged",
        spec.name
    );
}

/// Versions that are not served, of which two APIs have an answer.
fn refused(spec: &ApiSpec, header: &RequestHeader, body: Bytes) {
    let (version, correlation_id) = (header.api_version, header.correlation_id);
    if spec.key == ApiKey::ApiVersions {
        legacy::refuse_api_versions(correlation_id).expect("it always has an answer");
    } else if spec.key == ApiKey::Produce
        && (0..=legacy::PRODUCE_REFUSED_VERSION_MAX).contains(&version)
    {
        let (_, held) = most_held(|| legacy::refuse_produce(version, correlation_id, body));
        assert!(held <= REFUSAL_BYTES_MAX, "a refusal takes {held} bytes");
    }
}

/// One well-formed request of each API and version.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for spec in APIS {
        for version in spec.advertised_min..=spec.max {
            let mut seed = header(spec, version);
            let served = version.max(spec.min);
            seed.extend_from_slice(&Specimen::new(spec, served, 1).body);
            seeds.push(seed);
        }
    }
    seeds
}

/// Key, version, correlation id, client id, and no tagged fields.
fn header(spec: &ApiSpec, version: i16) -> Vec<u8> {
    // The header has no form of its own in public; it stands before every body.
    let versions = ApiVersionsRequest::default();
    let framed = encode_request(ApiKey::ApiVersions as i16, 0, 7, "fuzz", &versions);
    let mut header = framed.expect("it encodes")[4..].to_vec();
    header[..2].copy_from_slice(&(spec.key as i16).to_be_bytes());
    header[2..4].copy_from_slice(&version.to_be_bytes());
    if spec.supports(version) && spec.flexible(version) {
        header.push(0);
    }
    header
}
