//! Channel: messages and descriptors between two processes of one user on one machine.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// One message; the largest names every instance that has a connection (20,000).
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// What is read at once.
const PIECE_BYTES: usize = 16 << 10;
/// For one step of the other side that needs no thought.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("the other side is a process of user {theirs}, and this one of user {mine}")]
    Foreign { theirs: u32, mine: u32 },
    #[error("the other side is gone")]
    Gone,
    #[error("the other side said nothing for {0:?}")]
    Silent(Duration),
    #[error("the other side says what is not understood: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Io(io::Error),
}

/// Where a process ended before it had read everything, the system says so by an error.
impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// The other side of a hand-over.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    /// Of the next message, with the four bytes of its length.
    got: Vec<u8>,
}

impl Channel {
    /// None: nobody listens there.
    pub(crate) async fn to(path: &Path) -> Result<Option<Self>, ChannelError> {
        match UnixStream::connect(path).await {
            Ok(stream) => Self::of(stream).map(Some),
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Only a process of the same user is spoken with.
    pub(crate) fn of(stream: UnixStream) -> Result<Self, ChannelError> {
        let (theirs, mine) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
        if theirs != mine {
            return Err(ChannelError::Foreign { theirs, mine });
        }
        Ok(Self { stream, got: Vec::new() })
    }

    pub(crate) async fn say(&mut self, word: &impl Serialize) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(word).map_err(|error| ChannelError::Unreadable(error.to_string()))?;
        let length = u32::try_from(text.len()).map_err(|error| ChannelError::Unreadable(error.to_string()))?;
        let writing = async {
            self.stream.write_all(&length.to_be_bytes()).await?;
            self.stream.write_all(&text).await
        };
        in_time(STEP_LIMIT, writing).await
    }

    /// The next message, within `limit`.
    pub(crate) async fn hear_within<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, ChannelError> {
        tokio::time::timeout(limit, self.hear()).await.unwrap_or(Err(ChannelError::Silent(limit)))
    }

    /// The next message. Whoever gives up waiting loses nothing of it. Nothing behind it is read: descriptors come with
    /// their bytes.
    pub(crate) async fn hear<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        let mut piece = [0; PIECE_BYTES];
        loop {
            let wanted = match self.got.first_chunk::<4>() {
                None => 4,
                Some(length) => 4 + u32::from_be_bytes(*length) as usize,
            };
            if wanted > MESSAGE_BYTES_MAX {
                return Err(ChannelError::Unreadable(format!("a message of {wanted} bytes")));
            }
            if wanted > 4 && self.got.len() == wanted {
                let read = serde_json::from_slice(&self.got[4..]);
                self.got.clear();
                return read.map_err(|error| ChannelError::Unreadable(error.to_string()));
            }
            let room = (wanted - self.got.len()).clamp(1, PIECE_BYTES);
            match self.stream.read(&mut piece[..room]).await? {
                0 => return Err(ChannelError::Gone),
                read => self.got.extend_from_slice(&piece[..read]),
            }
        }
    }

    pub(crate) async fn pass(&mut self, descriptor: BorrowedFd<'_>) -> Result<(), ChannelError> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let (mut control, descriptors) = (SendAncillaryBuffer::new(&mut space), [descriptor]);
            let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
            debug_assert!(fits, "the space is for one");
            let sent = rustix::net::sendmsg(
                self.stream.as_fd(),
                &[IoSlice::new(b"+")],
                &mut control,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            );
            sent.map_err(io::Error::from)
        };
        in_time(STEP_LIMIT, self.stream.async_io(Interest::WRITABLE, send)).await.map(|_| ())
    }

    pub(crate) async fn receive(&mut self) -> Result<OwnedFd, ChannelError> {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let mut into = [IoSliceMut::new(&mut byte)];
            let received = rustix::net::recvmsg(self.stream.as_fd(), &mut into, &mut control, flags)?;
            let descriptor = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            Ok((received.bytes, descriptor))
        };
        match in_time(STEP_LIMIT, self.stream.async_io(Interest::READABLE, receive)).await? {
            (_, Some(descriptor)) => Ok(descriptor),
            (0, None) => Err(ChannelError::Gone),
            (_, None) => Err(ChannelError::Unreadable("a byte without its descriptor".to_owned())),
        }
    }
}

async fn in_time<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, ChannelError> {
    tokio::time::timeout(limit, step).await.map_err(|_| ChannelError::Silent(limit))?.map_err(ChannelError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn descriptors_arrive_between_messages_and_hostile_ones_end_it() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let (mut one, mut other) = (Channel::of(one).expect("the same user"), Channel::of(other).expect("the same"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        one.say(&"before").await.expect("said");
        one.pass(listener.as_fd()).await.expect("passed");
        one.say(&"after").await.expect("said");
        assert_eq!(other.hear::<String>().await.expect("heard"), "before");
        let passed = std::net::TcpListener::from(other.receive().await.expect("received"));
        assert_eq!(passed.local_addr().expect("bound"), listener.local_addr().expect("bound"));
        assert_eq!(other.hear::<String>().await.expect("heard"), "after");

        one.say(&"no number").await.expect("said");
        assert!(matches!(other.hear::<u32>().await, Err(ChannelError::Unreadable(_))));
        one.say(&"no descriptor").await.expect("said");
        assert!(matches!(other.receive().await, Err(ChannelError::Unreadable(_))));
        other.stream.write_all(&u32::MAX.to_be_bytes()).await.expect("written");
        assert!(matches!(one.hear::<String>().await, Err(ChannelError::Unreadable(_))));
        one.got.clear();
        one.say(&"unread").await.expect("said");
        drop(other);
        assert!(matches!(one.hear::<String>().await, Err(ChannelError::Gone)));
        assert!(matches!(one.say(&"anybody").await, Err(ChannelError::Gone)));
    }
}
