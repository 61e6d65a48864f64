//! The tar in which Docker takes `instance.json`, and gives back single files. Pure.

use std::io::{self, Read};

use super::spec::INSTANCE_DIRECTORY;

/// For extraction at the instance's directory itself.
pub(crate) fn file_only(json: &[u8], uid: u32, gid: u32) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    file(&mut tar, "instance.json", json, uid, gid)?;
    tar.into_inner()
}

/// For extraction at `/`: the directory changes its owner as well.
pub(crate) fn with_directory(json: &[u8], uid: u32, gid: u32) -> io::Result<Vec<u8>> {
    let inside = INSTANCE_DIRECTORY.trim_start_matches('/');
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = header(0, 0o700, uid, gid);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, format!("{inside}/"), io::empty())?;
    file(&mut tar, &format!("{inside}/instance.json"), json, uid, gid)?;
    tar.into_inner()
}

/// The text of the first plain file.
pub(crate) fn first_file(tar: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(tar);
    let mut entry =
        archive.entries().ok()?.filter_map(Result::ok).find(|entry| entry.header().entry_type().is_file())?;
    let mut text = String::new();
    entry.read_to_string(&mut text).ok()?;
    Some(text)
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], uid: u32, gid: u32) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64, 0o600, uid, gid), path, bytes)
}

fn header(size: u64, mode: u32, uid: u32, gid: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(u64::from(uid));
    header.set_gid(u64::from(gid));
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_file_is_its_owners_alone() {
        let tar = with_directory(b"{}", 7, 8).expect("an archive");
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries: Vec<(String, u32, u64, u64)> = archive
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                let path = entry.path().expect("a path").display().to_string();
                let owner = (header.uid().expect("a user"), header.gid().expect("a group"));
                (path, header.mode().expect("a mode"), owner.0, owner.1)
            })
            .collect();
        assert_eq!(
            entries,
            [
                ("platformer/instance/".to_owned(), 0o700, 7, 8),
                ("platformer/instance/instance.json".to_owned(), 0o600, 7, 8),
            ]
        );
        assert_eq!(first_file(&tar).as_deref(), Some("{}"));
        assert_eq!(first_file(b"nothing"), None);
    }
}
