//! Leader epochs of a partition and the offsets they start at, ascending in both: as a list, wherever it is kept.
//!
//! Owns what batches say about that list where nothing else is left. A batch's own checksum does not cover its epoch, so
//! that a damaged byte there can make one up; but epochs never go down, and what comes later can disprove it.

/// The epoch of an offset; `None` where the list does not reach that far down.
pub(crate) fn at(epochs: &[(i32, i64)], offset: i64) -> Option<i32> {
    let found = epochs.iter().rev().find(|(_, start)| *start <= offset);
    found.map(|(epoch, _)| *epoch)
}

/// A batch that is known whole, epoch and all, has this epoch: none above it can have started before.
pub(crate) fn disprove(epochs: &mut Vec<(i32, i64)>, epoch: i32) {
    epochs.retain(|(known, _)| *known <= epoch);
}

/// Takes in the epoch of the next batch in a segment. Where its bytes are not vouched for, a higher epoch of one that
/// came before is given up only when the batch goes back to the one before that; else it may be this one that is damaged.
pub(crate) fn note(
    epochs: &mut Vec<(i32, i64)>,
    (epoch, base_offset): (i32, i64),
    is_vouched: bool,
) {
    let goes_back = matches!(epochs[..], [.., (before, _), _] if before == epoch);
    if is_vouched || goes_back {
        disprove(epochs, epoch);
    }
    if epochs.last().is_none_or(|(last, _)| *last < epoch) {
        epochs.push((epoch, base_offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_an_offset_is_that_of_the_last_start_below_it() {
        let epochs = [(1, 5), (4, 9)];
        let found = [4, 5, 8, 9, 100].map(|offset| at(&epochs, offset));
        assert_eq!(found, [None, Some(1), Some(1), Some(4), Some(4)]);
    }

    #[test]
    fn a_damaged_epoch_is_given_up_by_what_comes_after_it() {
        let noted = |batches: &[(i32, i64, bool)]| {
            let mut epochs = Vec::new();
            for (epoch, base, is_vouched) in batches {
                note(&mut epochs, (*epoch, *base), *is_vouched);
            }
            epochs
        };
        let up = [(3, 0, false), (252, 6, false), (3, 7, false)];
        assert_eq!(noted(&up), [(3, 0)]);
        let down = [(3, 0, false), (1, 6, false), (3, 7, false)];
        assert_eq!(noted(&down), [(3, 0)]);
        let first = [(252, 0, false), (3, 6, true), (5, 7, true)];
        assert_eq!(noted(&first), [(3, 6), (5, 7)]);
        // Of two that contradict each other and nothing vouches for, the first one is believed.
        assert_eq!(noted(&[(252, 0, false), (3, 6, false)]), [(252, 0)]);
    }
}
