//! Why a command did not do what was asked, and the exit code that says so. The codes are frozen: scripts match on them.

use kit::client::ClientError;
use kit::problem::Problem;

/// The exit codes of platformctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Unexpected = 1,
    /// clap's own.
    Usage = 2,
    BadInput = 3,
    Forbidden = 4,
    NotFound = 5,
    Conflict = 6,
    /// The deployment failed; the version before it serves.
    Failed = 7,
    /// A person is needed.
    Degraded = 8,
    WaitTimedOut = 9,
    Unreachable = 10,
    PlanHasChanges = 20,
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The word for scripts that read errors as JSON.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::BadInput => "bad-input",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::Degraded => "degraded",
            Self::WaitTimedOut => "wait-timed-out",
            Self::Unreachable => "unreachable",
            Self::PlanHasChanges => "plan-has-changes",
            Self::Interrupted => "interrupted",
        }
    }

    /// What an HTTP status of another part means to whoever typed the command.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Forbidden,
            404 | 410 => Self::NotFound,
            409 | 412 => Self::Conflict,
            502..=504 => Self::Unreachable,
            400..=499 => Self::BadInput,
            _ => Self::Unexpected,
        }
    }
}

/// What went wrong, for people, and what they can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Stable word of the part that refused, or of the exit code.
    pub(crate) code: String,
    /// Empty: the reader of stdout went away, or all was said already.
    pub(crate) message: String,
    /// `(word, text)` lines below the message: `try`, `follow`, `cancel`.
    pub(crate) hints: Vec<(&'static str, String)>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: exit.code().to_owned(), message: message.into(), hints: Vec::new() }
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(Exit::BadInput, message)
    }

    /// Ends with this code and says nothing more.
    pub(crate) fn quiet(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    #[must_use]
    pub(crate) fn hint(mut self, word: &'static str, text: impl Into<String>) -> Self {
        self.hints.push((word, text.into()));
        self
    }

    /// A file or directory could not be used.
    pub(crate) fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::input(format!("cannot {doing} {}: {error}", path.display()))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(problem) => problem.into(),
            ClientError::Unreachable { .. } => Self::new(Exit::Unreachable, error.to_string())
                .hint("try", "make up, or --url when the platform is elsewhere"),
            ClientError::Unreadable { .. } => Self::new(Exit::Unexpected, error.to_string()).hint(
                "try",
                "check that --url names the controller and that both are of one version: platformctl version",
            ),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let failure = Self {
            exit: Exit::of_status(problem.status),
            code: problem.code.clone(),
            message: problem.to_string(),
            hints: Vec::new(),
        };
        if problem.hint.is_empty() { failure } else { failure.hint("try", problem.hint) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_frozen() {
        let table = [
            (Exit::Done, 0, "done"),
            (Exit::Unexpected, 1, "unexpected"),
            (Exit::Usage, 2, "usage"),
            (Exit::BadInput, 3, "bad-input"),
            (Exit::Forbidden, 4, "forbidden"),
            (Exit::NotFound, 5, "not-found"),
            (Exit::Conflict, 6, "conflict"),
            (Exit::Failed, 7, "failed"),
            (Exit::Degraded, 8, "degraded"),
            (Exit::WaitTimedOut, 9, "wait-timed-out"),
            (Exit::Unreachable, 10, "unreachable"),
            (Exit::PlanHasChanges, 20, "plan-has-changes"),
            (Exit::Interrupted, 130, "interrupted"),
        ];
        for (exit, number, word) in table {
            assert_eq!((exit as u8, exit.code()), (number, word));
        }
    }

    #[test]
    fn a_status_has_one_exit_code() {
        for (status, exit) in [
            (400, Exit::BadInput),
            (401, Exit::Forbidden),
            (403, Exit::Forbidden),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (412, Exit::Conflict),
            (413, Exit::BadInput),
            (422, Exit::BadInput),
            (429, Exit::BadInput),
            (500, Exit::Unexpected),
            (502, Exit::Unreachable),
            (503, Exit::Unreachable),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
        let refused = Failure::from(Problem::new(409, "busy", "another deployment runs").detail("d-1").hint("wait"));
        assert_eq!(refused.exit, Exit::Conflict);
        assert_eq!(refused.message, "another deployment runs: d-1");
        assert_eq!(refused.hints, [("try", "wait".to_owned())]);
        let gone = ClientError::Unreachable { url: "http://x".into(), reason: "refused".into() };
        assert_eq!(Failure::from(gone).exit, Exit::Unreachable);
    }
}
