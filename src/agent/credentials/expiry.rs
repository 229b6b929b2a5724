//! When an expiry is announced: 30, 7 and 1 day before. Pure: times in, whether to tell out.

use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

/// A time before the end at which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Thirty days are left, or fewer.
    Month,
    /// Seven.
    Week,
    /// One.
    Day,
}

impl Notice {
    const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    const fn ahead(self) -> Duration {
        match self {
            Self::Month => Duration::from_hours(30 * 24),
            Self::Week => Duration::from_hours(7 * 24),
            Self::Day => DAY,
        }
    }

    /// What to tell at `now` of an end at `not_after` (both since the epoch), `told` being what was
    /// told of it last; `None`: nothing. Each notice is told once, and never an earlier one after a
    /// later one. An end that has passed is no notice.
    #[must_use]
    pub fn due(not_after: Duration, now: Duration, told: Option<Self>) -> Option<Self> {
        let left = not_after.checked_sub(now).filter(|left| !left.is_zero())?;
        let notice = Self::ALL
            .into_iter()
            .find(|notice| left <= notice.ahead())?;
        (told < Some(notice)).then_some(notice)
    }
}

/// What is left, in words: whole days, or "less than a day".
#[must_use]
pub fn left(not_after: Duration, now: Duration) -> String {
    match not_after.saturating_sub(now).as_secs() / DAY.as_secs() {
        0 => "in less than a day".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: fn(u64) -> Duration = |days| Duration::from_hours(24 * days);

    #[test]
    fn each_notice_is_told_once_and_in_its_time() {
        let end = D(1000);
        let mut told = None;
        let mut tellings = Vec::new();
        for hour in 0..24 * 50 {
            let now = D(960) + Duration::from_hours(hour);
            if let Some(notice) = Notice::due(end, now, told) {
                tellings.push((hour / 24, notice));
                told = Some(notice);
            }
        }
        assert_eq!(
            tellings,
            [(10, Notice::Month), (33, Notice::Week), (39, Notice::Day)]
        );
    }

    #[test]
    fn what_begins_late_tells_the_nearest_only_and_what_ended_nothing() {
        assert_eq!(Notice::due(D(10), D(8), None), Some(Notice::Week));
        assert_eq!(Notice::due(D(10), D(8), Some(Notice::Week)), None);
        assert_eq!(
            Notice::due(D(10), D(8), Some(Notice::Day)),
            None,
            "a clock set back"
        );
        for now in [D(10), D(11)] {
            assert_eq!(Notice::due(D(10), now, None), None);
        }
        assert_eq!(left(D(10), D(8)), "in 2 days");
        assert_eq!(left(D(10), D(10)), "in less than a day");
    }
}
