//! Upstreams: who is asked about names that are not ours.
//!
//! One question goes to one upstream at a time, beginning with the one that answered last, each over a socket of its
//! own (random port) under a random id; the whole takes no longer than an asker waits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dns_core::{Forward, UpstreamReply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::config::DNS_PORT;

/// For one question in all: below the 5 s after which resolver libraries give up.
const BUDGET: Duration = Duration::from_secs(4);
/// For one upstream over one transport before the next is asked.
const ATTEMPT: Duration = Duration::from_millis(1200);
/// Packets that are not the reply: somebody guesses; then TCP, where guessing is hard.
const MISMATCHES_MAX: usize = 8;
const UPSTREAMS_MAX: usize = 8;
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[derive(Debug)]
pub(crate) struct Upstreams {
    addresses: Vec<SocketAddr>,
    /// Which one answered last.
    preferred: AtomicUsize,
}

/// How one upstream did.
enum Attempt {
    Reply(Vec<u8>),
    /// It answered, but that it cannot.
    Cannot,
    Silent,
}

impl Upstreams {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, preferred: AtomicUsize::new(0) }
    }

    /// The reply of the first that has one; none when all failed or time is over.
    pub(crate) async fn ask(&self, forward: &Forward) -> Option<Vec<u8>> {
        timeout(BUDGET, self.ask_in_turn(forward)).await.ok().flatten()
    }

    async fn ask_in_turn(&self, forward: &Forward) -> Option<Vec<u8>> {
        let count = self.addresses.len();
        loop {
            let mut silent = false;
            let first = self.preferred.load(Ordering::Relaxed);
            for number in (first..first + count).map(|number| number % count) {
                match attempt(self.addresses[number], forward).await {
                    Attempt::Reply(reply) => {
                        self.preferred.store(number, Ordering::Relaxed);
                        return Some(reply);
                    }
                    Attempt::Cannot => {}
                    Attempt::Silent => silent = true,
                }
            }
            // Packets get lost, so the silent are asked again while time lasts; those who cannot are not.
            if !silent {
                return None;
            }
        }
    }
}

async fn attempt(upstream: SocketAddr, forward: &Forward) -> Attempt {
    let over_udp = match timeout(ATTEMPT, ask_udp(upstream, forward)).await {
        Ok(Ok(reply)) => reply,
        // Nobody listens there: say so later rather than asking in a spin.
        Ok(Err(_)) => return Attempt::Cannot,
        Err(_) => return Attempt::Silent,
    };
    match over_udp {
        Udp::Reply(UpstreamReply::Final { .. }, reply) => Attempt::Reply(reply),
        Udp::Reply(UpstreamReply::Truncated, reply) if !forward.wants_all() => Attempt::Reply(reply),
        Udp::Reply(UpstreamReply::TryNext { .. }, _) => Attempt::Cannot,
        Udp::Reply(UpstreamReply::Truncated, _) | Udp::Guessed => {
            match timeout(ATTEMPT, ask_tcp(upstream, forward)).await {
                Ok(Ok(Some(reply))) => Attempt::Reply(reply),
                Ok(Ok(None) | Err(_)) => Attempt::Cannot,
                Err(_) => Attempt::Silent,
            }
        }
    }
}

enum Udp {
    Reply(UpstreamReply, Vec<u8>),
    Guessed,
}

async fn ask_udp(upstream: SocketAddr, forward: &Forward) -> std::io::Result<Udp> {
    let any: IpAddr = if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // Connected: packets of others do not come in at all.
    socket.connect(upstream).await?;
    let id = u16::from_le_bytes(kit::random::bytes());
    socket.send(&forward.query(id)).await?;
    let mut packet = vec![0; 4096];
    for _ in 0..MISMATCHES_MAX {
        let length = socket.recv(&mut packet).await?;
        if let Ok(meaning) = forward.accept(id, &packet[..length]) {
            packet.truncate(length);
            return Ok(Udp::Reply(meaning, packet));
        }
    }
    tracing::warn!(%upstream, "packets that answer nothing asked came in its name: asking over TCP");
    Ok(Udp::Guessed)
}

async fn ask_tcp(upstream: SocketAddr, forward: &Forward) -> std::io::Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let id = u16::from_le_bytes(kit::random::bytes());
    let query = forward.query(id);
    let length = u16::try_from(query.len()).expect("a question is at most 282 bytes");
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    Ok(matches!(forward.accept(id, &reply), Ok(UpstreamReply::Final { .. })).then_some(reply))
}

/// Those of `wanted`, or else of resolv.conf, that are not this server itself.
pub(crate) fn usable(wanted: &[SocketAddr], dns: SocketAddr) -> Vec<SocketAddr> {
    let mut upstreams = wanted.to_vec();
    if upstreams.is_empty() {
        upstreams = std::fs::read_to_string(RESOLV_CONF).map(|text| name_servers(&text)).unwrap_or_default();
    }
    upstreams.retain(|upstream| {
        let own = is_own(*upstream, dns);
        if own {
            tracing::warn!(%upstream, "upstream is this server itself: left out");
        }
        !own
    });
    upstreams.truncate(UPSTREAMS_MAX);
    if upstreams.is_empty() {
        tracing::warn!("no upstream: questions about other domains get SERVFAIL");
    }
    upstreams
}

fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| Some(SocketAddr::new(rest.trim().parse().ok()?, DNS_PORT))).collect()
}

/// Docker's own resolver inside a container: a local address, but rules of its network carry it elsewhere.
const DOCKER_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

fn is_own(upstream: SocketAddr, dns: SocketAddr) -> bool {
    let (ip, mine) = (upstream.ip().to_canonical(), dns.ip().to_canonical());
    if ip == DOCKER_RESOLVER && mine != DOCKER_RESOLVER {
        return false;
    }
    // Only addresses of this machine can be bound.
    let local = || std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok();
    let same = ip == mine || ip.is_unspecified() || (mine.is_unspecified() && local());
    upstream.port() == dns.port() && same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_resolver_is_nobodys_own() {
        let on = |text: &str| text.parse().expect("an address");
        assert!(!is_own(on("127.0.0.11:53"), on("0.0.0.0:53")));
        assert!(is_own(on("127.0.0.1:53"), on("0.0.0.0:53")));
    }

    #[test]
    fn name_servers_are_read_as_the_resolver_does() {
        let text = "# nameserver 192.0.2.9\nsearch a\nnameserver 127.0.0.11\n nameserver\t::1\nnameserver x\n";
        let texts: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["127.0.0.11:53", "[::1]:53"]);
    }

    #[test]
    fn nobody_forwards_to_oneself() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let wanted = ["127.0.0.1:1053", "192.0.2.1:1053", "127.0.0.1:53", "0.0.0.0:1053"].map(address);
        let usable = |dns| usable(&wanted, address(dns)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(usable("0.0.0.0:1053"), ["192.0.2.1:1053", "127.0.0.1:53"]);
        assert_eq!(usable("127.0.0.1:1053"), ["192.0.2.1:1053", "127.0.0.1:53"]);
    }
}
