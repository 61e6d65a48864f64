//! Words of a command line: split by blanks and quotes, nothing expanded, no shell.

/// Why a line cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error("the quote {quote} opened at character {at} is never closed")]
    OpenQuote { quote: char, at: usize },
    #[error("the line ends in a backslash")]
    OpenEscape,
    #[error("the line has a NUL character")]
    Nul,
}

/// `a 'b c' "d \" e"` → `a`, `b c`, `d " e`. Single quotes keep everything, double quotes know `\"` and `\\`, outside of
/// quotes a backslash keeps the next character. `$`, `*`, `;`, `|` and the like are plain characters.
pub fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars().enumerate();
    while let Some((at, character)) = characters.next() {
        match character {
            '\0' => return Err(WordsError::Nul),
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => {
                let (_, next) = characters.next().ok_or(WordsError::OpenEscape)?;
                word.get_or_insert_default().push(next);
            }
            quote @ ('\'' | '"') => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        None => return Err(WordsError::OpenQuote { quote, at }),
                        Some((_, '\0')) => return Err(WordsError::Nul),
                        Some((_, c)) if c == quote => break,
                        Some((_, '\\')) if quote == '"' => match characters.next() {
                            Some((_, c @ ('"' | '\\'))) => word.push(c),
                            Some((_, c)) => word.extend(['\\', c]),
                            None => return Err(WordsError::OpenQuote { quote, at }),
                        },
                        Some((_, c)) => word.push(c),
                    }
                }
            }
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_words() {
        let check = |line: &str, expect: &[&str]| assert_eq!(split(line).expect(line), expect, "{line}");
        check("", &[]);
        check("  a  b ", &["a", "b"]);
        check("a 'b c' \"d \\\" e\"", &["a", "b c", "d \" e"]);
        check("x=$HOME *;|&", &["x=$HOME", "*;|&"]);
        check("a\\ b '' c''d", &["a b", "", "cd"]);
        check("\"a\\n\"", &["a\\n"]);
        assert_eq!(split("a 'b"), Err(WordsError::OpenQuote { quote: '\'', at: 2 }));
        assert_eq!(split("a\\"), Err(WordsError::OpenEscape));
        assert_eq!(split("a\0"), Err(WordsError::Nul));
    }
}
