//! Users: which numbers an image's `USER` means. Pure.

/// `user`, `user:group`, by name or number, as an image's config has it. `passwd` and `group` are the image's own files.
/// None when a name is in neither.
pub(crate) fn resolve(user: &str, passwd: &str, group: &str) -> Option<(u32, u32)> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let line = |wanted: &str| {
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
            fields.len() > 3 && (fields[0] == wanted || (wanted.parse::<u32>().is_ok() && fields[2] == wanted))
        })
    };
    let found = if user.is_empty() { None } else { line(user) };
    let uid = match (&found, user) {
        (_, "") => 0,
        (Some(fields), _) => fields[2].parse().ok()?,
        (None, number) => number.parse().ok()?,
    };
    let gid = match wanted_group {
        None | Some("") => found.and_then(|fields| fields[3].parse().ok()).unwrap_or(0),
        Some(wanted) => {
            let mut lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
            match lines.find(|fields| fields.len() > 2 && fields[0] == wanted) {
                Some(fields) => fields[2].parse().ok()?,
                None => wanted.parse().ok()?,
            }
        }
    };
    Some((uid, gid))
}

/// Whether the text names someone, so that the image's files must be read.
pub(crate) fn needs_files(user: &str) -> bool {
    !user.is_empty()
        && user
            .split_once(':')
            .is_none_or(|(user, group)| [user, group].iter().any(|word| word.parse::<u32>().is_err()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_resolved_as_docker_does() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/app\nbroken\n";
        let group = "root:x:0:\nweb:x:33:\n";
        for (user, expect) in [
            ("", Some((0, 0))),
            ("app", Some((1000, 1001))),
            ("1000", Some((1000, 1001))),
            ("7", Some((7, 0))),
            ("7:8", Some((7, 8))),
            ("app:web", Some((1000, 33))),
            ("app:", Some((1000, 1001))),
            ("nobody", None),
            ("app:nobody", None),
        ] {
            assert_eq!(resolve(user, passwd, group), expect, "{user}");
        }
        assert!(needs_files("app") && needs_files("7") && needs_files("7:web"));
        assert!(!needs_files("") && !needs_files("7:8"));
    }
}
