//! Request bodies: the shapes agree with the decoder in every version, and nothing hostile gets past the guard.

use bytes::Bytes;
use kafka_protocol::messages::*;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::api::{APIS, ApiSpec, spec};
use crate::safe::{self, DECODED_BYTES_MAX, DecodeError};
use crate::specimen::{self, Specimen, Width};

/// Decodes behind the guard; gives the bytes that the decoder consumed.
fn decode(spec: &ApiSpec, version: i16, body: &[u8]) -> Result<usize, DecodeError> {
    let body = Bytes::copy_from_slice(body);
    specimen::decode(spec, version, &body).map(|decoded| decoded.body)
}

fn every_version() -> impl Iterator<Item = (&'static ApiSpec, i16)> {
    APIS.iter()
        .flat_map(|spec| (spec.min..=spec.max).map(move |version| (spec, version)))
}

#[test]
fn shapes_agree_with_the_decoder_in_every_version() {
    for (spec, version) in every_version() {
        assert!(
            spec.key.valid_versions().min <= spec.min && spec.key.valid_versions().max >= spec.max
        );
        for elements in 0..4 {
            let body = Specimen::new(spec, version, elements).body;
            let consumed = decode(spec, version, &body);
            assert_eq!(
                consumed,
                Ok(body.len()),
                "{} v{version} with {elements} elements",
                spec.name
            );
            let walked = safe::walk(spec.key as i16, version, &body, DECODED_BYTES_MAX).unwrap();
            assert_eq!(walked.1, body.len(), "{} v{version}", spec.name);
            for cut in 0..body.len() {
                assert!(
                    decode(spec, version, &body[..cut]).is_err(),
                    "{} v{version} cut at {cut}",
                    spec.name
                );
            }
        }
    }
}

#[test]
fn f_every_hostile_count_and_length_is_an_error_in_every_version() {
    for (spec, version) in every_version() {
        let specimen = Specimen::new(spec, version, 2);
        for mark in &specimen.marks {
            let huge: &[u32] = match mark.width {
                Width::I16 => &[0x7fff, 0x8000, 0xfffe],
                Width::I32 => &[0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0x00ff_ffff, 0x1_0000],
                Width::Compact | Width::Varint => {
                    &[u32::MAX, u32::MAX - 1, 0x8000_0000, 0x7fff_ffff, 0x1_0000]
                }
            };
            for raw in huge {
                let body = specimen.with(mark, *raw);
                let result = decode(spec, version, &body);
                assert!(
                    result.is_err(),
                    "{} v{version} {} = {raw:#x}: {result:?}",
                    spec.name,
                    mark.field
                );
            }
            // Null, zero and small lies: any answer, but an answer.
            for raw in [0, 1, 3, 0xffff_ffff] {
                if let Ok(consumed) = decode(spec, version, &specimen.with(mark, raw)) {
                    assert!(consumed <= specimen.body.len() + 8);
                }
            }
        }
    }
}

#[test]
fn four_bytes_that_count_two_billion_topics_are_refused() {
    let body = i32::MAX.to_be_bytes();
    let error =
        safe::decoded_bytes(ApiKey::Metadata as i16, 1, &body, DECODED_BYTES_MAX).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("counts more elements than bytes can hold"),
        "{error}"
    );
}

#[test]
fn well_formed_bodies_of_tiny_elements_are_charged_before_they_are_decoded() {
    // 1 MiB of empty topic names: half a million elements, some 40 MB decoded.
    let mut body = 500_000i32.to_be_bytes().to_vec();
    body.resize(4 + 1_000_000, 0);
    let error =
        safe::decoded_bytes(ApiKey::Metadata as i16, 1, &body, DECODED_BYTES_MAX).unwrap_err();
    assert!(
        matches!(
            error,
            DecodeError::TooLarge {
                max: DECODED_BYTES_MAX,
                ..
            }
        ),
        "{error}"
    );
    let charge = safe::decoded_bytes(ApiKey::Metadata as i16, 1, &body, usize::MAX).unwrap();
    assert!(charge >= 500_000 * size_of::<metadata_request::MetadataRequestTopic>());
    // Tagged fields go into a map.
    let mut body = vec![1, 0, 0]; // Metadata 12: no topics, two flags
    body.extend_from_slice(&[0xa0, 0x8d, 0x06]); // 100,000 tagged fields
    for tag in 0..100_000u32 {
        let tag = tag + 100;
        body.extend_from_slice(&[
            tag as u8 | 0x80,
            (tag >> 7) as u8 | 0x80,
            (tag >> 14) as u8,
            0,
        ]);
    }
    let error =
        safe::decoded_bytes(ApiKey::Metadata as i16, 12, &body, DECODED_BYTES_MAX).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
    assert_eq!(
        decode(spec(ApiKey::Metadata as i16).unwrap(), 12, &[1, 0, 0, 0]),
        Ok(4)
    );
}

#[test]
fn a_body_of_nothing_but_tiny_elements_is_bounded_in_every_version() {
    const BUDGET: usize = DECODED_BYTES_MAX / 64;
    for (spec, version) in every_version() {
        let Some(body) = Specimen::tiny(spec, version, BUDGET / 8) else {
            continue;
        };
        match safe::walk(spec.key as i16, version, &body, BUDGET) {
            Ok((charge, walked)) => {
                assert!(
                    charge <= BUDGET && walked == body.len(),
                    "{} v{version}",
                    spec.name
                );
            }
            Err(error) => assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}"),
        }
        let small = Specimen::tiny(spec, version, 1 << 10).unwrap();
        assert_eq!(
            decode(spec, version, &small),
            Ok(small.len()),
            "{} v{version}",
            spec.name
        );
    }
}

#[test]
fn a_request_of_ten_thousand_partitions_fits_the_budget() {
    let spec = spec(ApiKey::OffsetCommit as i16).unwrap();
    let body = Specimen::new(spec, 8, 100).body; // 100 topics of 100 partitions
    let charge = safe::decoded_bytes(spec.key as i16, 8, &body, DECODED_BYTES_MAX).unwrap();
    assert!(charge < DECODED_BYTES_MAX / 4, "{charge}");
}

#[test]
fn known_tagged_fields_must_have_their_size() {
    // Fetch 12: the fields, no topics, no forgotten ones, empty rack, then tag 0 (cluster id) whose size is a lie.
    let spec = spec(ApiKey::Fetch as i16).unwrap();
    let mut body = Specimen::new(spec, 12, 0).body;
    assert_eq!(body.pop(), Some(0));
    let with = |tag: &[u8]| [&body[..], tag].concat();
    assert!(decode(spec, 12, &with(&[1, 0, 2, 2, b'x'])).is_ok());
    for lie in [
        &[1, 0, 1, 2, b'x'][..],
        &[1, 0, 3, 2, b'x', 0],
        &[1, 0, 0],
        &[2, 0, 2, 2, b'x'],
    ] {
        assert!(decode(spec, 12, &with(lie)).is_err(), "{lie:?}");
    }
}

#[test]
fn unknown_apis_and_versions_are_refused() {
    for (key, version) in [
        (999, 0),
        (-1, 0),
        (ApiKey::Metadata as i16, 99),
        (ApiKey::Produce as i16, 2),
    ] {
        let error = safe::decoded_bytes(key, version, &[], DECODED_BYTES_MAX).unwrap_err();
        assert_eq!(
            error,
            DecodeError::Unsupported {
                api_key: key,
                api_version: version
            }
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Damaged bodies of every API and version: what passes the guard is consumed exactly as far as the guard walked.
    #[test]
    fn guard_and_decoder_walk_the_same_way(
        noise in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        elements in 0usize..3,
    ) {
        for (spec, version) in every_version() {
            let mut body = Specimen::new(spec, version, elements).body;
            for (at, byte) in &noise {
                if !body.is_empty() {
                    let at = at.index(body.len());
                    body[at] = *byte;
                }
            }
            if let Ok(consumed) = decode(spec, version, &body) {
                let walked = safe::walk(spec.key as i16, version, &body, DECODED_BYTES_MAX).unwrap();
                prop_assert_eq!(walked.1, consumed, "{} v{}", spec.name, version);
            }
        }
    }

    #[test]
    fn random_bodies_get_an_answer(body in vec(any::<u8>(), 0..100)) {
        for (spec, version) in every_version() {
            let _ = decode(spec, version, &body);
        }
    }
}
