//! What /proc says of processes: enough to know one for ever by (pid, start ticks).

use std::fs;

/// The fields of `/proc/<pid>/stat` that the platform looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// Ended and not yet waited for: it runs no more.
    pub zombie: bool,
    /// Clock ticks from the machine's start to its own.
    pub start_ticks: u64,
}

/// None when there is no such process (or /proc does not show it).
pub fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether exactly this process runs; a later one with the same pid has other start ticks.
pub fn runs(pid: i32, start_ticks: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.start_ticks == start_ticks && !stat.zombie)
}

/// Every process that runs now.
pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(stat).collect()
}

/// The second field is the program's name in parentheses and may itself hold both spaces and parentheses.
fn parse(text: &str) -> Option<Stat> {
    let (head, tail) = text.rsplit_once(')')?;
    let pid = head.split_once(' ')?.0.parse().ok()?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    Some(Stat {
        pid,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_mislead() {
        let text = "71 (a) b (c)) Z 1 71 70 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let expect = Stat { pid: 71, parent: 1, group: 71, session: 70, zombie: true, start_ticks: 4242 };
        assert_eq!(parse(text), Some(expect));
        assert_eq!(parse("71 (a"), None);
    }

    #[test]
    fn this_process_runs() {
        let pid = i32::try_from(std::process::id()).expect("a pid fits");
        let mine = stat(pid).expect("/proc shows this process");
        assert!(runs(pid, mine.start_ticks) && !runs(pid, mine.start_ticks + 1));
        assert!(all().contains(&mine));
    }
}
