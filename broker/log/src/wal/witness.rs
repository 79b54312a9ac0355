//! The witness rule: torn tail or corruption?
//!
//! Owns the decision as a table, with a label and a story per row. Never reads a disk: the scanner says what it saw.

/// What lies where the next group of the sequence must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A group that verifies from the first byte to the last.
    Whole,
    /// A header that verifies before a payload that does not.
    DamagedPayload,
    /// No header that verifies.
    NoHeader,
}

/// Everything the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) seen: Seen,
    /// Its CRC of the previous group differs from the group that was kept before it (false if either is unknown).
    pub(crate) chain_broken: bool,
    /// A later header that verifies says that this group was durable.
    pub(crate) witnessed: bool,
    /// Every frame header is known, from its own table or from the copy in the next group.
    pub(crate) frames_known: bool,
    /// Something of this group is there: its header, or frame headers that carry its sequence number.
    pub(crate) traces: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Apply it.
    Keep,
    /// Apply what verifies, report the rest as lost.
    Salvage,
    /// Its frames cannot be known: offsets could be used twice. The start stops in words.
    Refuse,
    /// Never acknowledged: cut it and all behind it off.
    Truncate,
    /// Nothing was written here: the log ends cleanly.
    End,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by people, printed by the test")
    )]
    pub(crate) story: &'static str,
    matches: fn(&Evidence) -> bool,
    pub(crate) verdict: Verdict,
}

/// The first row that matches decides.
pub(crate) const ROWS: [Row; 8] = [
    Row {
        label: "whole",
        story: "The normal case. If nobody testifies for it yet, it is the last group: it is written again in place \
                before anything of it is served, since only the page cache may hold it.",
        matches: |e| e.seen == Seen::Whole && !e.chain_broken,
        verdict: Verdict::Keep,
    },
    Row {
        label: "whole_broken_chain_witnessed",
        story: "It verifies and was durable, but was built behind another group than the one before it: a disk gave \
                back an old version of that one. What verifies is applied; the break is told.",
        matches: |e| e.seen == Seen::Whole && e.witnessed && e.frames_known,
        verdict: Verdict::Salvage,
    },
    Row {
        label: "whole_broken_chain_unwitnessed",
        story: "The remains of a tail that an earlier recovery cut off: it was never acknowledged.",
        matches: |e| e.seen == Seen::Whole && !e.witnessed,
        verdict: Verdict::Truncate,
    },
    Row {
        label: "damaged_witnessed",
        story: "A later group says that this one was durable, so its batches were acknowledged: corruption. Every \
                frame is known, so exactly the batches that do not verify are lost.",
        matches: |e| e.witnessed && e.frames_known,
        verdict: Verdict::Salvage,
    },
    Row {
        label: "unknown_witnessed",
        story: "A double fault: it was durable, and both copies of its frame table are gone. Nobody knows which \
                partitions and offsets were in it, so going on could use an offset twice.",
        matches: |e| e.witnessed,
        verdict: Verdict::Refuse,
    },
    Row {
        label: "damaged_unwitnessed",
        story: "The power went, or the process ended, while it was being written: it was never acknowledged.",
        matches: |e| e.seen == Seen::DamagedPayload,
        verdict: Verdict::Truncate,
    },
    Row {
        label: "traces_unwitnessed",
        story: "The same, and its first sector did not reach the disk.",
        matches: |e| e.traces,
        verdict: Verdict::Truncate,
    },
    Row {
        label: "end",
        story: "Zeros, or bytes from the file's former life: nothing was written here.",
        matches: |_| true,
        verdict: Verdict::End,
    },
];

/// The row that decides.
pub(crate) fn decide(evidence: &Evidence) -> &'static Row {
    ROWS.iter()
        .find(|row| (row.matches)(evidence))
        .expect("the last row matches everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Evidence> {
        let mut all = Vec::new();
        for seen in [Seen::Whole, Seen::DamagedPayload, Seen::NoHeader] {
            for bits in 0..16 {
                all.push(Evidence {
                    seen,
                    chain_broken: bits & 1 != 0,
                    witnessed: bits & 2 != 0,
                    frames_known: bits & 4 != 0,
                    traces: bits & 8 != 0,
                });
            }
        }
        all
    }

    #[test]
    fn every_combination_obeys_the_promises() {
        for evidence in all() {
            let row = decide(&evidence);
            let says = format!("{evidence:?}: {} ({})", row.label, row.story);
            match row.verdict {
                Verdict::Truncate | Verdict::End => {
                    assert!(
                        !evidence.witnessed,
                        "durable bytes are never cut off: {says}"
                    );
                }
                Verdict::Refuse => {
                    assert!(evidence.witnessed && !evidence.frames_known, "{says}");
                }
                Verdict::Salvage => {
                    assert!(evidence.witnessed && evidence.frames_known, "{says}");
                }
                Verdict::Keep => assert!(
                    evidence.seen == Seen::Whole && !evidence.chain_broken,
                    "{says}"
                ),
            }
            if row.verdict == Verdict::End {
                assert!(
                    evidence.seen == Seen::NoHeader && !evidence.traces,
                    "{says}"
                );
            }
        }
    }

    #[test]
    fn every_row_is_reached_and_labels_are_unique() {
        let mut labels: Vec<_> = all().iter().map(|e| decide(e).label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ROWS.len());
    }

    /// The rule said once more, without an order of rows.
    fn promised(e: &Evidence) -> &'static str {
        let whole = e.seen == Seen::Whole;
        match (e.witnessed, e.frames_known) {
            (_, _) if whole && !e.chain_broken => "whole",
            (true, true) if whole => "whole_broken_chain_witnessed",
            (true, true) => "damaged_witnessed",
            (true, false) => "unknown_witnessed",
            (false, _) if whole => "whole_broken_chain_unwitnessed",
            (false, _) if e.seen == Seen::DamagedPayload => "damaged_unwitnessed",
            (false, _) if e.traces => "traces_unwitnessed",
            (false, _) => "end",
        }
    }

    #[test]
    fn every_combination_has_the_row_that_is_promised() {
        assert_eq!(all().len(), 48);
        for evidence in all() {
            assert_eq!(decide(&evidence).label, promised(&evidence), "{evidence:?}");
        }
    }

    #[test]
    fn a_witness_more_never_cuts_off_what_was_kept() {
        for evidence in all().into_iter().filter(|e| !e.witnessed) {
            let witnessed = Evidence {
                witnessed: true,
                ..evidence
            };
            let (before, after) = (decide(&evidence).verdict, decide(&witnessed).verdict);
            assert!(
                !matches!(after, Verdict::Truncate | Verdict::End),
                "{evidence:?}"
            );
            assert!(
                before != Verdict::Keep || after == Verdict::Keep,
                "{evidence:?}"
            );
        }
    }

    #[test]
    fn the_format_document_shows_the_same_rows_in_the_same_order() {
        let document = include_str!("../../../../docs/log-format.md");
        let mut rest = document;
        for row in &ROWS {
            assert!(row.story.len() > 20, "{} has no story", row.label);
            let shown = format!("\n| {} |", row.label);
            let at = rest.find(&shown);
            let at = at.unwrap_or_else(|| panic!("{} is not shown, or not here", row.label));
            rest = &rest[at + shown.len()..];
        }
    }
}
