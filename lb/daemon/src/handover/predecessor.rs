//! Predecessor: the lb that serves here, as one sees it that takes over from it.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kit::{Shutdown, Tasks};
use lb_core::v1::handover::{Left, Offered, PredecessorWord, SuccessorWord, VERSION};
use tokio::net::UnixListener;
use tokio::time::Instant;

use super::channel::{Channel, ChannelError, STEP_LIMIT};
use super::{HandoverError, SOCKET};
use crate::balancer::Balancer;

/// What is active is asked once before it is relied on; one that says nothing is waited for as long as this.
const READY_LIMIT: Duration = Duration::from_secs(5);
/// While the predecessor stands still: far less than what it waits.
const READY_AGAIN_LIMIT: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Beyond the time after which the predecessor says that it ends.
const LATE_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Predecessor {
    /// None: it is gone. Then its listeners are here alone.
    channel: Option<Channel>,
    listeners: Vec<(Offered, OwnedFd)>,
}

/// One that carries what it has to its end.
pub(crate) struct Leaving {
    channel: Channel,
    left: Left,
}

impl Predecessor {
    /// Asks the lb that waits at `path` for its listeners. None: there is none.
    pub(crate) async fn find(path: &Path) -> Result<Option<Self>, HandoverError> {
        let Some(mut channel) = Channel::to(path).await? else { return Ok(None) };
        let release = env!("CARGO_PKG_VERSION").to_owned();
        let take = SuccessorWord::Take { speaks: vec![VERSION], release, network: super::network() };
        let listeners = match ask(&mut channel, &take).await {
            Ok(PredecessorWord::Listeners { listeners, release, .. }) => {
                tracing::info!(release, "takes over from the load balancer that serves here");
                listeners
            }
            // It ended this moment.
            Err(ChannelError::Gone) => return Ok(None),
            other => return Err(unexpected(other)),
        };
        let mut received = Vec::new();
        for offered in listeners {
            received.push((offered, channel.receive().await?));
        }
        Ok(Some(Self { channel: Some(channel), listeners: received }))
    }

    /// Its listeners of this name where they are wanted. What nobody takes stays the predecessor's.
    pub(crate) fn take(&mut self, name: &str, wanted: SocketAddr) -> Vec<TcpListener> {
        let fits = |offered: &Offered| {
            let is_there = |address: SocketAddr| {
                address.ip() == wanted.ip() && (address.port() == wanted.port() || wanted.port() == 0)
            };
            offered.name == name && offered.address.is_some_and(is_there)
        };
        self.listeners.extract_if(.., |(offered, _)| fits(offered)).map(|(_, listener)| listener.into()).collect()
    }

    /// Where it waits for the one after it.
    pub(crate) fn take_socket(&mut self) -> Option<UnixListener> {
        let at = self.listeners.iter().position(|(offered, _)| offered.name == SOCKET)?;
        let listener = std::os::unix::net::UnixListener::from(self.listeners.remove(at).1);
        listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).ok()
    }

    /// Waits for the first probes of all instances: nobody's request shall have to. Then the predecessor stands still, and
    /// `read_again` puts in force what it has in force.
    pub(crate) async fn stand_still(
        &mut self,
        balancer: &Balancer,
        read_again: impl FnOnce() -> Result<(), crate::RunError>,
    ) -> Result<(), crate::RunError> {
        until_decided(balancer, READY_LIMIT).await;
        let Some(channel) = &mut self.channel else { return read_again() };
        let theirs = match ask(channel, &SuccessorWord::StandStill).await {
            Ok(PredecessorWord::Still { in_force }) => in_force,
            Err(ChannelError::Gone) => {
                self.channel = None;
                return read_again();
            }
            other => return Err(unexpected(other).into()),
        };
        read_again()?;
        let mine = balancer.in_force.generation();
        if let Some(theirs) = theirs
            && mine.as_ref() != Some(&theirs)
        {
            let mine = mine.map_or_else(|| "none".to_owned(), |mine| mine.to_string());
            return Err(HandoverError::OtherTable { theirs, mine }.into());
        }
        until_decided(balancer, READY_AGAIN_LIMIT).await;
        Ok(())
    }

    /// Says that this process serves. None: there is nobody any more who would have to leave.
    pub(crate) async fn serve(self) -> Result<Option<Leaving>, HandoverError> {
        let Some(mut channel) = self.channel else { return Ok(None) };
        match ask(&mut channel, &SuccessorWord::Serve).await {
            Ok(PredecessorWord::Left(left)) => Ok(Some(Leaving { channel, left })),
            Err(ChannelError::Gone) => Ok(None),
            other => Err(unexpected(other)),
        }
    }
}

impl Leaving {
    /// From now on a status is that of both. Ends when the predecessor has.
    pub(crate) fn watch(self, balancer: &Arc<Balancer>, tasks: &Tasks, shutdown: &Shutdown) {
        let (balancer, asked) = (Arc::clone(balancer), shutdown.asked());
        let Self { mut channel, left } = self;
        let mut until = Instant::now() + Duration::from_millis(left.within_ms) + LATE_LIMIT;
        balancer.remaining.set(Some(left));
        tasks.spawn("handover-predecessor", async move {
            let leaving = async {
                loop {
                    tokio::select! {
                        heard = channel.hear() => match heard {
                            Ok(PredecessorWord::Left(left)) => {
                                until = Instant::now() + Duration::from_millis(left.within_ms) + LATE_LIMIT;
                                balancer.remaining.set(Some(left));
                                balancer.in_force.changed();
                            }
                            Ok(_) => {}
                            Err(ChannelError::Gone) => return,
                            Err(error) => return tracing::warn!(error = %error, "the load balancer before this one is lost"),
                        },
                        () = balancer.remaining.saved.notified() => {
                            if let Err(error) = channel.say(&SuccessorWord::TableSaved).await {
                                tracing::debug!(error = %error, "the load balancer before this one does not listen");
                            }
                        }
                        () = tokio::time::sleep_until(until) => {
                            return tracing::warn!("the load balancer before this one says nothing: taken for ended");
                        }
                    }
                }
            };
            tokio::select! { () = leaving => {}, () = asked => return }
            tracing::info!("the load balancer before this one has ended");
            balancer.remaining.set(None);
            balancer.in_force.changed();
        });
    }
}

async fn ask(channel: &mut Channel, word: &SuccessorWord) -> Result<PredecessorWord, ChannelError> {
    channel.say(word).await?;
    channel.hear_within(STEP_LIMIT).await
}

fn unexpected(heard: Result<PredecessorWord, ChannelError>) -> HandoverError {
    match heard {
        Ok(PredecessorWord::Refuse { reason }) => HandoverError::Refused(reason),
        Ok(other) => HandoverError::Broken(format!("it says {other:?}")),
        Err(error) => error.into(),
    }
}

async fn until_decided(balancer: &Balancer, limit: Duration) {
    let decided = async {
        while balancer.is_undecided() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    if tokio::time::timeout(limit, decided).await.is_err() {
        tracing::warn!("serves although some instances have not answered their first probe");
    }
}
