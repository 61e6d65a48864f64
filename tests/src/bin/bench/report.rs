//! Report: the document's sections, and numbers as it shows them.

use std::fs;
use std::path::Path;
use std::process::Command;

const HEAD: &str = "# Benchmarks

Measured by `make bench` (all) or `make bench SECTION=lb` (one section), in the `dist` profile. Numbers are the median
with the range of all rounds in parentheses. Peers ran in the same rounds, in turn with ours; a ratio is taken within a
round and then the median of those. Compare ratios, not numbers: the machine is small and shared.
";

/// One line to whoever watches.
#[expect(clippy::print_stderr, reason = "this is what a person at the terminal reads")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

pub(crate) struct Report(String);

impl Report {
    pub(crate) fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        Self(if text.is_empty() { HEAD.to_owned() } else { text })
    }

    /// Puts a section in the place of its last one, or at the end.
    pub(crate) fn put(&mut self, name: &str, title: &str, text: &str) {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
        let whole = format!("{begin}## {title}\n\n{}\n\n{}\n{end}", machine(), text.trim());
        match (self.0.find(&begin), self.0.find(&end)) {
            (Some(from), Some(to)) if from < to => self.0.replace_range(from..to + end.len(), &whole),
            _ => self.0.push_str(&format!("\n{whole}")),
        }
    }

    pub(crate) fn write(&self, file: &Path) {
        fs::write(file, &self.0).expect("docs/benchmarks.md can be written");
    }
}

/// What the numbers were measured on, and when.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let (date, kernel) = (said("date", &["-u", "+%Y-%m-%d"]), said("uname", &["-r"]));
    format!(
        "*{date}, {cores} cores of {}, Linux {kernel}, load {load} at the end.*",
        model.unwrap_or("an unknown CPU").trim()
    )
}

/// What the rounds gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match (self.0.get(middle), self.0.len() % 2) {
            (None, _) => f64::NAN,
            (Some(value), 1) => *value,
            (Some(value), _) => f64::midpoint(*value, self.0[middle - 1]),
        }
    }

    /// `12.3 (11.0–14.2)`, with so many digits.
    pub(crate) fn cell(&self, digits: usize) -> String {
        match (self.0.first(), self.0.last()) {
            (Some(least), Some(most)) => {
                format!("{:.digits$} ({least:.digits$}–{most:.digits$})", self.median())
            }
            _ => "not installed".to_owned(),
        }
    }

    /// Of this to another, round by round.
    pub(crate) fn ratio(rounds: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut ratios = Self::default();
        rounds.filter(|(_, base)| *base > 0.0).for_each(|(one, base)| ratios.add(one / base));
        ratios
    }
}

/// A table of markdown.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.to_vec());
    text.push_str(&line(head.iter().map(|_| "---").collect()));
    rows.iter().for_each(|row| text.push_str(&line(row.iter().map(String::as_str).collect())));
    text
}

/// A number from the environment, for shorter runs.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Each figure of a section comes from so many rounds.
pub(crate) fn rounds() -> usize {
    setting("PLATFORMER_BENCH_ROUNDS", 5)
}

/// Load of one round.
pub(crate) fn seconds() -> usize {
    setting("PLATFORMER_BENCH_SECONDS", 8)
}
