//! Docker's times (RFC 3339, as UTC or with an offset) as milliseconds since the Unix epoch. Pure.

/// None for what is not such a time, and for Docker's "never" (year 1).
pub(crate) fn unix_ms(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let at = |index: usize, expect: u8| text.as_bytes().get(index).is_some_and(|byte| *byte == expect);
    if !(at(4, b'-') && at(7, b'-') && at(10, b'T') && at(13, b':') && at(16, b':')) {
        return None;
    }
    let days = days_since_epoch(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let seconds = days * 86_400 + number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    let rest = text.get(19..)?;
    let (fraction, zone) = rest.split_at(rest.find(['Z', '+', '-'])?);
    let millis: i64 = match fraction.strip_prefix('.') {
        None => 0,
        Some(digits) => format!("{digits:0<3}").get(..3)?.parse().ok()?,
    };
    let offset = match zone.as_bytes().first()? {
        b'Z' => 0,
        sign => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
    };
    u64::try_from((seconds - offset) * 1_000 + millis).ok()
}

/// Days from 1970-01-01 in the Gregorian calendar; years count from March, so that a leap day is a year's last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::unix_ms;

    #[test]
    fn times() {
        for (text, expect) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-21T01:21:30.123456789Z", Some(1_795_224_090_123)),
            ("2026-11-21T03:21:30.1+02:00", Some(1_795_224_090_100)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000_000)),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
            ("2026-11-21", None),
            ("2026-13-21T01:21:30Z", None),
            ("2026-11-21T01:21:30", None),
            ("2026-11-21T01:21:3üZ", None),
        ] {
            assert_eq!(unix_ms(text), expect, "{text}");
        }
    }
}
