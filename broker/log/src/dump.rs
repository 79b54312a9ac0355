//! `log dump`: every frame and batch of a data directory as readable lines. Never writes to it.

use std::io::Write;
use std::path::Path;

use keelson_protocol::batch::BatchHeader;

use crate::files::Kind;
use crate::ids::PartitionId;
use crate::offline::{Directory, Folder, views};
use crate::partition::extent::SegmentReader;
use crate::partition::tail::header_of;
use crate::verify::{Names, VerifyError};
use crate::wal::{FrameBody, Recovered, RecoveredFrame};

/// What to print.
#[derive(Debug, Clone, Copy, Default)]
pub struct DumpFilter {
    /// Only this partition.
    pub partition: Option<PartitionId>,
    /// Only batches that reach this offset.
    pub from: Option<i64>,
}

impl DumpFilter {
    fn takes(&self, id: PartitionId) -> bool {
        self.partition.is_none_or(|wanted| wanted == id)
    }

    fn reaches(&self, last_offset: i64) -> bool {
        self.from.is_none_or(|from| last_offset >= from)
    }
}

/// Prints; returns the number of lines.
pub fn dump(
    data_dir: &Path,
    filter: DumpFilter,
    names: Names<'_>,
    out: &mut dyn Write,
) -> Result<u64, VerifyError> {
    let directory = Directory::open(data_dir)?;
    let mut dump = Dump {
        directory: &directory,
        filter,
        names,
        out,
        lines: 0,
    };
    for folder in directory.folders()? {
        match folder {
            Folder::Partition(id) if filter.takes(id) => dump.partition(id)?,
            Folder::Partition(_) | Folder::Unknown(_) => {}
        }
    }
    dump.wal()?;
    Ok(dump.lines)
}

struct Dump<'a> {
    directory: &'a Directory,
    filter: DumpFilter,
    names: Names<'a>,
    out: &'a mut dyn Write,
    lines: u64,
}

impl Dump<'_> {
    fn line(&mut self, text: &str) -> Result<(), VerifyError> {
        self.lines += 1;
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    fn name(&self, id: PartitionId) -> String {
        (self.names)(id.topic).unwrap_or_else(|| id.topic.to_string())
    }

    fn partition(&mut self, id: PartitionId) -> Result<(), VerifyError> {
        let Some(slots) = self.directory.manifest(id)?.and_then(|loaded| loaded.slots) else {
            return self.line(&format!(
                "partition {}/{} manifest=unreadable",
                self.name(id),
                id.index
            ));
        };
        let m = slots.manifest;
        self.line(&format!(
            "partition {}/{} id={} log_start={} next_offset={} applied={}.{} segments={} epochs={:?} quarantined={}",
            self.name(id),
            id.index,
            id.topic,
            m.log_start,
            m.next_offset,
            m.applied_group,
            m.applied_frame,
            m.segments.len(),
            m.epochs,
            m.quarantined.len(),
        ))?;
        for range in &m.quarantined {
            self.line(&format!(
                "  quarantined {}..={} file={} position={} reason={} source={}",
                range.from, range.to, range.file, range.position, range.reason, range.source
            ))?;
        }
        for view in views(&m, &self.directory.losses) {
            let mut reader = SegmentReader::new(&self.directory.files, &view);
            let file = self.directory.files.told(&reader.key(Kind::Log));
            self.line(&format!(
                "  segment {file} bytes={} end_offset={}",
                view.entry.log_bytes, view.end_offset
            ))?;
            let mut number = match self.filter.from {
                Some(from) => reader.extent_with(from)?,
                None => 0,
            };
            while number < reader.extents() {
                let (extent, behind) = match reader.load(number) {
                    Ok(loaded) => loaded,
                    Err(error) => {
                        self.line(&format!("    unreadable: {error}"))?;
                        break;
                    }
                };
                for piece in &extent.batches {
                    if self.filter.reaches(piece.header.last_offset()) {
                        let at = extent.position + piece.at as u64;
                        self.line(&format!("    position={at} {}", batch_text(&piece.header)))?;
                    }
                }
                for hole in &extent.holes {
                    let at = extent.position + hole.at as u64;
                    self.line(&format!(
                        "    position={at} lost {}..={} reason={}",
                        hole.from, hole.to, hole.reason
                    ))?;
                }
                number = behind;
            }
        }
        Ok(())
    }

    fn wal(&mut self) -> Result<(), VerifyError> {
        let mut scan = self.directory.wal()?;
        while let Some(step) = scan.next()? {
            match step {
                Recovered::Torn(torn) => self.line(&format!(
                    "torn tail file={} position={} bytes={}",
                    torn.file.display(),
                    torn.position,
                    torn.bytes
                ))?,
                Recovered::Group(group) => {
                    let damage = group
                        .damage
                        .map_or_else(String::new, |reason| format!(" damage={reason}"));
                    self.line(&format!(
                        "group {} file={} position={} bytes={} boot={} frames={}{damage}",
                        group.seq,
                        group.file.display(),
                        group.position,
                        group.length,
                        group.boot,
                        group.frames.len()
                    ))?;
                    for frame in &group.frames {
                        self.frame(frame)?;
                    }
                    let filter = self.filter;
                    for lost in group
                        .lost
                        .iter()
                        .filter(|lost| filter.takes(lost.partition))
                    {
                        let text = format!(
                            "  frame {} {}/{} lost {}..={} position={} reason={}",
                            lost.at.frame,
                            self.name(lost.partition),
                            lost.partition.index,
                            lost.base_offset,
                            lost.last_offset,
                            lost.file_position,
                            lost.reason
                        );
                        self.line(&text)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &RecoveredFrame) -> Result<(), VerifyError> {
        let id = frame.frame.partition;
        let what = match &frame.frame.body {
            FrameBody::Append { last_offset, .. } if !self.filter.reaches(*last_offset) => {
                return Ok(());
            }
            FrameBody::Append {
                base_offset, batch, ..
            } => match header_of(batch) {
                Ok(header) => format!("append {}", batch_text(&header)),
                Err(error) => format!("append {base_offset}: {error}"),
            },
            FrameBody::Truncate { to } => format!("truncate to={to}"),
            FrameBody::LogStart { offset } => format!("log_start offset={offset}"),
            FrameBody::EpochStart { epoch, offset } => {
                format!("epoch_start epoch={epoch} offset={offset}")
            }
            FrameBody::DeletePartition => "delete_partition".to_owned(),
            FrameBody::Seal => return self.line(&format!("  frame {} seal", frame.at.frame)),
            FrameBody::Boot { discarded } => {
                return self.line(&format!(
                    "  frame {} boot discarded={discarded:?}",
                    frame.at.frame
                ));
            }
        };
        if !self.filter.takes(id) {
            return Ok(());
        }
        let text = format!(
            "  frame {} {}/{} position={} {what}",
            frame.at.frame,
            self.name(id),
            id.index,
            frame.file_position
        );
        self.line(&text)
    }
}

fn batch_text(h: &BatchHeader) -> String {
    let codec = h.compression().map_or("unknown", |codec| codec.name());
    format!(
        "offsets={}..={} bytes={} records={} epoch={} codec={codec} timestamps={}..={} producer={}/{}/{}",
        h.base_offset,
        h.last_offset(),
        h.size(),
        h.records_count,
        h.partition_leader_epoch,
        h.base_timestamp,
        h.max_timestamp,
        h.producer_id,
        h.producer_epoch,
        h.base_sequence
    )
}
