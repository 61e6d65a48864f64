//! A failure: what, then what to do.

use super::{Paint, Tone};
use crate::error::Failure;

/// `error: …` and a line for each hint.
pub(crate) fn failure(failure: &Failure, paint: Paint) -> String {
    let mut text = format!("{} {}\n", paint.tone(Tone::Bad, "error:"), crate::safe::line(&failure.message));
    let wide = failure.hints.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    for (word, hint) in &failure.hints {
        let word = paint.dim(&format!("{word:wide$}"));
        text.push_str(&format!("  {word}  {}\n", crate::safe::line(hint)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn hints_stand_below_the_message() {
        let failed =
            Failure::new(Exit::NotFound, "there is no app \u{1b}[1mshop").hint("try", "status").hint("follow", "x");
        assert_eq!(
            super::failure(&failed, Paint::OFF),
            "\
error: there is no app shop
  try     status
  follow  x
"
        );
    }
}
