//! Compress: whether an answer goes out smaller than it came (gzip), by what both heads say.

use crate::http1::{BodyLength, Fields, Known, RequestHead, ResponseHead};

/// What is done to an answer of a route that compresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Packing {
    /// Nothing, whoever asks.
    #[default]
    None,
    /// Nothing for this client; for another one it would be packed.
    Varies,
    Gzip,
}

/// Of a shorter body nothing is saved.
const BYTES_MIN: u64 = 1 << 10;
/// Beside `text/…`, `…+json` and `…+xml`. What is packed by itself (pictures, films, archives, fonts) is not here.
const KINDS: [&str; 8] = [
    "application/json",
    "application/javascript",
    "application/xml",
    "application/x-javascript",
    "application/wasm",
    "application/x-ndjson",
    "application/graphql",
    "image/svg+xml",
];

/// What becomes of an answer with this body. Streams of events and calls of gRPC are not asked about.
pub fn packing(request: &RequestHead, answer: &ResponseHead, body: BodyLength) -> Packing {
    if !is_compressible(request, answer, body) {
        return Packing::None;
    }
    match accepts_gzip(&request.fields) && !request.is_http10() {
        true => Packing::Gzip,
        false => Packing::Varies,
    }
}

fn is_compressible(request: &RequestHead, answer: &ResponseHead, body: BodyLength) -> bool {
    let has_body = match body {
        BodyLength::None => false,
        BodyLength::Bytes(bytes) => bytes >= BYTES_MIN,
        BodyLength::Chunked | BodyLength::UntilClose => true,
    };
    // 205 has no content; a part says of itself where it stands in the whole.
    if !has_body || request.method() == "HEAD" || matches!(answer.status(), 100..200 | 204 | 205 | 206 | 304) {
        return false;
    }
    let kind = answer.fields.get(Known::ContentType).map(|field| field.value).unwrap_or_default();
    // A digest is of the bytes as they are; with a range the app says which of them these are.
    let stands_against = |fields: &Fields, names: &[&str]| {
        fields.iter().any(|field| names.iter().any(|name| field.name.eq_ignore_ascii_case(name)) || forbids(&field))
    };
    is_kind(kind)
        && !stands_against(&request.fields, &["range"])
        && !stands_against(
            &answer.fields,
            &["content-encoding", "content-range", "content-md5", "content-digest", "digest"],
        )
}

/// RFC 9111, section 5.2.2.6.
fn forbids(field: &crate::http1::Field<'_>) -> bool {
    field.name.eq_ignore_ascii_case("cache-control") && field.has_token("no-transform")
}

fn is_kind(value: &[u8]) -> bool {
    let name = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Ok(name) = std::str::from_utf8(name).map(str::to_ascii_lowercase) else { return false };
    name.starts_with("text/") || name.ends_with("+json") || name.ends_with("+xml") || KINDS.contains(&name.as_str())
}

/// RFC 9110, section 12.5.3. Who says nothing gets what the app sent: that is what most who say nothing expect.
fn accepts_gzip(fields: &Fields) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    let lines = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("accept-encoding"));
    for line in lines {
        for one in line.tokens() {
            let mut parts = one.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let coding = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
            let weight = weight.map_or(Some(1.0), weight_of);
            // One that cannot be read asks for nothing.
            let place = match coding {
                coding if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") => &mut gzip,
                coding if coding.eq_ignore_ascii_case(b"identity") => &mut identity,
                b"*" => &mut any,
                _ => continue,
            };
            *place = weight.or(Some(0.0));
        }
    }
    let wanted = gzip.or(any).unwrap_or(0.0);
    wanted > 0.0 && wanted >= identity.unwrap_or(0.0)
}

fn weight_of(text: &[u8]) -> Option<f32> {
    let weight = std::str::from_utf8(text).ok()?.parse::<f32>().ok()?;
    (0.0..=1.0).contains(&weight).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::framing;

    fn of(method: &str, request: &str, answer: &str) -> Packing {
        let (mut asks, mut says) = (RequestHead::default(), ResponseHead::default());
        asks.read(format!("{method} / HTTP/1.1\r\nHost: a\r\n{request}\r\n").as_bytes()).expect("a head");
        says.read(format!("HTTP/1.1 {answer}\r\n").as_bytes()).expect("a head");
        let framing = framing::of_response(&says, method).expect("sound");
        packing(&asks, &says, framing.body)
    }

    #[test]
    fn clients_say_what_they_take() {
        let json = "200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n";
        for (accepts, expect) in [
            ("Accept-Encoding: gzip, deflate, br\r\n", Packing::Gzip),
            ("accept-encoding: GZIP;q=0.5\r\n", Packing::Gzip),
            ("Accept-Encoding: br\r\nAccept-Encoding: x-gzip\r\n", Packing::Gzip),
            ("Accept-Encoding: *\r\n", Packing::Gzip),
            ("Accept-Encoding: *;q=0.1, gzip;q=0\r\n", Packing::Varies),
            ("Accept-Encoding: gzip;q=0.000\r\n", Packing::Varies),
            ("Accept-Encoding: gzip; q=1.5\r\n", Packing::Varies),
            ("Accept-Encoding: gzip;q=0.5, identity\r\n", Packing::Varies),
            ("Accept-Encoding: identity;q=0.5, gzip;q=0.8\r\n", Packing::Gzip),
            ("Accept-Encoding: br, zstd\r\n", Packing::Varies),
            ("Accept-Encoding:\r\n", Packing::Varies),
            ("", Packing::Varies),
        ] {
            assert_eq!(of("GET", accepts, json), expect, "{accepts}");
        }
    }

    #[test]
    fn what_must_stay_as_it_is_does() {
        let asks = "Accept-Encoding: gzip\r\n";
        for (answer, expect) in [
            ("200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\n", Packing::Gzip),
            ("200 OK\r\nContent-Type: application/problem+json\r\nTransfer-Encoding: chunked\r\n", Packing::Gzip),
            ("404 Not Found\r\nContent-Type: text/plain\r\n", Packing::Gzip),
            ("200 OK\r\nContent-Type: text/html\r\nContent-Length: 1023\r\n", Packing::None),
            ("200 OK\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n", Packing::None),
            ("200 OK\r\nContent-Length: 5000\r\n", Packing::None),
            ("200 OK\r\nContent-Type: text/css\r\nContent-Encoding: br\r\n", Packing::None),
            ("200 OK\r\nContent-Type: text/css\r\nCache-Control: public, no-transform\r\n", Packing::None),
            ("200 OK\r\nContent-Type: text/css\r\nContent-Digest: sha-256=:x:\r\n", Packing::None),
            ("206 Partial Content\r\nContent-Type: text/css\r\nContent-Range: bytes 0-1/2\r\n", Packing::None),
            ("304 Not Modified\r\nContent-Type: text/css\r\n", Packing::None),
            ("204 No Content\r\nContent-Type: text/css\r\n", Packing::None),
        ] {
            assert_eq!(of("GET", asks, answer), expect, "{answer}");
        }
        let css = "200 OK\r\nContent-Type: text/css\r\n";
        assert_eq!(of("HEAD", asks, css), Packing::None);
        assert_eq!(of("GET", &format!("{asks}Range: bytes=0-\r\n"), css), Packing::None);
        assert_eq!(of("GET", &format!("{asks}Cache-Control: no-transform\r\n"), css), Packing::None);
        assert_eq!(of("POST", asks, css), Packing::Gzip);
    }
}
