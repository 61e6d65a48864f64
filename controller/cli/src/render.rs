//! From v1 documents to text. Every function here is pure: what people see is decided by its arguments alone.

pub(crate) mod artifact;
pub(crate) mod certificate;
pub(crate) mod deployment;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod list;
pub(crate) mod number;
pub(crate) mod route_test;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod timeline;
pub(crate) mod top;

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    pub(crate) on: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Paint {
    #[cfg(test)]
    pub(crate) const OFF: Self = Self { on: false };

    pub(crate) fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Bold => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.on && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.tone(Tone::Bold, text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.tone(Tone::Dim, text)
    }
}

/// `text` in at most `width` columns, the end replaced by `…` where it does not fit.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// `1 request`, `2 requests`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
