//! What of a WAL's files could not be read.
//!
//! Owns the ranges, merged where they touch: of a file that lost its end, each window of it comes here. Never reads.

use std::collections::BTreeMap;

use super::source::Place;

/// Ranges within files that the disk could not read, or that a shortened file lacks.
#[derive(Default)]
pub(super) struct Unreadable {
    /// End position by first place; apart from each other.
    ranges: BTreeMap<Place, u64>,
}

impl Unreadable {
    /// Adds the bytes from `from` to `end` of the same file.
    pub(super) fn insert(&mut self, from: Place, end: u64) {
        if from.position >= end {
            return;
        }
        let (mut from, mut end) = (from, end);
        while let Some((start, its_end)) = self.last_touching(from, end) {
            self.ranges.remove(&start);
            from = from.min(start);
            end = end.max(its_end);
        }
        self.ranges.insert(from, end);
    }

    /// The last range that begins at or before `end` in the file of `from` and reaches `from`.
    fn last_touching(&self, from: Place, end: u64) -> Option<(Place, u64)> {
        let last = Place {
            position: end,
            ..from
        };
        let (start, its_end) = self.ranges.range(..=last).next_back()?;
        (start.file == from.file && *its_end >= from.position).then_some((*start, *its_end))
    }

    /// Whether a byte from `from` to `end` of the same file is among them.
    pub(super) fn has_some(&self, from: Place, end: u64) -> bool {
        self.first_from(from)
            .is_some_and(|first| first.file == from.file && first.position < end)
    }

    /// The first such byte at or behind a place, also in a later file.
    pub(super) fn first_from(&self, place: Place) -> Option<Place> {
        let before = self.ranges.range(..=place).next_back();
        let covers =
            before.is_some_and(|(start, end)| start.file == place.file && *end > place.position);
        if covers {
            return Some(place);
        }
        self.ranges.range(place..).next().map(|(start, _)| *start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(file: usize, position: u64) -> Place {
        Place { file, position }
    }

    /// Beside a set of single bytes, over every sequence of three ranges in two short files.
    #[test]
    fn ranges_answer_as_the_bytes_in_them_would() {
        const BYTES: u64 = 5;
        let some = (0..2).flat_map(|file| {
            (0..BYTES).flat_map(move |from| (from..=BYTES).map(move |end| (file, from, end)))
        });
        let some: Vec<(usize, u64, u64)> = some.collect();
        for first in &some {
            for second in &some {
                for third in &some {
                    let mut ranges = Unreadable::default();
                    let mut bytes = BTreeSet::new();
                    for (file, from, end) in [*first, *second, *third] {
                        ranges.insert(at(file, from), end);
                        bytes.extend((from..end).map(|byte| at(file, byte)));
                    }
                    for (file, from, end) in &some {
                        let place = at(*file, *from);
                        let expected = bytes.range(place..).next().copied();
                        assert_eq!(
                            ranges.first_from(place),
                            expected,
                            "{first:?} {second:?} {third:?}"
                        );
                        let within =
                            expected.is_some_and(|byte| byte.file == *file && byte.position < *end);
                        assert_eq!(
                            ranges.has_some(place, *end),
                            within,
                            "{first:?} {second:?} {third:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_lost_end_is_one_range_however_it_was_found() {
        let mut ranges = Unreadable::default();
        for window in [3, 1, 2, 0] {
            ranges.insert(at(7, window << 20), (window + 1) << 20);
        }
        assert_eq!(ranges.ranges.len(), 1);
    }
}
