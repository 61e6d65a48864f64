//! The harness: the real programs, started and ended as a person or an accident would, and clients that count.
//!
//! Every test has its own directory and ports. What it started is ended with it, by process id.

pub mod docker;
pub mod faults;
pub mod load;
pub mod platform;
pub mod streams;

pub use load::{Load, Tally};
/// Makes each scenario, a function of an [`Engine`], a test on both of them: `process::…` and `docker::…`.
#[macro_export]
macro_rules! on_both_engines {
    ($($scenario:ident),+ $(,)?) => {
        mod process {
            $(#[test]
            fn $scenario() {
                super::$scenario($crate::Engine::Process);
            })+
        }
        mod docker {
            $(#[test]
            fn $scenario() {
                if $crate::Engine::Docker.answers() {
                    super::$scenario($crate::Engine::Docker);
                }
            })+
        }
    };
}

pub use platform::{Engine, Part, Platform};
