//! A platform on the real Docker: parts as containers, with the networks and the hardening of `compose/compose.yaml`.
//!
//! Its names, subnets, ports and volumes are its own, so a platform of `make up` beside it and this one never meet. All
//! of it is gone at the end, after a failed test as well.

pub mod archive;
mod command;
mod leftovers;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use archive::Image;
pub use command::docker;
use command::{feed, list, try_docker};

use crate::platform::Part;

/// One of 10.211.0.0/16 to 10.250.0.0/16: whoever got the network owns the rest, host ports included.
const RANGES: std::ops::RangeInclusive<u8> = 211..=250;
/// Below what the system gives to outgoing connections, and beside what the process engine gives to instances.
const PORTS_FROM: u16 = 18_000;

/// The containers of one platform.
#[derive(Debug)]
pub struct Docker {
    project: String,
    /// Second number of all its addresses.
    range: u8,
}

/// Whether a Docker Engine answers; said aloud when not, and a failure when it is required.
pub fn answers() -> bool {
    let Err(reason) = try_docker(&["version", "--format", "{{.Server.Version}}"]) else { return true };
    let required = std::env::var("PLATFORMER_TEST_DOCKER").is_ok_and(|word| word == "require");
    assert!(!required, "PLATFORMER_TEST_DOCKER=require, but: {reason}");
    #[expect(clippy::print_stdout, reason = "a skipped test must be seen")]
    {
        println!("SKIPPED: {reason}");
    }
    false
}

impl Docker {
    /// Everything but the parts' start.
    pub fn prepare(settings: &[(String, String)], keys: &Path) -> Self {
        leftovers::sweep();
        let mut made = Self { project: leftovers::new_name(), range: 0 };
        made.make_networks();
        made.load_images();
        std::thread::scope(|scope| {
            for part in Part::ALL {
                let made = &made;
                scope.spawn(move || made.create(part, settings));
            }
        });
        made.put_keys(keys);
        made
    }

    /// The edge sorts before every network that a part joins later, as in `compose/compose.yaml`.
    fn make_networks(&mut self) {
        let first = u8::try_from(std::process::id() % 40).expect("below 40");
        let mut reasons = Vec::new();
        for step in 0..40 {
            self.range = RANGES.start() + (first + step) % 40;
            match self.make_network("0-edge", 0) {
                Ok(_) => {
                    self.make_network("control", 1).unwrap_or_else(|reason| panic!("{reason}"));
                    return;
                }
                Err(reason) => reasons.push(reason),
            }
        }
        panic!("no range is free: {reasons:?}");
    }

    fn make_network(&self, name: &str, third: u8) -> Result<String, String> {
        let subnet = format!("10.{}.{third}.0/24", self.range);
        try_docker(&["network", "create", "--label", &self.label(), "--subnet", &subnet, &self.named(name)])
    }

    fn load_images(&self) {
        let mut images: Vec<Image> = ["repository", "controller", "lb", "dns"]
            .map(|name| {
                // The controller is root without capabilities, so its data is root's.
                let owner = if name == "controller" { 0 } else { archive::USER };
                let mut image = Image::of_platform(self.image(name), &format!("{owner}:65532"), &format!("/{name}"));
                image.program(name, name);
                image.directory("data", 0o750, owner, archive::USER);
                image
            })
            .into();
        let mut base = Image::of_platform(self.image("app-base"), "65532:65532", "/platformer/bin/boot");
        for (path, owner) in [("platformer", 0), ("platformer/bin", 0), ("platformer/instance", archive::USER)] {
            base.directory(path, 0o755, owner, owner);
        }
        base.program("platformer/bin/boot", "boot");
        base.directory("app", 0o755, archive::USER, archive::USER);
        base.shell();
        base.variable("PATH=/bin");
        base.variable("HOME=/home");
        images.push(base);
        let archive = archive::archive(images, (leftovers::PROJECT, &self.project));
        feed(&["load", "-q"], &archive).unwrap_or_else(|reason| panic!("{reason}"));
    }

    fn create(&self, part: Part, settings: &[(String, String)]) {
        let (name, kind) = (self.container(part), part.program());
        let volume = |name: &str, to: &str, read_only: bool| {
            let label = format!("volume-label={}", self.label());
            let read_only = if read_only { ",readonly" } else { "" };
            format!("type=volume,source={},target={to},{label}{read_only}", self.named(name))
        };
        let mut words: Vec<String> =
            ["create", "--restart", "unless-stopped", "--read-only", "--cap-drop", "ALL"].map(str::to_owned).into();
        let mut set = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        set("--name", name.clone());
        set("--label", self.label());
        set("--label", format!("io.platformer.part={kind}"));
        set("--security-opt", "no-new-privileges:true".to_owned());
        set("--pids-limit", "256".to_owned());
        set("--memory", if part == Part::Dns { "32m" } else { "80m" }.to_owned());
        set("--mount", volume(part.word(), "/data", false));
        // Docker copies nothing into what is mounted read-only, and the keys come through the controller.
        set("--mount", volume("keys", "/keys", part != Part::Controller));
        let both = matches!(part, Part::Lb1 | Part::Lb2 | Part::Dns);
        if both {
            set("--network", self.named("0-edge"));
        } else {
            set("--network", self.named("control"));
            set("--ip", self.control(part).to_string());
        }
        match part {
            Part::Controller => {
                set("--user", "0:65532".to_owned());
                set("--volume", "/var/run/docker.sock:/var/run/docker.sock".to_owned());
            }
            Part::Dns => set("--sysctl", "net.ipv4.ip_unprivileged_port_start=0".to_owned()),
            Part::Lb1 | Part::Lb2 => set("--publish", format!("{}:8080", self.listen(part))),
            Part::Repository => {}
        }
        for (name, value) in settings.iter().cloned().chain(self.environment(part)) {
            set("--env", format!("{name}={value}"));
        }
        words.push(self.image(kind));
        docker(&words.iter().map(String::as_str).collect::<Vec<_>>());
        if both {
            self.join(part);
        }
    }

    fn environment(&self, part: Part) -> Vec<(String, String)> {
        let (data, at) = ("/data".to_owned(), |port: u16| SocketAddr::from((self.control(part), port)).to_string());
        let controller = format!("http://{}:8081", self.container(Part::Controller));
        let repository = format!("http://{}:8082", self.container(Part::Repository));
        let settings = match part {
            Part::Repository => vec![
                ("PLATFORMER_REPOSITORY_LISTEN", "0.0.0.0:8082".to_owned()),
                ("PLATFORMER_REPOSITORY_ADMIN", at(9182)),
                ("PLATFORMER_REPOSITORY_DATA", data),
                ("PLATFORMER_TRUST_FILE", "/keys/cluster.json".to_owned()),
            ],
            Part::Controller => vec![
                ("PLATFORMER_CONTROLLER_LISTEN", "0.0.0.0:8081".to_owned()),
                ("PLATFORMER_CONTROLLER_DATA", data),
                ("PLATFORMER_CONTROLLER_ENGINE", "docker".to_owned()),
                ("PLATFORMER_KEYS", "/keys".to_owned()),
                ("PLATFORMER_CONTROLLER_REPOSITORY", repository.clone()),
                ("PLATFORMER_CONTROLLER_INSTANCE_REPOSITORY", repository),
                ("PLATFORMER_CONTROLLER_PUBLIC_REPOSITORY", format!("http://{}", self.listen(Part::Repository))),
                ("PLATFORMER_CONTROLLER_PUBLIC_DNS", self.listen(Part::Dns).to_string()),
                ("PLATFORMER_CONTROLLER_PUBLIC_LB", format!("http://{}", self.listen(Part::Lb1))),
                ("PLATFORMER_CONTROLLER_LB_ADMIN", format!("http://{}", self.admin(Part::Lb1))),
                ("PLATFORMER_RANGE", format!("10.{}.0.0/16", self.range)),
                ("PLATFORMER_PROJECT", self.project.clone()),
                ("PLATFORMER_BASE_IMAGE", self.image("app-base")),
            ],
            Part::Lb1 | Part::Lb2 => vec![
                ("PLATFORMER_LB_HTTP", "0.0.0.0:8080".to_owned()),
                ("PLATFORMER_LB_HTTPS", "0.0.0.0:8443".to_owned()),
                ("PLATFORMER_LB_ADMIN", at(9180)),
                ("PLATFORMER_LB_MEMBER", part.word().to_owned()),
                ("PLATFORMER_LB_DATA", data),
                ("PLATFORMER_TOKEN_FILE", "/keys/lb.token".to_owned()),
                ("PLATFORMER_CONTROLLER", controller),
            ],
            Part::Dns => vec![
                ("PLATFORMER_DNS_LISTEN", "0.0.0.0:53".to_owned()),
                ("PLATFORMER_DNS_ADMIN", at(9153)),
                ("PLATFORMER_DNS_MEMBER", "dns-1".to_owned()),
                ("PLATFORMER_DNS_DATA", data),
                ("PLATFORMER_TOKEN_FILE", "/keys/dns.token".to_owned()),
                ("PLATFORMER_CONTROLLER", controller),
            ],
        };
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What `platformer init` makes, in the volume that all parts read.
    fn put_keys(&self, keys: &Path) {
        let to = format!("{}:/keys", self.container(Part::Controller));
        feed(&["cp", "-", &to], &archive::keys(keys)).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Where a person reaches the part: lbs at a port of the host, the others where they stand.
    pub fn listen(&self, part: Part) -> SocketAddr {
        let port = PORTS_FROM + u16::from(self.range) * 2;
        match part {
            Part::Lb1 => (Ipv4Addr::LOCALHOST, port).into(),
            Part::Lb2 => (Ipv4Addr::LOCALHOST, port + 1).into(),
            Part::Controller => (self.control(part), 8081).into(),
            Part::Repository => (self.control(part), 8082).into(),
            Part::Dns => (self.control(part), 53).into(),
        }
    }

    pub fn admin(&self, part: Part) -> SocketAddr {
        let port = match part {
            Part::Controller => 8081,
            Part::Repository => 9182,
            Part::Lb1 | Part::Lb2 => 9180,
            Part::Dns => 9153,
        };
        (self.control(part), port).into()
    }

    /// One in the control network that no part has.
    pub fn spare_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.range, 1, 200)
    }

    fn control(&self, part: Part) -> Ipv4Addr {
        let last = match part {
            Part::Lb1 => 2,
            Part::Dns => 3,
            Part::Repository => 4,
            Part::Controller => 5,
            Part::Lb2 => 6,
        };
        Ipv4Addr::new(10, self.range, 1, last)
    }

    /// What everything of it carries.
    pub fn label(&self) -> String {
        format!("{}={}", leftovers::PROJECT, self.project)
    }

    /// What Docker calls something of it.
    pub fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.project)
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:test", self.project)
    }

    pub fn container(&self, part: Part) -> String {
        self.named(part.word())
    }

    /// Side by side: each waits for what it needs.
    pub fn start_all(&self) {
        std::thread::scope(|scope| {
            for part in Part::ALL {
                scope.spawn(move || self.start(part));
            }
        });
    }

    pub fn start(&self, part: Part) {
        docker(&["start", &self.container(part)]);
    }

    pub fn kill(&self, part: Part) {
        docker(&["kill", "-s", "KILL", &self.container(part)]);
    }

    pub fn pause(&self, part: Part) {
        docker(&["pause", &self.container(part)]);
    }

    pub fn resume(&self, part: Part) {
        docker(&["unpause", &self.container(part)]);
    }

    /// Takes it out of the control network: nobody of the platform hears of it, its traffic goes on.
    pub fn part_off(&self, part: Part) {
        docker(&["network", "disconnect", &self.named("control"), &self.container(part)]);
    }

    /// Puts it into the control network, where it has its place.
    pub fn join(&self, part: Part) {
        let (at, name) = (self.control(part).to_string(), self.container(part));
        docker(&["network", "connect", "--ip", &at, &self.named("control"), &name]);
    }

    /// A further network with this part in it, as the controller makes one for an environment.
    pub fn join_new_network(&self, part: Part, environment: &str) {
        let (network, third) = (self.named(&format!("env-{environment}")), 128);
        let subnet = format!("10.{}.{third}.0/20", self.range);
        docker(&["network", "create", "--label", &self.label(), "--subnet", &subnet, &network]);
        let at = format!("10.{}.{third}.2", self.range);
        docker(&["network", "connect", "--ip", &at, &network, &self.container(part)]);
    }

    /// Where an lb stands in the network of the default environment, the second of the range.
    pub fn in_production(&self, part: Part) -> Ipv4Addr {
        Ipv4Addr::new(10, self.range, 16, if part == Part::Lb2 { 5 } else { 2 })
    }

    /// A container of the base image beside the platform; answers its name.
    pub fn run_base(&self, words: &[&str]) -> String {
        let (name, label, network, image) =
            (self.named("base"), self.label(), self.named("control"), self.image("app-base"));
        let run = ["run", "-d", "--name", &name, "--label", &label, "--network", &network, &image];
        docker(&run.into_iter().chain(words.iter().copied()).collect::<Vec<_>>());
        name
    }

    pub fn log(&self, part: Part) -> String {
        let output = Command::new("docker").args(["logs", "--tail", "25", &self.container(part)]).output();
        output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default()
    }

    /// Containers of instances that run, by name.
    pub fn instances(&self) -> Vec<String> {
        let filter = format!("label={}", self.label());
        let mut names =
            list(&["ps", "--filter", &filter, "--filter", "label=io.platformer.app", "--format", "{{.Names}}"]);
        names.sort();
        names
    }

    /// Their first processes, as this machine numbers them.
    pub fn instance_processes(&self) -> Vec<i32> {
        let names = self.instances();
        let words = ["inspect", "-f", "{{.State.Pid}}"].into_iter().chain(names.iter().map(String::as_str));
        list(&words.collect::<Vec<_>>()).iter().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// An image of a test's own, to be written to a file; it is gone with the platform.
    pub fn archive(&self, image: Image) -> Vec<u8> {
        archive::archive(vec![image], (leftovers::PROJECT, &self.project))
    }

    /// Where its parts listen, where their admin endpoints are, and where lbs take requests over TLS.
    pub fn addresses(&self) -> [BTreeMap<Part, SocketAddr>; 3] {
        let of = |at: &dyn Fn(Part) -> SocketAddr| Part::ALL.iter().map(|part| (*part, at(*part))).collect();
        let mut https: BTreeMap<Part, SocketAddr> = of(&|part| (self.control(part), 8443).into());
        https.retain(|part, _| matches!(part, Part::Lb1 | Part::Lb2));
        [of(&|part| self.listen(part)), of(&|part| self.admin(part)), https]
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        leftovers::remove(&self.project);
    }
}
