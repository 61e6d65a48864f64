//! Who may do what: every part asks, each token reaches as far as it should and no farther.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use reqwest::StatusCode;
use serde_json::Value;
use tests::{Part, Platform};

/// Sends with a token, or without; the status and the body.
fn ask(method: &str, url: &str, token: Option<&str>, body: Option<&str>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = reqwest::Client::new().request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await.expect("an answer");
        let status: StatusCode = answer.status();
        (status.as_u16(), answer.text().await.unwrap_or_default())
    })
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_controller_asks_who_is_there() {
    let platform = Platform::start();
    let api = platform.api();
    let status = |token: Option<&str>| ask("GET", &format!("{api}/v1/status"), token, None);
    let (code, body) = status(None);
    assert_eq!(code, 401, "{body}");
    assert!(body.contains("platformctl login"), "it says what to do: {body}");
    assert_eq!(status(Some("plt_unknown")).0, 401);
    let read = |name: &str| std::fs::read_to_string(platform.keys().join(name)).expect("a token").trim().to_owned();
    let (lb, dns) = (read("lb.token"), read("dns.token"));
    assert_eq!(status(Some(&lb)).0, 403, "a member has its table and nothing else");
    let table = |kind: &str, token: &str| {
        ask("GET", &format!("{api}/v1/members/lb-1/table?kind={kind}&wait=0"), Some(token), None).0
    };
    assert_eq!([table("lb", &lb), table("dns", &lb), table("dns", &dns), table("lb", &dns)], [200, 403, 200, 403]);
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask("GET", &format!("{api}{path}"), None, None).0, 200, "health is asked by anybody");
    }

    let made = platform.ctl_ok(&["token", "create", "ci", "--read-only", "--json"]);
    let made: Value = serde_json::from_str(made.split("\nkeep").next().expect("JSON")).expect("JSON");
    let reader = made["token"].as_str().expect("a token").to_owned();
    assert_eq!(status(Some(&reader)).0, 200);
    let change = ask("POST", &format!("{api}/v1/tokens"), Some(&reader), Some("{\"name\":\"x\"}"));
    assert_eq!(change.0, 403, "{}", change.1);
    assert!(platform.ctl_ok(&["token", "ls"]).contains("ci"));
    platform.ctl_ok(&["token", "revoke", made["view"]["id"].as_str().expect("an id")]);
    assert_eq!(status(Some(&reader)).0, 401, "revoked is at once");
}

#[test]
fn the_repository_lets_each_read_what_is_its_own() {
    let platform = Platform::start();
    platform.push("hello", "1", "");
    platform.push("hello", "2", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    let base = format!("http://{}/v2/hello", platform.address(Part::Repository));
    let tag = |tag: &str, token: Option<&str>| ask("GET", &format!("{base}/manifests/{tag}"), token, None);
    tests::platform::eventually("the live tag", || (tag("production-live", None).0 == 200).then_some(()));
    assert_eq!(tag("1", None).0, 401, "only what is live is for everybody");
    assert_eq!(tag("production-r1", None).0, 401);

    let configs = std::fs::read_dir(platform.path("controller/node/instances")).expect("instances");
    let config = configs.flatten().next().expect("one").path().join("instance.json");
    let config: Value = serde_json::from_slice(&std::fs::read(config).expect("a config")).expect("JSON");
    let token = config["token"].as_str().filter(|token| !token.is_empty()).expect("an instance has a token");
    assert_eq!(tag("production-r1", Some(token)).0, 200);
    assert_eq!([tag("1", Some(token)).0, tag("2", Some(token)).0], [403, 403], "its own release and no other");
    let document = config["document"].as_str().expect("a digest");
    assert_eq!(ask("GET", &format!("{base}/blobs/{document}"), Some(token), None).0, 200);
    let other: Value = serde_json::from_str(&tag("2", Some(&repository_token(&platform))).1).expect("a manifest");
    let foreign = other["config"]["digest"].as_str().expect("a digest");
    assert_eq!(ask("GET", &format!("{base}/blobs/{foreign}"), Some(token), None).0, 403);
    assert_eq!(ask("POST", &format!("{base}/blobs/uploads/"), Some(token), None).0, 403, "it reads, never writes");

    let live = tag("production-live", None).1;
    let moved =
        ask("PUT", &format!("{base}/manifests/production-live"), Some(&repository_token(&platform)), Some(&live));
    assert_eq!(moved.0, 403, "tags of releases are the controller's: {}", moved.1);
    let (code, text) =
        ask("GET", &format!("http://{}/config/hello/hello.config", platform.address(Part::Repository)), None, None);
    assert_eq!(code, 200, "{text}");
}

fn repository_token(platform: &Platform) -> String {
    let made: Value = {
        let text = platform.ctl_ok(&["token", "create", "pusher", "--json"]);
        serde_json::from_str(text.split("\nkeep").next().expect("JSON")).expect("JSON")
    };
    let url = format!("{}/v1/repository-access", platform.api());
    let (code, body) = ask("POST", &url, made["token"].as_str(), None);
    assert_eq!(code, 200, "{body}");
    let access: Value = serde_json::from_str(&body).expect("JSON");
    access["token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_login_is_kept_and_a_stranger_is_told_how() {
    let platform = Platform::start();
    let stranger = platform.ctl_of_a_stranger(&["status"]).output().expect("platformctl runs");
    assert_eq!(stranger.status.code(), Some(4), "{}", said(&stranger));
    assert!(said(&stranger).contains("platformctl login"), "{}", said(&stranger));
    platform.ctl_ok(&["login"]);
    let context = platform.path(".config/platformctl/context.json");
    let mode = std::fs::metadata(&context).expect("it is kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let known = platform.ctl_of_a_stranger(&["status"]).output().expect("platformctl runs");
    assert!(known.status.success(), "{}", said(&known));
    assert!(platform.ctl_ok(&["login"]).contains("logged in already"));
    assert!(platform.ctl_ok(&["token", "ls"]).lines().count() == 2, "twice makes no second token");
    assert_eq!(
        platform.ctl_of_a_stranger(&["login"]).output().expect("platformctl runs").status.code(),
        Some(0),
        "the kept one still works"
    );
}

#[test]
fn keys_of_another_cluster_are_refused_at_the_start() {
    let mut platform = Platform::start();
    platform.kill(Part::Controller);
    std::fs::rename(platform.keys(), platform.path("keys-before")).expect("moved");
    platform.make_keys();
    platform.start_part(Part::Controller);
    tests::platform::eventually("it says why it does not start", || {
        platform.logs().contains("give the keys that belong to it").then_some(())
    });
}
