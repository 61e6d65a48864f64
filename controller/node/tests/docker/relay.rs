//! Relay: a socket between the engine and Docker that can be taken away and put back.

use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

pub(crate) struct Relay {
    pub(crate) socket: PathBuf,
    running: Option<kit::Shutdown>,
    tasks: kit::Tasks,
}

impl Relay {
    pub(crate) fn new(directory: &Path) -> Self {
        let mut relay = Self { socket: directory.join("relay.sock"), running: None, tasks: kit::Tasks::new() };
        relay.put_back();
        relay
    }

    /// Ends every connection and listens no more.
    pub(crate) fn take_away(&mut self) {
        self.running.take().expect("it is there").ask();
        std::fs::remove_file(&self.socket).expect("removed");
    }

    pub(crate) fn put_back(&mut self) {
        let listener = UnixListener::bind(&self.socket).expect("bound");
        let shutdown = kit::Shutdown::new();
        let asked = shutdown.asked();
        self.running = Some(shutdown);
        self.tasks.spawn("relay", async move {
            let mut connections = JoinSet::new();
            let accept = async {
                while let Ok((mut near, _)) = listener.accept().await {
                    connections.spawn(async move {
                        let Ok(mut far) = UnixStream::connect("/var/run/docker.sock").await else { return };
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            };
            tokio::select! { () = asked => {}, () = accept => {} }
        });
    }
}
