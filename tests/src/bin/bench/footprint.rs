//! Memory of the services at rest and under load, and the size of the images.

use tests::platform::{Engine, Part, Platform, eventually, program};

use crate::program::status_mib;
use crate::report::table;

const SERVICES: [(&str, Part); 4] =
    [("controller", Part::Controller), ("lb", Part::Lb1), ("dns", Part::Dns), ("repository", Part::Repository)];

pub(crate) fn run() -> String {
    if !Engine::Docker.answers() {
        return "Not measured: no Docker answers.".to_owned();
    }
    let platform = Platform::on(Engine::Docker);
    platform.push("hello", "1", "");
    platform.ctl_ok(&["deploy", "hello", "1"]);
    eventually("all is quiet", || platform.app("hello")["deployment"].is_null().then_some(()));
    let (mut rows, mut sum) = (Vec::new(), 0.0);
    for (name, part) in SERVICES {
        let pid = tests::docker::docker(&["inspect", "-f", "{{.State.Pid}}", &platform.docker().container(part)]);
        let pid = pid.trim().parse().expect("a pid");
        let (rss, peak) =
            (status_mib(pid, "VmRSS:").unwrap_or(f64::NAN), status_mib(pid, "VmHWM:").unwrap_or(f64::NAN));
        let image = tests::docker::docker(&["image", "inspect", "-f", "{{.Size}}", &platform.docker().image(name)]);
        let image = image.trim().parse::<f64>().expect("bytes") / 1e6;
        sum += rss;
        rows.push(vec![name.to_owned(), format!("{rss:.1}"), format!("{peak:.1}"), format!("{image:.1}")]);
    }
    rows.push(vec!["all".to_owned(), format!("**{sum:.1}**"), String::new(), String::new()]);
    let others = ["boot", "platformctl", "platformer", "hello-world"].map(|name| {
        let bytes = std::fs::metadata(program(name)).map_or(0, |data| data.len());
        format!("{name} {:.1}", bytes as f64 / 1e6)
    });
    format!(
        "A platform on Docker with one app of two instances, just deployed; resident memory of each service's process, the \
         whole image as Docker counts it. Sizes of the other programs, MB: {}.\n\n{}",
        others.join(", "),
        table(&["service", "RSS at rest, MiB", "peak so far, MiB", "image, MB"], &rows)
    )
}
