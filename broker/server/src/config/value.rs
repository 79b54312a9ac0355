//! How values of the broker's keys are read. It knows no key.

use keelson_state::config::parse_boolean;

use super::Config;

pub(super) fn number<T: TryFrom<i64>>(value: &str, min: i64, max: i64) -> Result<T, String> {
    let parsed: i64 = value
        .trim()
        .parse()
        .map_err(|_| "it is not a whole number".to_owned())?;
    let out_of_range = || format!("it must be from {min} to {max}");
    if !(min..=max).contains(&parsed) {
        return Err(out_of_range());
    }
    T::try_from(parsed).map_err(|_| out_of_range())
}

pub(super) fn boolean(value: &str) -> Result<bool, String> {
    parse_boolean(value.trim()).ok_or_else(|| "it must be true or false".to_owned())
}

/// Takes one value only, for a reason.
pub(super) fn only(value: &str, wanted: &str, reason: &str) -> Result<(), String> {
    if value.trim().eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(format!("it can only be {wanted}: {reason}"))
}

/// A rate of what there is none of.
pub(super) fn throttle(_: &mut Config, value: &str) -> Result<(), String> {
    number::<i64>(value, 0, i64::MAX).map(|_| ())
}
