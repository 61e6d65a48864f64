use std::fs;

use super::*;

async fn all(directory: &Path, tail: usize) -> Vec<String> {
    let lines = read(directory.to_path_buf(), LogRequest { tail, follow: false });
    lines.map(|line| line.expect("readable").text).collect().await
}

#[tokio::test]
async fn the_tail_reaches_over_rotated_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(all(path, 5).await.is_empty(), "no log yet");
    fs::write(path.join("log"), b"five\nsix\r\nsev\xffen").unwrap();
    fs::write(path.join("log.1"), "three\nfour\n").unwrap();
    fs::write(path.join("log.2"), "one\ntwo\n").unwrap();
    let whole = ["one", "two", "three", "four", "five", "six", "sev\u{fffd}en"];
    for tail in 0..10 {
        assert_eq!(all(path, tail).await, whole[whole.len().saturating_sub(tail)..], "tail {tail}");
    }
}

#[tokio::test]
async fn lines_across_pieces_stay_whole_and_endless_ones_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..20_000).map(|number| format!("line {number}")).collect();
    fs::write(directory.path().join("log"), lines.join("\n") + "\n").unwrap();
    assert_eq!(all(directory.path(), 3).await, lines[lines.len() - 3..]);
    assert_eq!(all(directory.path(), TAIL_MAX).await, lines[lines.len() - TAIL_MAX..]);
    assert_eq!(all(directory.path(), usize::MAX).await.len(), TAIL_MAX);

    fs::write(directory.path().join("log"), vec![b'x'; LINE_BYTES_MAX * 2 + 1]).unwrap();
    let lengths: Vec<usize> = all(directory.path(), 1).await.iter().map(String::len).collect();
    assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, 1]);
}

#[tokio::test]
async fn following_goes_on_over_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    fs::write(&log, "one\n").unwrap();
    let mut lines = read(directory.path().to_path_buf(), LogRequest { tail: 10, follow: true });
    assert_eq!(lines.next().await.unwrap().unwrap().text, "one");
    fs::write(&log, "one\ntwo\n").unwrap();
    fs::rename(&log, directory.path().join("log.1")).unwrap();
    fs::write(&log, "three\n").unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().text, "two");
    assert_eq!(lines.next().await.unwrap().unwrap().text, "three");
    drop(directory);
    assert!(lines.next().await.is_none(), "a removed instance has no more to say");
}
