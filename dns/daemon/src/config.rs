//! What a name server is told at its start.

use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1053);
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9153);
const MEMBER: &str = "dns-1";
/// Where upstreams listen when no port is given.
pub(crate) const DNS_PORT: u16 = 53;

#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where questions are answered, over UDP and TCP.
    #[arg(long, env = "PLATFORMER_DNS_LISTEN", default_value_t = LISTEN)]
    pub listen: SocketAddr,
    /// Where health and metrics are told; keep it on a private address.
    #[arg(long, env = "PLATFORMER_DNS_ADMIN", default_value_t = ADMIN)]
    pub admin: SocketAddr,
    /// The name under which the controller knows this server.
    #[arg(long, env = "PLATFORMER_DNS_MEMBER", default_value = MEMBER)]
    pub member: String,
    /// Base URL of the controller whose table is followed.
    #[arg(long, env = "PLATFORMER_CONTROLLER")]
    pub controller: Option<String>,
    /// File with the token for the controller.
    #[arg(long, env = "PLATFORMER_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Directory that keeps the last good table.
    #[arg(long, env = "PLATFORMER_DNS_DATA")]
    pub data: Option<PathBuf>,
    /// A table file (JSON) to serve without a controller; read again on SIGHUP.
    #[arg(long, value_name = "FILE", conflicts_with = "controller")]
    pub table: Option<PathBuf>,
    /// Who is asked about other domains, `address[:port]`, comma separated [default: those of /etc/resolv.conf]
    #[arg(long, env = "PLATFORMER_DNS_UPSTREAMS", value_delimiter = ',', value_parser = upstream)]
    pub upstreams: Vec<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: LISTEN,
            admin: ADMIN,
            member: MEMBER.to_owned(),
            controller: None,
            token_file: None,
            data: None,
            table: None,
            upstreams: Vec::new(),
        }
    }
}

/// An address with or without a port.
fn upstream(text: &str) -> Result<SocketAddr, AddrParseError> {
    let text = text.trim();
    text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT)).or_else(|_| text.parse())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn the_command_line_and_default_agree() {
        let parsed = Line::parse_from(["dns"]).config;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn upstreams_may_leave_out_the_port() {
        let line = Line::parse_from(["dns", "--upstreams", "192.0.2.1,[::1]:5353, 2001:db8::1"]);
        let texts: Vec<String> = line.config.upstreams.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.0.2.1:53", "[::1]:5353", "[2001:db8::1]:53"]);
        assert!(Line::try_parse_from(["dns", "--upstreams", "example"]).is_err());
    }
}
