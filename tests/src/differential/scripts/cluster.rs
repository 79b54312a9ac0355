//! ApiVersions, DescribeCluster, and frames that no API knows.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, DescribeClusterRequest};

use super::super::case::Script;
use crate::wire::text;

pub(in super::super) fn run(script: &mut Script) {
    script.each::<ApiVersionsRequest>("versions", |case| {
        let request = |name: &str, version: &str| match case.version {
            0..=2 => ApiVersionsRequest::default(),
            _ => ApiVersionsRequest::default()
                .with_client_software_name(text(name))
                .with_client_software_version(text(version)),
        };
        // Which APIs are advertised is compared API by API.
        let edit = |answer: &mut kafka_protocol::messages::ApiVersionsResponse| {
            answer.api_keys.clear();
            answer.finalized_features_epoch = answer.finalized_features_epoch.min(0);
        };
        let version = case.version;
        let named = request("tests", "1.0");
        let unnamed = request("", "");
        let strange = request("a b", "ä");
        case.edited("asked", version, &named, edit);
        case.edited("without a name", version, &unnamed, edit);
        case.edited("with a strange name", version, &strange, edit);
    });
    script.once::<ApiVersionsRequest>("frames", |case| {
        case.raw("ApiVersions, a version of the future", &frame(18, 99, &[0]));
        case.raw("ApiVersions, a negative version", &frame(18, -1, &[]));
        case.raw("Metadata, a version of the future", &frame(3, 99, &[]));
        case.raw(
            "Produce, a version of the past",
            &frame(0, 2, &ASKS_FOR_ACK),
        );
        case.raw(
            "Produce, an older version of the past",
            &frame(0, 0, &ASKS_FOR_ACK),
        );
        case.raw("Fetch, a version of the past", &frame(1, 0, &[0; 16]));
        case.raw("LeaderAndIsr, no API of clients", &frame(4, 0, &[]));
        case.raw("Nothing, no API at all", &frame(9999, 0, &[]));
        case.raw("Metadata, cut short", &frame(3, 1, &[0, 0]));
        case.raw(
            "Metadata, an endless array",
            &frame(3, 1, &[0x7f, 0xff, 0xff, 0xff]),
        );
        case.raw("Metadata, no body", &frame(3, 1, &[]));
    });
    script.each::<DescribeClusterRequest>("describe cluster", |case| {
        let plain = DescribeClusterRequest::default();
        case.call("asked", &plain);
        let with = plain
            .clone()
            .with_include_cluster_authorized_operations(true);
        case.call("with operations", &with);
        if case.version >= 1 {
            case.call("controllers", &plain.clone().with_endpoint_type(2));
            case.call("no such endpoints", &plain.clone().with_endpoint_type(3));
        }
        if case.version >= 2 {
            case.call(
                "with fenced brokers",
                &plain.with_include_fenced_brokers(true),
            );
        }
    });
}

/// The body of an old Produce request without a topic, with acks 1.
const ASKS_FOR_ACK: [u8; 10] = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

/// A frame with a header of version 1, without its length.
fn frame(key: i16, version: i16, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(7); // correlation id
    frame.put_i16(5);
    frame.put_slice(b"tests");
    frame.put_slice(body);
    frame
}
