//! What a partition costs when nothing happens, full volumes, timestamps and the tools, through a whole log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keelson_protocol::builder::BatchBuilder;

use super::support::{
    Rng, append, batch, open_log, open_partition, options, partition_id, read_everything, stored,
    wait_durable, wait_until,
};
use crate::disk::{Disk, RealDisk, SimDisk, SimFaults};
use crate::{AppendError, Entry, HealthState, Options, Partition, PartitionConfig};

#[test]
fn an_idle_partition_is_small() {
    // State, manifest and lock together: 10,000 of them are a few MB.
    assert!(size_of::<Partition>() <= 640, "{}", size_of::<Partition>());
}

#[test]
fn a_timestamp_leads_to_the_exact_record() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let config = PartitionConfig {
        segment_bytes: 2000,
        segment_ms: i64::MAX,
        ..PartitionConfig::default()
    };
    let id = partition_id(1, 0);
    let opened = open_log(&disk, options(dir.path())).unwrap();
    let partition = open_partition(&opened.log, id, config.clone());
    for batch in 0..50_i64 {
        let mut builder = BatchBuilder::new(1000 + batch * 30);
        for record in 0..3 {
            builder.push_with(
                1000 + batch * 30 + record * 10,
                None,
                Some(b"0123456789"),
                &[],
            );
        }
        let appended = append(&partition, &builder.build()).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
    }
    let check = |partition: &Partition| {
        for (timestamp, wanted) in [
            (0, Some(0)),
            (1000, Some(0)),
            (1001, Some(1)),
            (1745, Some(75)),
            (2490, Some(149)),
            (2491, None),
        ] {
            let found = partition.offset_for_timestamp(timestamp).unwrap();
            assert_eq!(found.map(|(offset, _)| offset), wanted, "{timestamp}");
            assert_eq!(
                found.map(|(_, time)| time),
                wanted.map(|o| 1000 + o * 10),
                "{timestamp}"
            );
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

#[test]
fn a_full_volume_takes_no_records_serves_all_it_has_and_resumes() {
    let disk = SimDisk::new(5);
    let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = || Options {
        disk_reserve_bytes: Some(200_000),
        flush_after: Duration::ZERO,
        ..options(Path::new("/data"))
    };
    let mut opened = open_log(&dyn_disk, options()).unwrap();
    let id = partition_id(1, 0);
    let mut partition = open_partition(&opened.log, id, PartitionConfig::default());
    let mut rng = Rng::new(5);
    let mut written = Vec::new();
    let mut put = |partition: &Partition| {
        let bytes = batch(&mut rng, 1000, 1, 500);
        let appended = append(partition, &bytes)?;
        written.push((appended.base_offset, stored(&bytes, appended.base_offset)));
        wait_durable(partition, appended.last_offset + 1);
        Ok::<(), AppendError>(())
    };
    for _ in 0..20 {
        put(&partition).unwrap();
    }
    let used = dyn_disk.space(Path::new("/data")).unwrap();
    let capacity = used.total_bytes - used.free_bytes + 100_000;
    disk.set_faults(SimFaults {
        capacity_bytes: Some(capacity),
        ..SimFaults::default()
    });
    opened.log.tick(0);
    assert_eq!(put(&partition).unwrap_err(), AppendError::ReadOnly);
    assert_eq!(opened.log.health().states, [HealthState::ReadOnly]);
    // The log start still moves, and a new start comes up the same way.
    opened
        .log
        .commit(
            vec![Entry::LogStart {
                partition: id,
                offset: 3,
            }],
            Box::new(|| {}),
        )
        .unwrap();
    wait_until("log start", || partition.log_start() == 3);
    drop((partition, opened));
    disk.kill();
    disk.set_faults(SimFaults {
        capacity_bytes: Some(capacity),
        ..SimFaults::default()
    });
    opened = open_log(&dyn_disk, options()).unwrap();
    partition = open_partition(&opened.log, id, PartitionConfig::default());
    assert_eq!(put(&partition).unwrap_err(), AppendError::ReadOnly);
    assert_eq!((partition.log_start(), partition.next_offset()), (3, 20));
    assert_eq!(read_everything(&partition, 1000).0.len(), 17);
    disk.set_faults(SimFaults::default());
    opened.log.tick(0);
    put(&partition).unwrap();
    assert_eq!(opened.log.health().states, [HealthState::Ok]);
    let (content, lost) = read_everything(&partition, 1 << 20);
    assert_eq!(lost, []);
    assert!(content == written[3..]);
}

#[test]
fn verify_and_dump_say_what_is_there_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opened = open_log(&disk, options(dir.path())).unwrap();
    let partition = open_partition(&opened.log, partition_id(1, 0), PartitionConfig::default());
    let mut rng = Rng::new(3);
    for _ in 0..10 {
        let appended = append(&partition, &batch(&mut rng, 1000, 2, 100)).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
    }
    let names = |_| Some("orders".to_owned());
    let look = || {
        let mut out = Vec::new();
        let report = crate::verify::verify(dir.path(), &names, &mut out).unwrap();
        (report, String::from_utf8(out).unwrap())
    };
    // Beside the running log.
    let (report, text) = look();
    assert_eq!(report.problems, 0, "{text}");
    assert!(report.batches >= 10);
    opened.log.shutdown();
    drop((partition, opened));
    let mut out = Vec::new();
    crate::dump::dump(
        dir.path(),
        crate::dump::DumpFilter::default(),
        &names,
        &mut out,
    )
    .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("partition orders/0") && text.contains("offsets=18..=19"),
        "{text}"
    );
    let mut seen = 0;
    crate::read_partition(dir.path(), partition_id(1, 0), &mut |header, _| {
        seen += header.records_count
    })
    .unwrap();
    assert_eq!(seen, 20);
    let log = dir
        .path()
        .join(format!("p/{}/0/{:020}.log", partition_id(1, 0).topic, 0));
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let (report, text) = look();
    assert_eq!(report.problems, 1);
    let wanted = "topic=orders partition=0 offsets=0..=1 reason=batch_crc source=segment\n";
    assert!(
        text.ends_with(wanted) && text.starts_with("file=p/") && text.contains(" position=0 "),
        "{text}"
    );
}

#[test]
fn a_deletion_that_overtakes_queued_appends_stays_a_deletion() {
    for seed in 0..20 {
        println!("seed {seed}");
        let disk = SimDisk::new(seed);
        let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = || Options {
            flush_pending_bytes: 1,
            ..options(Path::new("/data"))
        };
        let opened = open_log(&dyn_disk, options()).unwrap();
        let (gone, kept) = (partition_id(1, 0), partition_id(2, 0));
        let partition = open_partition(&opened.log, gone, PartitionConfig::default());
        let other = open_partition(&opened.log, kept, PartitionConfig::default());
        let mut rng = Rng::new(seed);
        let bytes = batch(&mut rng, 1000, 1, 2000);
        for _ in 0..20 + seed {
            append(&partition, &bytes).unwrap();
        }
        opened
            .log
            .commit(vec![Entry::DeletePartition(gone)], Box::new(|| {}))
            .unwrap();
        assert_eq!(
            append(&partition, &bytes).unwrap_err(),
            AppendError::Deleted
        );
        let last = append(&other, &bytes).unwrap().last_offset;
        wait_durable(&other, last + 1);
        drop((partition, other, opened));
        disk.kill();
        let opened = open_log(&dyn_disk, options()).unwrap();
        assert_eq!(opened.log.partition_ids(), [kept]);
        assert_eq!(*opened.fatal.0.lock(), None);
    }
}
