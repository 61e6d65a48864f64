//! Sizes, durations and times as people read them.

use appbase_core::Moment;

/// `3.1 MB`: decimal units, one digit after the point below 100.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        // What would be written as "1000" belongs to the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `0.05s`, `4.2s`, `1m12s`, `3h05m`, `2d04h`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..100 => format!("{:.2}s", ms as f64 / 1000.0),
        100..59_950 => format!("{:.1}s", ms as f64 / 1000.0),
        59_950..3_600_000 => format!("{}m{:02}s", seconds.max(60) / 60, seconds.max(60) % 60),
        3_600_000..86_400_000 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `2026-11-20 14:02:11Z`.
pub(crate) fn time(unix_ms: u64) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(unix_ms);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// The time alone, with milliseconds: `14:02:11.042Z`.
pub(crate) fn moment(unix_ms: u64) -> String {
    format!("{}.{:03}Z", time(unix_ms)[11..].trim_end_matches('Z'), unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (3_140_000, "3.1 MB"),
            (182_400_000, "182 MB"),
            (999_999, "1.0 MB"),
            (5_000_000_000, "5.0 GB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (ms, text) in [
            (0, "0.00s"),
            (52, "0.05s"),
            (999, "1.0s"),
            (4_210, "4.2s"),
            (59_940, "59.9s"),
            (59_960, "1m00s"),
            (72_000, "1m12s"),
            (11_100_000, "3h05m"),
            (187_200_000, "2d04h"),
        ] {
            assert_eq!(duration(ms), text, "{ms}");
        }
        for (ms, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_795_183_331_042, "2026-11-20 14:02:11Z"),
            (4_107_542_399_000, "2100-02-28 23:59:59Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(ms), text);
        }
        assert_eq!(moment(1_795_183_331_042), "14:02:11.042Z");
    }
}
