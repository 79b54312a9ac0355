//! Frames and headers, the table, and the two answers to versions that are not served.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, FetchRequest, MetadataRequest, MetadataResponse, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::api::{APIS, FrameClass, spec};
use crate::frame::*;
use crate::legacy::{advertised, refuse_api_versions, refuse_produce};

fn head(length: i32, key: i16, version: i16) -> [u8; FRAME_HEAD_BYTES] {
    let mut out = [0; FRAME_HEAD_BYTES];
    out[..4].copy_from_slice(&length.to_be_bytes());
    out[4..6].copy_from_slice(&key.to_be_bytes());
    out[6..].copy_from_slice(&version.to_be_bytes());
    out
}

/// The body of a response frame, behind its length and header.
fn body(frame: BytesMut, key: ApiKey, version: i16, correlation_id: i32) -> Bytes {
    let mut frame = frame.freeze();
    assert_eq!(
        frame.get_i32() as usize,
        frame.len(),
        "the prefix counts what follows"
    );
    let header = ResponseHeader::decode(&mut frame, key.response_header_version(version)).unwrap();
    assert_eq!(header.correlation_id, correlation_id);
    frame
}

#[test]
fn frames_are_judged_by_their_first_bytes() {
    let limits = FrameLimits {
        records_bytes_max: 1_000,
        control_bytes_max: 100,
    };
    let judge = |length, key: i16| parse_head(&head(length, key, 3), &limits);
    for length in [i32::MIN, -1, 0, 9] {
        assert_eq!(judge(length, 3), Err(FrameError::Length { length }));
    }
    assert_eq!(
        judge(101, 3),
        Err(FrameError::TooLarge {
            length: 101,
            api_key: 3,
            max: 100
        })
    );
    assert_eq!(
        judge(i32::MAX, 0),
        Err(FrameError::TooLarge {
            length: i32::MAX,
            api_key: 0,
            max: 1_000
        })
    );
    assert_eq!(judge(50, 999), Err(FrameError::UnknownApi { api_key: 999 }));
    let records = judge(1_000, 0).unwrap();
    assert_eq!(
        (records.length, records.class, records.api_version),
        (1_000, FrameClass::Records, 3)
    );
    assert_eq!(judge(100, 18).unwrap().class, FrameClass::Control);
}

#[test]
fn headers_of_every_api_and_version_are_read() {
    for spec in APIS {
        for version in spec.min..=spec.max {
            let request = kafka_protocol::messages::RequestHeader::default()
                .with_request_api_key(spec.key as i16)
                .with_request_api_version(version)
                .with_correlation_id(77)
                .with_client_id(Some("me".to_owned().into()));
            let mut frame = BytesMut::new();
            request
                .encode(&mut frame, spec.request_header_version(version))
                .unwrap();
            frame.extend_from_slice(b"body");
            let mut frame = frame.freeze();
            let header = RequestHeader::decode(&mut frame).unwrap();
            assert_eq!(&frame[..], b"body", "{} v{version}", spec.name);
            assert_eq!(
                (header.api_key, header.api_version, header.correlation_id),
                (spec.key as i16, version, 77)
            );
            assert_eq!(header.client_id.as_deref(), Some("me"));
        }
    }
}

#[test]
fn hostile_headers_are_errors() {
    let decode = |bytes: &[u8]| RequestHeader::decode(&mut Bytes::copy_from_slice(bytes));
    let good = [0, 3, 0, 12, 0, 0, 0, 1, 0, 1, b'x', 0];
    decode(&good).unwrap();
    for cut in 0..good.len() {
        assert!(decode(&good[..cut]).is_err());
    }
    for tail in [
        &[0x7f, 0xff, b'x'][..],               // client id longer than the frame
        &[0xff, 0xfe],                         // negative, and not null
        &[0, 1, 0xff, 0],                      // not UTF-8
        &[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f], // four billion tagged fields
        &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // overlong
        &[0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f], // a tagged field of 4 GiB
    ] {
        assert!(decode(&[&good[..8], tail].concat()).is_err(), "{tail:?}");
    }
    let unknown = decode(&[0x03, 0xe7, 0, 9, 0, 0, 0, 5, 0xff, 0xff]).unwrap();
    assert_eq!(
        (unknown.api_key, unknown.correlation_id, unknown.client_id),
        (999, 5, None)
    );
}

#[test]
fn requests_and_responses_round_trip() {
    let request = MetadataRequest::default();
    let mut frame = encode_request(3, 12, 9, "me", &request).unwrap().freeze();
    let length = frame.get_i32() as usize;
    assert_eq!(length, frame.len());
    assert_eq!(RequestHeader::decode(&mut frame).unwrap().correlation_id, 9);
    assert_eq!(MetadataRequest::decode(&mut frame, 12).unwrap(), request);
    let response = MetadataResponse::default();
    let mut answer = body(
        encode_response(3, 12, 9, &response).unwrap(),
        ApiKey::Metadata,
        12,
        9,
    );
    assert_eq!(MetadataResponse::decode(&mut answer, 12).unwrap(), response);
    // A field that the version does not have is a fault of ours, told and not dropped.
    let partition = FetchPartition::default().with_last_fetched_epoch(5);
    let topic = FetchTopic::default().with_partitions(vec![partition]);
    let wrong = FetchRequest::default().with_topics(vec![topic]);
    assert!(matches!(
        encode_request(1, 11, 1, "me", &wrong),
        Err(FrameError::Encode { .. })
    ));
}

#[test]
fn f_the_table_is_ordered_served_and_within_the_decoder() {
    assert!(APIS.is_sorted_by_key(|spec| spec.key as i16));
    for spec in APIS {
        assert_eq!(
            spec.class == FrameClass::Records,
            spec.key == ApiKey::Produce
        );
        assert!(spec.min <= spec.max && spec.advertised_min <= spec.min);
        assert_eq!(spec.advertised_min < spec.min, spec.key == ApiKey::Produce);
        assert_eq!(spec.name, format!("{:?}", spec.key));
        assert_eq!(
            spec.response_header_version(spec.max),
            i16::from(spec.flexible(spec.max) && spec.key != ApiKey::ApiVersions)
        );
    }
    assert_eq!(advertised().len(), APIS.len());
    assert!(spec(4).is_none(), "LeaderAndIsr is nothing for clients");
    // Java 4.x refuses brokers whose highest versions lie below these (KIP-896), and JoinGroup starts at 0 for librdkafka.
    for (key, needed) in [(0, 3), (1, 4), (2, 1), (8, 2), (9, 1), (19, 2), (32, 1)] {
        assert!(spec(key).unwrap().supports(needed));
    }
    assert_eq!(spec(11).unwrap().advertised_min, 0);
}

#[test]
fn f_an_unknown_version_of_api_versions_gets_a_v0_answer_with_the_list() {
    let mut answer = body(refuse_api_versions(42).unwrap(), ApiKey::ApiVersions, 0, 42);
    let answer = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!(answer.error_code, 35);
    assert_eq!(answer.api_keys, advertised());
}

#[test]
fn produce_0_to_2_are_refused_partition_by_partition() {
    // acks 1, timeout, topics: "t" with partitions 5 (3 bytes of records) and 6 (null).
    let request = |acks: i16| {
        let mut out = acks.to_be_bytes().to_vec();
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2]);
        out.extend_from_slice(&[
            0, 0, 0, 5, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff,
        ]);
        Bytes::from(out)
    };
    let none = refuse_produce(2, 7, request(0)).unwrap();
    assert!(none.is_none());
    for version in 0..=2 {
        let mut frame = refuse_produce(version, 7, request(1))
            .unwrap()
            .unwrap()
            .freeze();
        assert_eq!(frame.get_i32() as usize, frame.len());
        assert_eq!(
            (
                frame.get_i32(),
                frame.get_i32(),
                frame.get_i16(),
                frame.get_u8()
            ),
            (7, 1, 1, b't')
        );
        assert_eq!(frame.get_i32(), 2);
        for partition in [5, 6] {
            assert_eq!(
                (frame.get_i32(), frame.get_i16(), frame.get_i64()),
                (partition, 35, -1)
            );
            if version >= 2 {
                assert_eq!(frame.get_i64(), -1);
            }
        }
        assert_eq!(frame.remaining(), if version >= 1 { 4 } else { 0 });
    }
    let good = request(1);
    for cut in 0..good.len() {
        assert!(refuse_produce(2, 7, good.slice(..cut)).is_err());
    }
    let mut tiny = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    tiny.resize(16 << 20, 0);
    assert!(
        refuse_produce(2, 7, tiny.into()).is_err(),
        "millions of partitions are not answered one by one"
    );
}

proptest! {
    #[test]
    fn random_frames_get_an_answer(bytes in vec(any::<u8>(), 0..64)) {
        let frame = Bytes::from(bytes);
        let _ = RequestHeader::decode(&mut frame.clone());
        let _ = refuse_produce(2, 1, frame.clone());
        if let Some(first) = frame.first_chunk() {
            let _ = parse_head(first, &FrameLimits::default());
        }
    }
}
