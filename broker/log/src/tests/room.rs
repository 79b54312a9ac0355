//! What a partition costs when nothing happens, and timestamps through a whole log.

use std::sync::Arc;

use keelson_protocol::builder::BatchBuilder;

use super::support::{append, open_log, open_partition, options, partition_id, wait_durable};
use crate::disk::{Disk, RealDisk};
use crate::{Partition, PartitionConfig};

#[test]
fn an_idle_partition_is_small() {
    // State, manifest and lock together: 10,000 of them are a few MB.
    assert!(size_of::<Partition>() <= 640, "{}", size_of::<Partition>());
}

#[test]
fn a_timestamp_leads_to_the_exact_record() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let config = PartitionConfig { segment_bytes: 2000, segment_ms: i64::MAX, ..PartitionConfig::default() };
    let id = partition_id(1, 0);
    let opened = open_log(&disk, options(dir.path())).unwrap();
    let partition = open_partition(&opened.log, id, config.clone());
    for batch in 0..50_i64 {
        let mut builder = BatchBuilder::new(1000 + batch * 30);
        for record in 0..3 {
            builder.push_with(1000 + batch * 30 + record * 10, None, Some(b"0123456789"), &[]);
        }
        let appended = append(&partition, &builder.build()).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
    }
    let check = |partition: &Partition| {
        for (timestamp, wanted) in [(0, Some(0)), (1000, Some(0)), (1001, Some(1)), (1745, Some(75)), (2490, Some(149)), (2491, None)] {
            let found = partition.offset_for_timestamp(timestamp).unwrap();
            assert_eq!(found.map(|(offset, _)| offset), wanted, "{timestamp}");
            assert_eq!(found.map(|(_, time)| time), wanted.map(|o| 1000 + o * 10), "{timestamp}");
        }
        assert_eq!(partition.max_timestamp().unwrap(), Some((149, 2490)));
        assert_eq!(partition.batch_timestamp(4).unwrap(), Some(1050));
    };
    check(&partition);
    opened.log.shutdown();
    drop((partition, opened));
    let opened = open_log(&disk, options(dir.path())).unwrap();
    check(&open_partition(&opened.log, id, config));
}
