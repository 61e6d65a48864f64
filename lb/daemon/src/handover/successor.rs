//! Successor: the newer lb, as the one sees it that it takes over from.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kit::member::{Followed, Table};
use kit::{Shutdown, Tasks};
use lb_core::v1::handover::{Offered, PredecessorWord, SuccessorWord, VERSION};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::SOCKET;
use super::channel::{Channel, ChannelError, STEP_LIMIT};
use crate::balancer::Balancer;
use crate::member::Member;
use crate::phase::Phase;

/// From the listeners to the first probes of every instance: more than the newer one takes for that.
const PREPARE_LIMIT: Duration = Duration::from_secs(30);
/// What is left is told at least this often, and at most.
const TELL_INTERVAL: Duration = Duration::from_millis(500);
const TELL_PAUSE: Duration = Duration::from_millis(20);

/// All that changes hands, and what ends then.
pub(crate) struct Estate {
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) listeners: Listeners,
    pub(crate) phase: Arc<watch::Sender<Phase>>,
    /// Ends the admin endpoint of this process.
    pub(crate) admin: Shutdown,
    /// For what is under way then.
    pub(crate) drain: Duration,
    /// Whether every data thread has ended.
    pub(crate) ended: watch::Receiver<bool>,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

/// Second descriptors of every listener. While one of them is open the kernel takes connections.
#[derive(Clone, Default)]
pub(crate) struct Listeners(Arc<Mutex<Vec<(Offered, OwnedFd)>>>);

impl Listeners {
    pub(crate) fn add(&self, name: &str, address: SocketAddr, listener: &impl AsFd) -> std::io::Result<()> {
        self.add_one(name, Some(address), listener)
    }

    fn add_one(&self, name: &str, address: Option<SocketAddr>, listener: &impl AsFd) -> std::io::Result<()> {
        let listener = listener.as_fd().try_clone_to_owned()?;
        let offered = Offered { name: name.to_owned(), address };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((offered, listener));
        Ok(())
    }

    /// What the data threads close is closed then.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn all(&self) -> std::io::Result<Vec<(Offered, OwnedFd)>> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|(offered, listener)| Ok((offered.clone(), listener.try_clone()?))).collect()
    }
}

/// Waits for a newer lb, until one has taken over and all that is under way here has ended.
pub(crate) async fn await_successor(estate: Estate, socket: UnixListener, mut followed: Option<Followed<Member>>) {
    if let Err(error) = estate.listeners.add_one(SOCKET, None, &socket) {
        return tracing::warn!(error = %error, "no newer lb can take over from this one");
    }
    loop {
        let accepted = tokio::select! {
            () = estate.shutdown.asked() => return,
            accepted = socket.accept() => accepted,
        };
        let taken = match accepted {
            Ok((stream, _)) => tokio::select! {
                () = estate.shutdown.asked() => return,
                taken = estate.hand_over(stream, &mut followed) => taken,
            },
            Err(error) => Err(error.into()),
        };
        match taken {
            Ok((channel, table)) => {
                drop(socket);
                return estate.leave(channel, table).await;
            }
            Err(error) => {
                tracing::warn!(error = %error, "a newer lb did not take over: this one goes on");
                // An accept that fails would fail again at once.
                tokio::time::sleep(TELL_PAUSE).await;
            }
        }
    }
}

impl Estate {
    /// After an error everything is as it was.
    async fn hand_over(
        &self,
        stream: UnixStream,
        followed: &mut Option<Followed<Member>>,
    ) -> Result<(Channel, Option<Table<Member>>), ChannelError> {
        let mut channel = Channel::of(stream)?;
        if let Err(error) = self.offer(&mut channel).await {
            refuse(&mut channel, &error).await;
            return Err(error);
        }
        let table = match followed.take() {
            Some(followed) => followed.stopped().await,
            None => None,
        };
        if let Err(error) = self.give(&mut channel).await {
            refuse(&mut channel, &error).await;
            *followed = table.map(|table| table.follow(&self.tasks, &self.shutdown));
            return Err(error);
        }
        Ok((channel, table))
    }

    /// Passes the listeners on, which go on working here. Ends when the newer one could serve.
    async fn offer(&self, channel: &mut Channel) -> Result<(), ChannelError> {
        let (speaks, release, network) = match channel.hear_within(STEP_LIMIT).await? {
            SuccessorWord::Take { speaks, release, network } => (speaks, release, network),
            other => return Err(unexpected(&other)),
        };
        if !speaks.contains(&VERSION) {
            let reason = format!(
                "release {release} hands over in versions {speaks:?}, this one ({}) in {VERSION}: stop this one, then start the other",
                env!("CARGO_PKG_VERSION")
            );
            return Err(ChannelError::Unreadable(reason));
        }
        if let (Some(theirs), Some(mine)) = (network, super::network())
            && theirs != mine
        {
            let reason = "it is in another network, and the listeners are of this one: let both share a network, or \
                          stop this one first";
            return Err(ChannelError::Unreadable(reason.to_owned()));
        }
        let all = self.listeners.all()?;
        let listeners = all.iter().map(|(offered, _)| offered.clone()).collect();
        let release = env!("CARGO_PKG_VERSION").to_owned();
        channel.say(&PredecessorWord::Listeners { version: VERSION, release, listeners }).await?;
        for (_, listener) in &all {
            channel.pass(listener.as_fd()).await?;
        }
        match channel.hear_within(PREPARE_LIMIT).await? {
            SuccessorWord::StandStill => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Nothing is followed now. Ends when the newer one serves.
    async fn give(&self, channel: &mut Channel) -> Result<(), ChannelError> {
        channel.say(&PredecessorWord::Still { in_force: self.balancer.in_force.generation() }).await?;
        match channel.hear_within(STEP_LIMIT).await? {
            SuccessorWord::Serve => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes nothing new, and tells what is under way until it has ended.
    async fn leave(self, channel: Channel, mut table: Option<Table<Member>>) {
        tracing::info!("a newer lb serves: this one ends with what it carries");
        let until = Instant::now() + self.drain;
        self.phase.send_replace(Phase::HandedOver);
        self.admin.ask();
        self.listeners.close();
        let (mut channel, mut ended, mut is_ended) = (Some(channel), self.ended.clone(), false);
        loop {
            let left = self.balancer.left(until.saturating_duration_since(Instant::now()));
            if let Some(Err(error)) = match &mut channel {
                Some(channel) => Some(channel.say(&PredecessorWord::Left(left)).await),
                None => None,
            } {
                tracing::warn!(error = %error, "the newer lb is gone");
                channel = None;
            }
            if is_ended && self.balancer.remaining.left().is_none() {
                break;
            }
            let heard = async {
                match &mut channel {
                    Some(channel) => channel.hear().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shutdown.asked() => break,
                heard = heard => match heard {
                    Ok(SuccessorWord::TableSaved) => self.read_again(table.as_mut()),
                    Ok(other) => tracing::warn!(word = ?other, "the newer lb says what makes no sense now"),
                    Err(error) => {
                        tracing::warn!(error = %error, "the newer lb is gone");
                        channel = None;
                    }
                },
                () = self.balancer.in_force.until_changed() => tokio::time::sleep(TELL_PAUSE).await,
                () = tokio::time::sleep(TELL_INTERVAL) => {}
                () = async { drop(ended.wait_for(|ended| *ended).await) }, if !is_ended => is_ended = true,
            }
            self.ask_streams_to_go(until);
        }
        if std::process::id() == 1 {
            // Ending would end the container, whose restart policy would start it again: it would take over in its turn.
            tracing::info!("nothing is left: waits to be stopped");
            self.shutdown.asked().await;
        }
        self.shutdown.ask();
    }

    fn read_again(&self, table: Option<&mut Table<Member>>) {
        let Some(Err(error)) = table.map(|table| table.read_again(false)) else { return };
        // The status of the newer one waits for this process. It shall not for long.
        tracing::warn!(error = %kit::problem::chain(&error), "a newer table cannot be used here: ending soon");
        self.shutdown.ask();
    }

    /// Spread over half of the time, so that they do not all come again at one moment.
    fn ask_streams_to_go(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let spread = (self.drain / 2).as_millis().max(1);
        let gone = self.drain.saturating_sub(left).as_millis();
        let part = u64::try_from(gone * 1_000 / spread).unwrap_or(u64::MAX);
        for backend in self.balancer.all_backends() {
            backend.ask_streams_to_go(part);
        }
    }
}

/// The newer one is told: one that hears nothing takes this process for dead.
async fn refuse(channel: &mut Channel, error: &ChannelError) {
    let reason = match error {
        ChannelError::Unreadable(reason) => reason.clone(),
        error => error.to_string(),
    };
    let _ = channel.say(&PredecessorWord::Refuse { reason }).await;
}

fn unexpected(word: &SuccessorWord) -> ChannelError {
    ChannelError::Unreadable(format!("{word:?} out of its turn"))
}
