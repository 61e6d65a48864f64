//! Text from elsewhere (logs, probe answers, messages) made harmless for a terminal.

/// Removes escape sequences, control characters and characters that turn the direction of writing. Tabs stay; line
/// breaks become spaces, so that one line stays one line.
pub(crate) fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            // The one-character forms of CSI and of the string sequences.
            '\u{9b}' => skip_control_sequence(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut rest),
            '\t' => safe.push('\t'),
            '\n' => safe.push(' '),
            c if c.is_control() || turns_direction(c) => {}
            c => safe.push(c),
        }
    }
    safe
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_escape(rest: &mut Rest<'_>) {
    match rest.next() {
        Some('[') => skip_control_sequence(rest),
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(rest),
        // Two-character designators: ESC ( B and the like.
        Some(' '..='/') => {
            rest.next_if(|c| ('0'..='~').contains(c));
        }
        _ => {}
    }
}

/// Parameters and intermediates, then one final character.
fn skip_control_sequence(rest: &mut Rest<'_>) {
    while rest.next_if(|c| (' '..='?').contains(c)).is_some() {}
    rest.next_if(|c| ('@'..='~').contains(c));
}

/// Until BEL or the string terminator; a line break ends it as well, so that a torn one hides no more than its line.
fn skip_string(rest: &mut Rest<'_>) {
    while let Some(c) = rest.next_if(|c| *c != '\n') {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                rest.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        for (hostile, plain) in [
            ("plain\ttext é 日本", "plain\ttext é 日本"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}Pq#0;1\u{1b}\\x", "x"),
            ("\u{1b}(Bx\u{1b}cy", "xy"),
            ("\u{9b}31mx\u{9d}t\u{9c}y", "xy"),
            ("one\r\ntwo\u{8}\u{0}", "one two"),
            ("\u{202e}drow\u{2066}", "drow"),
            ("torn \u{1b}]0;never ends\nnext", "torn  next"),
            ("end \u{1b}", "end "),
            ("end \u{1b}[", "end "),
        ] {
            assert_eq!(line(hostile), plain, "{hostile:?}");
        }
    }
}
