// SPDX-License-Identifier: MIT OR Apache-2.0
//! Times as they are stored and shown: RFC 3339 in UTC, to the second.

use std::time::SystemTime;

use jiff::Timestamp;

/// The time now.
pub fn now() -> String {
    text(Timestamp::now())
}

/// A file's time; nothing if it is outside of what a calendar holds.
pub fn of(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).ok().map(text)
}

fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_in_utc_to_the_second() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        assert_eq!(of(time).unwrap(), "2023-11-14T22:13:20Z");
    }
}
