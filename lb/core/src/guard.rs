//! Guard: whether a request comes to an app at all. What a route asks is in `appbase_core::v1::Guard`; here are the
//! answers, without a clock and without memory: the daemon keeps one number for each who is counted.

use std::net::IpAddr;
use std::time::Duration;

use appbase_core::v1::{Cors, Guard, Rate, RateOf};

use crate::http1::{BodyLength, Fields};
use crate::{basic, forward, rule};

/// Why a request does not come to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The client is in none of the networks.
    Network,
    /// Its body says of itself that it is larger.
    TooLarge { bytes_max: u64 },
}

/// What a head alone tells.
pub fn check(guard: &Guard, client: IpAddr, body: BodyLength) -> Result<(), Denied> {
    if !guard.networks.is_empty() && !guard.networks.iter().any(|network| network.contains(client)) {
        return Err(Denied::Network);
    }
    match (body, guard.request_bytes_max) {
        (BodyLength::Bytes(bytes), Some(bytes_max)) if bytes > bytes_max => Err(Denied::TooLarge { bytes_max }),
        _ => Ok(()),
    }
}

/// Whose requests count with those of this client.
pub fn counted(of: RateOf, client: IpAddr) -> Option<IpAddr> {
    match (of, client) {
        (RateOf::Route, _) => None,
        (RateOf::Client, IpAddr::V4(_)) => Some(client),
        (RateOf::Client, IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Some(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
        }
    }
}

/// The time between two requests that come evenly.
pub fn pace(rate: &Rate) -> Duration {
    Duration::from_secs(rate.seconds.into()) / rate.requests.max(1)
}

/// Lets one more request through, or says when one may come. `due`: when, at the rate's own pace, the requests so far would
/// all have come (the generic cell rate algorithm, ITU-T I.371); 0 at first. Both times are of one clock that only rises.
pub fn pass(rate: &Rate, due: &mut Duration, now: Duration) -> Result<(), Duration> {
    let between = pace(rate);
    let burst = rate.burst.unwrap_or(rate.requests).max(1);
    let allowed = between * (burst - 1);
    // A rate that was slower until now holds nobody up at its old pace.
    *due = (*due).clamp(now, now + allowed + between);
    let ahead = *due - now;
    if ahead > allowed {
        return Err(ahead - allowed);
    }
    *due += between;
    Ok(())
}

/// What CORS has for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing<'a> {
    /// No page of another site asks, or none that may: the answer says nothing of it.
    None,
    /// The answer may be read by this origin.
    Granted(&'a str),
    /// A browser asks beforehand whether it may: the answer is lb's.
    Preflight(&'a str),
}

pub fn crossing<'a>(cors: &Cors, method: &str, fields: &'a Fields) -> Crossing<'a> {
    let Some(origin) = value(fields, "origin") else { return Crossing::None };
    if !cors.origins.contains("*") && !cors.origins.contains(origin) {
        return Crossing::None;
    }
    match method {
        "OPTIONS" if value(fields, "access-control-request-method").is_some() => Crossing::Preflight(origin),
        _ => Crossing::Granted(origin),
    }
}

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(field.value).ok()
}

/// What an answer says of CORS, as lines.
pub fn cors_lines(cors: &Cors, crossing: &Crossing<'_>, mut line: impl FnMut(&str, &str)) {
    let list = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(", ");
    let every = cors.origins.contains("*");
    if !every {
        // Another site gets another answer, and so does who comes from none.
        line("Vary", "Origin");
    }
    let origin = match crossing {
        Crossing::None => return,
        Crossing::Granted(origin) | Crossing::Preflight(origin) => origin,
    };
    line("Access-Control-Allow-Origin", if every { "*" } else { origin });
    if cors.credentials {
        line("Access-Control-Allow-Credentials", "true");
    }
    if let Crossing::Preflight(_) = crossing {
        let mut methods = ["GET", "HEAD", "POST"].into_iter().chain(cors.methods.iter().map(String::as_str));
        line("Access-Control-Allow-Methods", &list(&mut methods));
        if !cors.headers.is_empty() {
            line("Access-Control-Allow-Headers", &list(&mut cors.headers.iter().map(String::as_str)));
        }
        line("Access-Control-Max-Age", &cors.seconds.to_string());
    } else if !cors.expose.is_empty() {
        line("Access-Control-Expose-Headers", &list(&mut cors.expose.iter().map(String::as_str)));
    }
}

const NETWORKS_MAX: usize = 256;
const CORS_MAX: usize = 64;
const SECONDS_MAX: u32 = 86_400;

/// Why it cannot be used.
pub fn check_guard(guard: &Guard) -> Result<(), String> {
    if guard.networks.len() > NETWORKS_MAX {
        return Err(format!("at most {NETWORKS_MAX} networks"));
    }
    if let Some(rate) = &guard.rate {
        let burst_is_odd = rate.burst.is_some_and(|burst| burst == 0 || burst > 1_000_000);
        if rate.requests == 0
            || rate.requests > 1_000_000
            || rate.seconds == 0
            || rate.seconds > SECONDS_MAX
            || burst_is_odd
        {
            return Err(format!(
                "a rate is of 1 to 1000000 requests in 1 to {SECONDS_MAX} seconds, with a burst of 1 to 1000000"
            ));
        }
    }
    guard.cors.as_ref().map_or(Ok(()), check_cors)?;
    guard.basic.as_ref().map_or(Ok(()), basic::check)?;
    guard.forward.as_ref().map_or(Ok(()), forward::check)
}

fn check_cors(cors: &Cors) -> Result<(), String> {
    let Cors { origins, methods, headers, expose, credentials, seconds } = cors;
    if origins.is_empty() || origins.len() + methods.len() + headers.len() + expose.len() > CORS_MAX {
        return Err(format!("cors has at least one origin, and at most {CORS_MAX} of everything"));
    }
    if *credentials && origins.contains("*") {
        return Err("cors with credentials names its origins: '*' would let every site act for its visitors".to_owned());
    }
    if *seconds > SECONDS_MAX {
        return Err(format!("a browser remembers for at most {SECONDS_MAX} seconds"));
    }
    let is_origin = |origin: &str| {
        let host = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
        let is_said_so = |host: &str| {
            let usual = if origin.starts_with("https:") { ":443" } else { ":80" };
            let lower = !origin.bytes().any(|byte| byte.is_ascii_uppercase());
            lower && !host.ends_with(usual) && !host.contains('/') && crate::host::canonical(host).is_ok()
        };
        origin == "*" || host.is_some_and(is_said_so)
    };
    if let Some(origin) = origins.iter().find(|origin| !is_origin(origin)) {
        return Err(format!(
            "cors: \"{origin}\" is no origin as browsers say it: https://example.org, in small letters, without a path or the usual port, or *"
        ));
    }
    let mut names = methods.iter().chain(headers).chain(expose);
    match names.find(|name| !rule::is_field_name(name)) {
        Some(name) => Err(format!("cors: \"{name}\" is no name of a method or a header")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use appbase_core::Prefix;

    use super::*;
    use crate::http1::RequestHead;

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn networks_and_sizes() {
        let guard = Guard {
            networks: ["10.0.0.0/8", "2001:db8::/32"].map(|text| Prefix::parse(text).expect("a range")).into(),
            request_bytes_max: Some(100),
            ..Guard::default()
        };
        for (client, body, expect) in [
            ("10.1.2.3", BodyLength::None, Ok(())),
            ("2001:db8::1", BodyLength::Bytes(100), Ok(())),
            ("192.0.2.1", BodyLength::None, Err(Denied::Network)),
            ("10.1.2.3", BodyLength::Bytes(101), Err(Denied::TooLarge { bytes_max: 100 })),
            ("10.1.2.3", BodyLength::Chunked, Ok(())),
        ] {
            assert_eq!(check(&guard, client.parse().expect("an address"), body), expect, "{client} {body:?}");
        }
        assert_eq!(check(&Guard::default(), "192.0.2.1".parse().expect("one"), BodyLength::Bytes(u64::MAX)), Ok(()));
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_then_its_own_pace() {
        let rate = Rate { requests: 10, seconds: 1, burst: Some(3), of: RateOf::Client };
        let ms = Duration::from_millis;
        let (mut due, mut passed) = (Duration::ZERO, Vec::new());
        for now in (5_000..6_000).step_by(10) {
            if pass(&rate, &mut due, ms(now)).is_ok() {
                passed.push(now);
            }
        }
        assert_eq!(passed, [5000, 5010, 5020, 5100, 5200, 5300, 5400, 5500, 5600, 5700, 5800, 5900]);
        assert_eq!(pass(&rate, &mut ms(5_500), ms(5_250)), Err(ms(50)), "so long until the next");
        let once = Rate { requests: 1, seconds: 60, burst: None, of: RateOf::Route };
        let mut due = Duration::ZERO;
        assert_eq!(pass(&once, &mut due, ms(0)), Ok(()));
        assert_eq!(pass(&once, &mut due, ms(1_000)), Err(ms(59_000)));
        assert_eq!(pass(&rate, &mut due, ms(1_000)), Err(ms(100)), "the rate of now, not that of before");
        assert_eq!(pass(&rate, &mut due, ms(1_100)), Ok(()));
    }

    #[test]
    fn a_household_counts_as_one() {
        let of = |of, text: &str| counted(of, text.parse().expect("an address")).map(|address| address.to_string());
        assert_eq!(of(RateOf::Client, "192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(of(RateOf::Client, "2001:db8:1:2:3:4:5:6").as_deref(), Some("2001:db8:1:2::"));
        assert_eq!(of(RateOf::Route, "192.0.2.1"), None);
    }

    #[test]
    fn pages_of_other_sites() {
        let own = Cors {
            origins: set(&["https://a.example"]),
            methods: set(&["PUT"]),
            headers: set(&["X-Own"]),
            expose: set(&["X-Total"]),
            credentials: true,
            seconds: 60,
        };
        let every = Cors { origins: set(&["*"]), seconds: 600, ..Cors::default() };
        let told = |cors: &Cors, method: &str, lines: &str| {
            let mut head = RequestHead::default();
            head.read(format!("{method} / HTTP/1.1\r\n{lines}\r\n").as_bytes()).expect("a head");
            let crossing = crossing(cors, method, &head.fields);
            let mut told = format!("{crossing:?}").split('(').next().unwrap_or_default().to_owned();
            cors_lines(cors, &crossing, |name, value| told.push_str(&format!(" {name}={value}")));
            told.replace("Access-Control-", "")
        };
        let from_a = "Origin: https://a.example\r\n";
        assert_eq!(told(&own, "GET", ""), "None Vary=Origin");
        assert_eq!(told(&own, "GET", "Origin: https://b.example\r\n"), "None Vary=Origin");
        assert_eq!(told(&every, "GET", ""), "None");
        assert_eq!(
            told(&own, "GET", from_a),
            "Granted Vary=Origin Allow-Origin=https://a.example Allow-Credentials=true Expose-Headers=X-Total"
        );
        let asks = format!("{from_a}Access-Control-Request-Method: PUT\r\n");
        assert_eq!(
            told(&own, "OPTIONS", &asks),
            "Preflight Vary=Origin Allow-Origin=https://a.example Allow-Credentials=true Allow-Methods=GET, HEAD, POST, PUT \
             Allow-Headers=X-Own Max-Age=60"
        );
        assert!(told(&own, "OPTIONS", from_a).starts_with("Granted"), "an OPTIONS of the app's own");
        assert_eq!(told(&every, "POST", "Origin: null\r\n"), "Granted Allow-Origin=*");
    }

    #[test]
    fn guards_that_mean_nothing_are_refused() {
        let rate = |requests, seconds, burst| Guard {
            rate: Some(Rate { requests, seconds, burst, of: RateOf::Client }),
            ..Guard::default()
        };
        let cors = |origins: &[&str], headers: &[&str], credentials| Guard {
            cors: Some(Cors { origins: set(origins), headers: set(headers), credentials, ..Cors::default() }),
            ..Guard::default()
        };
        for sound in [Guard::default(), rate(1, 1, None), rate(100, 60, Some(1)), cors(&["*"], &[], false)] {
            assert_eq!(check_guard(&sound), Ok(()));
        }
        for (wrong, says) in [
            (rate(0, 1, None), "a rate is of"),
            (rate(1, 0, None), "a rate is of"),
            (rate(1, 1, Some(0)), "a rate is of"),
            (cors(&[], &[], false), "at least one origin"),
            (cors(&["*"], &[], true), "names its origins"),
            (cors(&["a.example"], &[], false), "is no origin"),
            (cors(&["https://a.example/x"], &[], false), "is no origin"),
            (cors(&["https://A.example"], &[], false), "is no origin"),
            (cors(&["https://a.example:443"], &[], false), "is no origin"),
            (cors(&["*"], &["a b"], false), "no name of a method"),
        ] {
            let error = check_guard(&wrong).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
