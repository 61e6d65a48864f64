//! Instance: one start of boot, from arguments to exit code. One loop takes every event; nothing else decides.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use appbase_core::v1::{InstanceConfig, InstanceExit, InstanceState};
use kit::Clock;
use kit::problem::chain;
use rustix::process::{Pid, Signal, getpid, getsid, set_child_subreaper, setsid};
use signal_hook::consts::signal::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::arguments::{Job, WantedFrom};
use crate::backoff::Backoff;
use crate::children::{self, Ended};
use crate::command::{self, Base};
use crate::directory::{Directory, DirectoryError, write_json};
use crate::fetch::{self, Prepared, Wanted};
use crate::log::Log;

/// boot itself could not do its work; as `docker run` has it.
pub const EXIT_REFUSED: u8 = 125;
const EXIT_NOT_EXECUTABLE: i32 = 126;
const EXIT_NOT_FOUND: i32 = 127;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot read {path}: {reason}")]
    Config { path: PathBuf, reason: String },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot begin a session: start it as a child that leads no process group")]
    Session,
    #[error("cannot take signals")]
    Signals(#[source] io::Error),
    #[error("cannot open {path}")]
    Log {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

enum Event {
    Signal(i32),
    Problem(String),
    Prepared(Box<Result<Prepared, String>>),
}

/// How often is looked whether the disk has what was fetched, by an app that has ended before.
const FETCH_LOOK: Duration = Duration::from_millis(2);
/// Events wait here at most; their senders then wait too, which loses nothing.
const EVENTS_MAX: usize = 64;

/// Runs to the end; the app's exit code, 128 and the signal that ended it, or [`EXIT_REFUSED`].
pub fn run(job: Job) -> Result<u8, StartError> {
    if job.session && setsid().is_err() && getsid(None).ok() != Some(getpid()) {
        return Err(StartError::Session);
    }
    let (wanted, restart) = wanted(&job)?;
    let directory = Directory::open(&job.directory)?;
    let lock = directory.lock()?;
    let log = job.session.then(|| Log::open(&directory.log())).transpose();
    let log = log.map_err(|source| StartError::Log { path: directory.log(), source })?;
    // Orphans of the app come to boot wherever it is not PID 1; without it they would only be harder to end.
    let _ = set_child_subreaper(Some(getpid()));
    let (sender, events) = sync_channel(EVENTS_MAX);
    take_signals(sender.clone()).map_err(StartError::Signals)?;

    let pid = getpid().as_raw_nonzero().get();
    let state = InstanceState {
        boot_pid: pid,
        boot_start_ticks: kit::process::stat(pid).map_or(0, |stat| stat.start_ticks),
        app_pid: None,
        restarts: 0,
        last_exit: None,
        phase: String::new(),
        problem: None,
    };
    let base = if job.session { Base::Empty } else { Base::Inherited };
    let instance = Instance {
        directory,
        words: job.words,
        base,
        restart: restart && job.session,
        clock: Clock::start(),
        events,
        state,
        log,
        asked: None,
        fetch: None,
        _lock: lock,
    };
    Ok(instance.live(wanted, sender))
}

fn wanted(job: &Job) -> Result<(Wanted, bool), StartError> {
    match &job.wanted {
        WantedFrom::Live { app, repository } => {
            Ok((Wanted::Live { app: app.clone(), repository: repository.clone() }, false))
        }
        WantedFrom::Config(path) => {
            let wrong = |reason: String| StartError::Config { path: path.clone(), reason };
            let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let config: InstanceConfig = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
            let restart = config.restart;
            Ok((Wanted::Instance(Box::new(config)), restart))
        }
    }
}

fn take_signals(sender: SyncSender<Event>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    let forward = move || {
        for signal in signals.forever() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(forward)?;
    Ok(())
}

struct Instance {
    directory: Directory,
    words: Vec<std::ffi::OsString>,
    base: Base,
    restart: bool,
    clock: Clock,
    events: Receiver<Event>,
    state: InstanceState,
    log: Option<Log>,
    /// The signal that asked to stop. From then on nothing is started.
    asked: Option<i32>,
    /// Makes what was fetched ready, and then durable while the app starts.
    fetch: Option<JoinHandle<()>>,
    /// Held for as long as this lives.
    _lock: File,
}

/// One run of the app.
struct Run {
    ended: Ended,
    ran: Duration,
}

impl Instance {
    fn live(mut self, wanted: Wanted, sender: SyncSender<Event>) -> u8 {
        self.say("fetching", None);
        let prepared = match self.prepare(wanted, sender) {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return self.end(None),
            Err(problem) => {
                self.note(&problem);
                self.state.problem = Some(problem);
                return self.end(None);
            }
        };
        let grace = Duration::from_millis(prepared.spec.stop_grace_ms);
        let mut backoff = Backoff::restarts();
        loop {
            let run = self.run_app(&prepared, grace);
            self.record(&run);
            if self.asked.is_some() || !self.restart {
                return self.end(Some(run.ended));
            }
            let pause = backoff.pause_after(run.ran);
            self.note(&format!("app ended ({}); starting again in {} ms", run.ended, pause.as_millis()));
            let problem = self.state.problem.take();
            self.say("waiting", problem);
            if self.wait(pause) {
                return self.end(Some(run.ended));
            }
            self.state.restarts += 1;
        }
    }

    /// Fetches in a thread of its own, so that a signal is heard meanwhile. None: asked to stop.
    fn prepare(&mut self, wanted: Wanted, sender: SyncSender<Event>) -> Result<Option<Prepared>, String> {
        let directory = self.directory.clone();
        let work = move || {
            let mut report = |problem: &str| drop(sender.send(Event::Problem(problem.to_owned())));
            let mut result = fetch::prepare(&wanted, &directory, &mut report).map_err(|error| chain(&error));
            let fetched = result.as_mut().ok().and_then(|prepared| prepared.fetched.take());
            let _ = sender.send(Event::Prepared(Box::new(result)));
            if let Some(Err(error)) = fetched.map(|fetched| fetched.keep(&directory)) {
                report(&format!("the next start will fetch it again: {}", chain(&error)));
            }
        };
        let thread = thread::Builder::new().name("fetch".to_owned()).spawn(work);
        self.fetch = Some(thread.map_err(|error| error.to_string())?);
        loop {
            match self.events.recv().map_err(|error| error.to_string())? {
                Event::Prepared(result) => return result.map(Some),
                Event::Problem(problem) => {
                    self.note(&problem);
                    self.say("fetching", Some(problem));
                }
                Event::Signal(signal) => {
                    if self.hear(signal) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// From its start to its end, with nothing of it left.
    fn run_app(&mut self, prepared: &Prepared, grace: Duration) -> Run {
        let began = self.clock.elapsed();
        let app = match self.spawn(prepared) {
            Ok(app) => app,
            Err((code, problem)) => {
                self.note(&problem);
                self.state.problem = Some(problem);
                return Run { ended: Ended { code: Some(code), signal: None }, ran: Duration::ZERO };
            }
        };
        self.state.app_pid = Some(app.as_raw_nonzero().get());
        self.say("running", None);
        let mut kill_at = None;
        let ended = loop {
            let left = kill_at.map(|at: Duration| at.saturating_sub(self.clock.elapsed()));
            match self.next_event(left) {
                // The look is for any event: several ended children may make one SIGCHLD.
                Some(Event::Signal(SIGCHLD)) => {
                    if let Some(ended) = children::reap(Some(app)) {
                        break ended;
                    }
                }
                Some(Event::Signal(signal)) => {
                    if let Some(signal) = Signal::from_named_raw(signal) {
                        children::signal_group(app, signal);
                    }
                    if self.hear(signal) && kill_at.is_none() {
                        kill_at = Some(self.clock.elapsed() + grace);
                        self.say("stopping", None);
                    }
                }
                Some(Event::Problem(problem)) => self.note(&problem),
                Some(Event::Prepared(_)) => {}
                None => {
                    self.note(&format!("app has not stopped in {} ms: killing it", grace.as_millis()));
                    children::signal_group(app, Signal::KILL);
                    kill_at = None;
                }
            }
        };
        let ran = self.clock.elapsed().saturating_sub(began);
        children::end_leftovers(app);
        Run { ended, ran }
    }

    /// Error: the exit code a shell would give, and why.
    fn spawn(&mut self, prepared: &Prepared) -> Result<Pid, (i32, String)> {
        let app = self.directory.app();
        let Prepared { config, spec, fetched: _ } = prepared;
        let mut command = command::command(config, spec, &self.words, &app, self.base)
            .map_err(|problem| (EXIT_NOT_FOUND, problem))?;
        let failed = |error: io::Error, program: String| match error.kind() {
            io::ErrorKind::NotFound => {
                (EXIT_NOT_FOUND, format!("cannot start {program}: no such program, or its interpreter is missing"))
            }
            _ => (EXIT_NOT_EXECUTABLE, format!("cannot start {program}: {error}")),
        };
        let program = command.get_program().to_string_lossy().into_owned();
        if let Some(log) = &self.log {
            let (out, err) =
                log.stdio().and_then(|out| Ok((out, log.stdio()?))).map_err(|error| failed(error, program.clone()))?;
            command.stdin(Stdio::null()).stdout(out).stderr(err);
        }
        let child = command.process_group(0).spawn().map_err(|error| failed(error, program))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or((EXIT_NOT_EXECUTABLE, "the kernel gave no process id".to_owned()))
    }

    fn record(&mut self, run: &Run) {
        let Ended { code, signal } = run.ended;
        let ran_ms = u64::try_from(run.ran.as_millis()).unwrap_or(u64::MAX);
        let exit = InstanceExit { code, signal, at_unix_ms: self.clock.unix_ms(), ran_ms };
        self.state.app_pid = None;
        self.write("exit.json", write_json(&self.directory.exit(), &exit));
        self.state.last_exit = Some(exit);
    }

    /// Whether asked to stop before the time was over.
    fn wait(&mut self, pause: Duration) -> bool {
        let until = self.clock.elapsed() + pause;
        loop {
            let left = until.saturating_sub(self.clock.elapsed());
            match self.next_event(Some(left)) {
                None => return false,
                Some(Event::Signal(SIGCHLD)) => drop(children::reap(None)),
                Some(Event::Signal(signal)) => {
                    if self.hear(signal) {
                        return true;
                    }
                }
                Some(Event::Problem(problem)) => self.note(&problem),
                Some(Event::Prepared(_)) => {}
            }
        }
    }

    /// None when nothing came in time. Without a limit it waits for ever: the signal thread never ends.
    fn next_event(&self, limit: Option<Duration>) -> Option<Event> {
        match limit {
            None => self.events.recv().ok(),
            Some(limit) => self.events.recv_timeout(limit).ok(),
        }
    }

    /// Whether this signal asks to stop.
    fn hear(&mut self, signal: i32) -> bool {
        let asks = matches!(signal, SIGTERM | SIGINT);
        if asks && self.asked.is_none() {
            self.asked = Some(signal);
        }
        asks
    }

    fn end(mut self, ended: Option<Ended>) -> u8 {
        let problem = self.state.problem.take();
        self.say("ended", problem);
        // One that is asked to stop while it fetches waits for no repository.
        if ended.is_some() {
            self.finish_fetch();
        }
        if let Some(log) = self.log {
            log.finish();
        }
        let code = match (ended, self.asked) {
            (Some(Ended { signal: Some(signal), .. }), _) | (None, Some(signal)) => 128 + signal,
            (Some(Ended { code: Some(code), .. }), _) => code,
            _ => i32::from(EXIT_REFUSED),
        };
        u8::try_from(code).unwrap_or(EXIT_REFUSED)
    }

    /// An app that ended at once was started without waiting for the disk.
    fn finish_fetch(&mut self) {
        let Some(fetch) = self.fetch.take() else { return };
        loop {
            let is_over = fetch.is_finished();
            match self.next_event(Some(if is_over { Duration::ZERO } else { FETCH_LOOK })) {
                Some(Event::Problem(problem)) => self.note(&problem),
                Some(_) => {}
                None if is_over => return,
                None => {}
            }
        }
    }

    fn say(&mut self, phase: &str, problem: Option<String>) {
        phase.clone_into(&mut self.state.phase);
        self.state.problem = problem;
        self.write("state.json", write_json(&self.directory.state(), &self.state));
    }

    /// A report that cannot be written is no reason to end an app.
    fn write(&mut self, name: &str, result: io::Result<()>) {
        if let Err(error) = result {
            self.note(&format!("cannot write {name}: {error}"));
        }
    }

    #[expect(clippy::print_stderr, reason = "without a session, stderr is where boot speaks")]
    fn note(&mut self, text: &str) {
        match &mut self.log {
            Some(log) => log.note(text),
            None => eprintln!("boot: {text}"),
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "signal {signal}"),
            (Some(code), None) => write!(f, "code {code}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}
