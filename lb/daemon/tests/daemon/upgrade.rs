//! One lb takes over from another: real processes of the program, beside a stand-in controller.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::MemberStatus;
use axum::http::Method;
use futures_util::{SinkExt, StreamExt};
use kit::{Shutdown, Tasks};
use lb_core::v1::handover::{PredecessorWord, SuccessorWord};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::app::App;
use crate::client::{Client, request};
use crate::controller::Controller;
use crate::every::{Apps, Load};
use crate::stage::{Active, Draining, section};

/// A process of lb.
struct Lb {
    child: Child,
    http: SocketAddr,
    https: SocketAddr,
    /// The process that it has started.
    renewed: watch::Receiver<Option<i32>>,
}

/// A controller, a data directory, and tasks: where lbs come and go.
struct Yard {
    tasks: Tasks,
    shutdown: Shutdown,
    controller: Arc<Controller>,
    data: tempfile::TempDir,
}

impl Yard {
    async fn new() -> Self {
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let controller = Controller::start(&tasks, &shutdown).await;
        Self { tasks, shutdown, controller, data: tempfile::tempdir().unwrap() }
    }

    fn command(&self, threads: usize) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_lb")), threads)
    }

    fn command_of(&self, program: &Path, threads: usize) -> Command {
        let mut command = Command::new(program);
        command.args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--controller", &format!("http://{}", self.controller.address), "--drain", "60"]);
        command.args(["--threads", &threads.to_string()]).arg("--data").arg(self.data.path());
        command.env_remove("RUST_LOG").stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// One that serves, alone or after another.
    async fn lb(&self, threads: usize) -> Lb {
        self.spawned(self.command(threads).spawn().unwrap()).await.expect("it serves")
    }

    /// Err: what its log says.
    async fn spawned(&self, mut child: Child) -> Result<Lb, String> {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["message"] == "load balancer serves" {
                    let address = |name: &str| entry[name].as_str().unwrap().parse().unwrap();
                    return Some((address("http"), address("https")));
                }
                said.push_str(&line);
                said.push('\n');
            }
            None
        };
        let limit = Duration::from_secs(20);
        let found = tokio::time::timeout(limit, listening).await.expect("it serves or ends in time");
        let Some((http, https)) = found else { return Err(said) };
        // A pipe that nobody reads would fill.
        let (renewing, renewed) = watch::channel(None);
        self.tasks.spawn("log", async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(pid) = entry["pid"].as_i64() {
                    renewing.send_replace(i32::try_from(pid).ok());
                }
            }
        });
        Ok(Lb { child, http, https, renewed })
    }

    async fn up(&self, id: &str) {
        self.controller.until_instance(id, "up", |report| report.health == appbase_core::v1::Health::Up).await;
    }

    /// The first status of another process than the one that reports now.
    async fn reported_by_another(&self, than: &MemberStatus) -> MemberStatus {
        self.controller.until("another process", |status| status.boot != than.boot).await
    }

    async fn status(&self) -> MemberStatus {
        self.controller.until("anything", |_| true).await
    }

    /// Speaks with the lb that serves, in words of one's own.
    async fn said(&self, word: &SuccessorWord) -> (UnixStream, PredecessorWord) {
        let mut stream = UnixStream::connect(self.data.path().join("handover")).await.unwrap();
        let text = serde_json::to_vec(word).unwrap();
        stream.write_all(&(text.len() as u32).to_be_bytes()).await.unwrap();
        stream.write_all(&text).await.unwrap();
        let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut answer).await.unwrap();
        (stream, serde_json::from_slice(&answer).unwrap())
    }

    async fn end(self) {
        self.shutdown.ask();
    }
}

impl Lb {
    async fn ends_well(mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        let status = ended.expect("it ends by itself").unwrap();
        assert!(status.success(), "{status}");
    }

    /// kill -9, and only it.
    async fn killed(mut self) {
        self.child.kill().await.unwrap();
    }
}

async fn yard_with_app(name: &'static str) -> (Yard, Arc<App>, Lb) {
    let yard = Yard::new().await;
    let app = App::start(name, &yard.tasks, &yard.shutdown).await;
    let lb = yard.lb(2).await;
    yard.controller.publish(&[section(&[(&app, Active)])]).await;
    yard.up(name).await;
    (yard, app, lb)
}

/// Five upgrades and flips between them, and nobody of any protocol notices. The number of threads changes as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_upgrades_under_everything_lose_nothing() {
    let yard = Yard::new().await;
    let apps = Apps::start(&yard.tasks, &yard.shutdown).await;
    let mut lb = yard.lb(2).await;
    yard.controller.publish(&apps.tables[0]).await;
    for name in Apps::INSTANCES {
        yard.up(name).await;
    }
    let load = Load::start(&apps, (lb.http, lb.https), true, &yard.tasks);
    let mut leaving = Vec::new();
    for (upgrade, threads) in [1, 3, 2, 2, 1].into_iter().enumerate() {
        load.goes_on(2).await;
        let before = yard.status().await;
        let newer = yard.lb(threads).await;
        assert_eq!((newer.http, newer.https), (lb.http, lb.https));
        yard.reported_by_another(&before).await;
        leaving.push(std::mem::replace(&mut lb, newer));
        yard.controller.publish(&apps.tables[(upgrade + 1) % 2]).await;
    }
    load.goes_on(5).await;
    // Each of them, also those that ended while one before them still carried something.
    for lb in leaving {
        lb.ends_well().await;
    }
    load.goes_on(1).await;
    load.end().await;
    assert!(apps.executed().values().all(|times| *times == 1), "a POST was carried out twice");
    lb.killed().await;
    yard.end().await;
}

/// What an older lb carries holds an instance as what the newer one carries does.
#[tokio::test]
async fn an_instance_is_not_drained_while_the_older_lb_uses_it() {
    let (yard, one, lb) = yard_with_app("one").await;
    let two = App::start("two", &yard.tasks, &yard.shutdown).await;
    let mut slow = Client::connect(lb.http, &yard.tasks).await.unwrap();
    let mut idle = Client::connect(lb.http, &yard.tasks).await.unwrap();
    idle.get("/").await.unwrap();
    let events = slow.begin(request(Method::GET, "/events", "")).await.unwrap();
    yard.controller.until_instance("one", "a stream", |report| report.streams == 1).await;

    let before = yard.status().await;
    let newer = yard.lb(2).await;
    yard.reported_by_another(&before).await;
    let mut flipped = section(&[(&one, Draining), (&two, Active)]);
    flipped.drain.streams_ms = 60_000;
    let generation = yard.controller.publish(&[flipped]).await;
    // Its status is that of both, also of what holds.
    let in_force = |status: &MemberStatus| status.in_force.as_ref() == Some(&generation);
    let status = yard.controller.until("the flip in force at both", in_force).await;
    let report = &status.instances[&appbase_core::InstanceId::parse("one").unwrap()];
    assert_eq!((report.drained, report.streams), (false, 1));
    // A connection of the older one learns of the flip, and that it was the last answer.
    yard.up("two").await;
    let answer = idle.get("/").await.unwrap();
    assert_eq!((answer.body.as_str(), &answer.headers["connection"]), ("two", &"close".parse().unwrap()));

    drop((events, slow));
    yard.controller.until_instance("one", "drained", |report| report.drained).await;
    lb.ends_well().await;
    newer.killed().await;
    yard.end().await;
}

/// Whoever is killed, at whatever step: there is one that serves.
#[tokio::test]
async fn one_that_is_gone_before_it_serves_changes_nothing() {
    let (yard, one, lb) = yard_with_app("one").await;
    let take = SuccessorWord::Take { speaks: vec![1], release: "9.9.9".to_owned(), network: None };
    let (stream, answer) = yard.said(&take).await;
    let PredecessorWord::Listeners { listeners, .. } = answer else { panic!("{answer:?}") };
    let names: Vec<_> = listeners.iter().map(|offered| offered.name.as_str()).collect();
    assert_eq!(names, ["http", "http", "https", "https", "admin", "handover"]);
    drop(stream);

    // Gone as late as can be: the older one stands still, and follows again.
    let (mut stream, _) = yard.said(&take).await;
    for _ in 0..6 {
        // One by one: a read ends at each descriptor.
        stream.read_u8().await.unwrap();
    }
    let still = serde_json::to_vec(&SuccessorWord::StandStill).unwrap();
    stream.write_all(&(still.len() as u32).to_be_bytes()).await.unwrap();
    stream.write_all(&still).await.unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.unwrap();
    yard.controller.offer(&[section(&[(&one, Draining)])]);
    let still = yard.status().await;
    drop(stream);
    let follows = |status: &MemberStatus| status.in_force != still.in_force && status.boot == still.boot;
    yard.controller.until("followed again", follows).await;
    let mut client = Client::connect(lb.http, &yard.tasks).await.unwrap();
    client.get("/").await.unwrap();
    lb.killed().await;
    yard.end().await;
}

#[tokio::test]
async fn a_killed_older_one_takes_nothing_along() {
    let (yard, _one, lb) = yard_with_app("one").await;
    let address = lb.http;
    let mut socket = Client::connect(address, &yard.tasks).await.unwrap();
    let events = socket.begin(request(Method::GET, "/events", "")).await.unwrap();
    yard.controller.until_instance("one", "a stream", |report| report.streams == 1).await;
    let before = yard.status().await;
    let newer = yard.lb(2).await;
    yard.reported_by_another(&before).await;
    yard.controller.until_instance("one", "the stream of the older one", |report| report.streams == 1).await;
    lb.killed().await;
    yard.controller.until_instance("one", "no stream", |report| report.streams == 0).await;
    drop(events);
    let mut client = Client::connect(address, &yard.tasks).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().body, "one");
    // Both are: the next one is a normal start.
    newer.killed().await;
    let third = yard.lb(1).await;
    let mut client = Client::connect(third.http, &yard.tasks).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().body, "one");
    yard.end().await;
}

#[tokio::test]
async fn other_versions_and_networks_are_refused_and_told_why() {
    let (yard, _one, lb) = yard_with_app("one").await;
    let release = || "9.9.9".to_owned();
    let take = SuccessorWord::Take { speaks: vec![2, 3], release: release(), network: None };
    let (_, answer) = yard.said(&take).await;
    let PredecessorWord::Refuse { reason } = answer else { panic!("{answer:?}") };
    assert!(reason.starts_with("release 9.9.9 hands over in versions [2, 3], this one"), "{reason}");
    // The listeners would end with the network that is not its own.
    let take = SuccessorWord::Take { speaks: vec![1], release: release(), network: Some(1) };
    let (_, answer) = yard.said(&take).await;
    let PredecessorWord::Refuse { reason } = answer else { panic!("{answer:?}") };
    assert!(reason.starts_with("it is in another network"), "{reason}");
    let (_, answer) = yard.said(&SuccessorWord::Serve).await;
    assert_eq!(answer, PredecessorWord::Refuse { reason: "Serve out of its turn".to_owned() });
    let mut client = Client::connect(lb.http, &yard.tasks).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().body, "one");
    yard.end().await;
}

/// Root may open every socket, and is another user all the same. Nobody else can become one to try.
#[tokio::test]
async fn another_users_process_gets_nothing() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (yard, _one, lb) = yard_with_app("one").await;
    let socket = std::fs::metadata(yard.data.path().join("handover")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    if socket.uid() != 0 {
        return;
    }
    lb.killed().await;
    // Where the program is, another user may not look.
    let program = yard.data.path().join("lb");
    std::fs::copy(env!("CARGO_BIN_EXE_lb"), &program).unwrap();
    for path in [yard.data.path().to_owned()].into_iter().chain(files(yard.data.path())) {
        std::os::unix::fs::chown(path, Some(65_532), Some(65_532)).unwrap();
    }
    let mut command = yard.command_of(&program, 2);
    command.uid(65_532).gid(65_532);
    let lb = yard.spawned(command.spawn().unwrap()).await.unwrap();
    let mut stream = UnixStream::connect(yard.data.path().join("handover")).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"", "not a word");
    let reason = yard.spawned(yard.command(2).spawn().unwrap()).await.err().expect("it does not serve");
    assert!(reason.contains("the other side is a process of user 65532, and this one of user 0"), "{reason}");
    let mut client = Client::connect(lb.http, &yard.tasks).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().body, "one");
    yard.end().await;
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Ends a process that the test did not start itself.
struct Killed(rustix::process::Pid);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
    }
}

/// A signal starts the program anew, and WebSockets of the older one are asked to go.
#[tokio::test]
async fn a_signal_renews_it() {
    let yard = Yard::new().await;
    let app = App::websocket("socket", &yard.tasks).await;
    let child = yard.command(2).spawn().unwrap();
    let mut lb = yard.spawned(child).await.unwrap();
    yard.controller.publish(&[section(&[(&app, Active)])]).await;
    yard.up("socket").await;
    let stream = tokio::net::TcpStream::connect(lb.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{}/", lb.http), stream).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "socket hello");

    let before = yard.status().await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(lb.child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR2).unwrap();
    let newer = lb.renewed.wait_for(Option::is_some).await.unwrap().unwrap();
    let _newer = Killed(rustix::process::Pid::from_raw(newer).unwrap());
    yard.reported_by_another(&before).await;
    // It is still there, and was asked to go at some moment of half of the time there is.
    let goodbye = socket.next().await.unwrap().unwrap();
    let Message::Close(Some(goodbye)) = goodbye else { panic!("{goodbye:?}") };
    assert_eq!(u16::from(goodbye.code), 1001);
    while let Some(Ok(_)) = socket.next().await {}
    lb.ends_well().await;
    yard.end().await;
}
