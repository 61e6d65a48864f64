//! Plain aligned tables that fit the terminal. Cells that are ids are never cut; cells that are sentences are.

use super::{Paint, Tone, cut};

const GAP: &str = "  ";

/// No column is made narrower than this.
const WIDTH_MIN: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// Text from elsewhere is made safe on its way into a cell.
pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    toned(Tone::Plain, text)
}

pub(crate) fn toned(tone: Tone, text: impl AsRef<str>) -> Cell {
    let text = crate::safe::line(text.as_ref());
    Cell { text: if text.is_empty() { "-".to_owned() } else { text }, tone }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Never cut.
    Id(&'static str),
    /// Flush right, never cut.
    Number(&'static str),
    /// May be cut to fit.
    Text(&'static str),
}

impl Column {
    fn head(self) -> &'static str {
        match self {
            Self::Id(head) | Self::Number(head) | Self::Text(head) => head,
        }
    }
}

/// The table with its head; empty text when there are no rows.
pub(crate) fn table(columns: &[Column], rows: &[Vec<Cell>], width: usize, paint: Paint) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let widths = widths(columns, rows, width);
    let head: Vec<Cell> = columns.iter().map(|column| toned(Tone::Dim, column.head())).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (index, ((column, cell), width)) in columns.iter().zip(row).zip(&widths).enumerate() {
            let shown = cut(&cell.text, *width);
            let space = " ".repeat(width.saturating_sub(shown.chars().count()));
            let painted = paint.tone(cell.tone, &shown);
            if index > 0 {
                line.push_str(GAP);
            }
            match column {
                Column::Number(_) => line.extend([space, painted]),
                _ => line.extend([painted, space]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// As wide as the content; where that is too wide, the widest texts give way first.
fn widths(columns: &[Column], rows: &[Vec<Cell>], width: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|column| column.head().chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP.len() * (widths.len().saturating_sub(1));
    while total(&widths) > width {
        let widest = (0..columns.len())
            .filter(|index| matches!(columns[*index], Column::Text(_)) && widths[*index] > WIDTH_MIN)
            .max_by_key(|index| widths[*index]);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_sentences_give_way() {
        let columns = [Column::Id("APP"), Column::Number("UP"), Column::Text("STATE")];
        let rows = [
            vec![cell("hello-world"), cell("3/3"), cell("serving 2 (release 7)")],
            vec![cell("shop"), cell("12/12"), cell("wanted 3 (aborted), \u{1b}[31mserving 2")],
            vec![cell("a-name-that-is-wide"), cell(""), cell("")],
        ];
        assert_eq!(
            table(&columns, &rows, 48, Paint::OFF),
            "\
APP                     UP  STATE
hello-world            3/3  serving 2 (release …
shop                 12/12  wanted 3 (aborted),…
a-name-that-is-wide      -  -
"
        );
        // Too narrow for everything: ids stay whole.
        assert!(table(&columns, &rows, 10, Paint::OFF).contains("a-name-that-is-wide"));
        assert_eq!(table(&columns, &[], 80, Paint::OFF), "");
        let painted = table(&[Column::Id("A")], &[vec![toned(Tone::Bad, "x")]], 80, Paint { on: true });
        assert_eq!(painted, "\u{1b}[2mA\u{1b}[0m\n\u{1b}[31mx\u{1b}[0m\n");
    }
}
