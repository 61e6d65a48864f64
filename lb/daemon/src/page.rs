//! Page: what lb answers itself, for people with a browser. One file, nothing is loaded from elsewhere.

use lb_core::http1::{Known, RequestHead};

use crate::refusal::Refusal;

const STYLE: &str = "body{font:1.1rem/1.6 system-ui,sans-serif;margin:18vh auto 0;max-width:34rem;padding:0 1.5rem;\
    color:#1c2733;background:#f7f8fa}h1{font-size:1.5rem;margin:0 0 .6rem}p{margin:0 0 1.6rem;overflow-wrap:anywhere}\
    small{color:#6b7785}@media(prefers-color-scheme:dark){body{color:#e6eaf0;background:#14181d}small{color:#8a95a3}}";

/// Whether a person with a browser asked for it, and something failed or is closed.
pub(crate) fn is_wanted(head: &RequestHead, refusal: &Refusal) -> bool {
    refusal.status >= 500 && head.fields.all(Known::Accept).any(|accept| accept.has_media("text/html"))
}

pub(crate) fn html(refusal: &Refusal, request_id: &str) -> String {
    let title = match refusal.code {
        "maintenance" => "Back soon",
        _ => "This page cannot be shown right now",
    };
    let (text, code, id) = (escaped(&refusal.text), refusal.code, escaped(request_id));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n<p>{text}</p>\n<small>{code} · {id}</small>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push_str("<br>"),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_text() {
        let page = html(&Refusal::maintenance("<script>\n\"a\" & 'b'"), "<id>");
        assert!(page.contains("<p>&lt;script&gt;<br>&quot;a&quot; &amp; &#39;b&#39;</p>"), "{page}");
        assert!(page.contains("maintenance · &lt;id&gt;") && page.contains("<h1>Back soon</h1>"), "{page}");
    }

    #[test]
    fn only_who_reads_html_gets_it() {
        let wanted = |accept: &str, refusal: &Refusal| {
            let mut head = RequestHead::default();
            head.read(format!("GET / HTTP/1.1\r\nAccept: {accept}\r\n\r\n").as_bytes()).expect("a head");
            is_wanted(&head, refusal)
        };
        let closed = Refusal::maintenance("x");
        assert!(wanted("text/html,application/xhtml+xml,*/*;q=0.8", &closed));
        assert!(wanted("application/json, Text/HTML;level=1", &closed));
        assert!(!wanted("*/*", &closed) && !wanted("application/json", &closed) && !wanted("x-text/html", &closed));
        assert!(!wanted("text/html", &Refusal::no_route()), "what a client did wrong is said in a word");
    }
}
