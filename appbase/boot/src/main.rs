//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use boot::arguments::{self, Form};
use boot::instance;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "help is data, a refused start has no other place to be said"
)]
fn main() -> ExitCode {
    let job = match arguments::parse(std::env::args_os().skip(1), std::env::var_os("BOOT_DIR")) {
        Ok(Form::Start(job)) => job,
        Ok(Form::Help) => {
            print!("{}", arguments::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Form::Version) => {
            println!("boot {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("boot: {error}");
            eprint!("{}", arguments::HELP);
            return ExitCode::from(2);
        }
    };
    match instance::run(job) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("boot: {}", kit::problem::chain(&error));
            ExitCode::from(instance::EXIT_REFUSED)
        }
    }
}
