//! `file.*`: their work, their limits, and what they refuse.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use happy_rpc::{
    ErrorCode, FILE_PAGE, FileKind, FileList, FileRange, FileRead, FileWrite, MAX_READ, MAX_WHOLE, MAX_WRITE, Over,
};

use crate::harness::Home;
use crate::{Desk, base64, unbase64, with_root};

fn list(path: &Path) -> FileList {
    FileList { path: Some(path.display().to_string()), after: None }
}

fn read(path: &Path) -> FileRead {
    FileRead { path: path.display().to_string(), ..FileRead::default() }
}

fn write(path: &Path, bytes: &[u8], over: Over) -> FileWrite {
    FileWrite { path: path.display().to_string(), bytes: base64(bytes), range: None, over }
}

/// What lies in a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_read_in_parts_and_changed_and_nobody_elses_change_is_lost() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let path = root.join("a file");
    let content: Vec<u8> = (0..150_000u32).flat_map(|n| n.to_le_bytes()).take(150_000).collect();
    let written = desk.call(write(&path, &content, Over::Nothing)).unwrap();
    assert_eq!((written.size, std::fs::read(&path).unwrap() == content), (150_000, true));
    desk.refused(write(&path, b"x", Over::Nothing), ErrorCode::Conflict, &["already"]);

    // In parts, each of the same file.
    let first = desk.call(read(&path)).unwrap();
    assert_eq!((first.size, first.end, first.hash.as_deref()), (150_000, false, Some(written.hash.as_str())));
    let (mut bytes, mut parts) = (unbase64(&first.bytes), 1);
    loop {
        let next = FileRead {
            offset: bytes.len() as u64,
            length: Some(u32::MAX),
            stamp: Some(first.stamp.clone()),
            ..read(&path)
        };
        let part = desk.call(next).unwrap();
        assert!(part.hash.is_none());
        bytes.extend(unbase64(&part.bytes));
        parts += 1;
        if part.end {
            break;
        }
        assert!(unbase64(&part.bytes).len() == MAX_READ as usize);
    }
    assert!(bytes == content && parts == 2, "{parts}");
    desk.refused(FileRead { offset: 150_001, ..read(&path) }, ErrorCode::Malformed, &["150000 bytes"]);

    // Permission bits stay, also those of programs.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
    let changed = desk.call(write(&path, b"#!/bin/sh\n", Over::Hash(written.hash.clone()))).unwrap();
    assert_eq!((changed.mode, std::fs::metadata(&path).unwrap().mode() & 0o7777), (0o750, 0o750));
    // The file that was read is gone, and so is the one that was written.
    let stale = FileRead { stamp: Some(first.stamp), ..read(&path) };
    desk.refused(stale, ErrorCode::Conflict, &["read it again"]);
    desk.refused(write(&path, b"mine", Over::Hash(written.hash)), ErrorCode::Conflict, &["read it again"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"#!/bin/sh\n");

    // A part of it, and at its end.
    let part = |offset, length, bytes: &[u8], over| FileWrite {
        range: Some(FileRange { offset, length }),
        ..write(&path, bytes, over)
    };
    let middle = desk.call(part(7, 2, b"zsh", Over::Hash(changed.hash))).unwrap();
    let end = desk.call(part(11, 0, b"exit\n", Over::Hash(middle.hash))).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"#!/bin/zsh\nexit\n");
    for (offset, length) in [(17, 0), (16, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let beyond = part(offset, length, b"x", Over::Hash(end.hash.clone()));
        desk.refused(beyond, ErrorCode::Malformed, &["16 bytes"]);
    }
    desk.call(write(&path, b"", Over::Anything)).unwrap();
    assert_eq!(desk.call(read(&path)).unwrap().bytes, "");
    desk.refused(write(&root.join("gone"), b"", Over::Hash("00".into())), ErrorCode::Conflict, &["not there any more"]);
    desk.refused(write(&root.join("no/folder"), b"", Over::Nothing), ErrorCode::NotFound, &["no such"]);
    assert_eq!(names(&root), ["a file"], "nothing is left beside it");
}

#[test]
fn a_folder_is_listed_in_pages_with_what_lies_in_it() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let roots = desk.call(FileList::default()).unwrap();
    assert_eq!(roots.entries.len(), 1);
    assert_eq!(roots.entries[0].name, root.display().to_string());
    assert_eq!(desk.call(list(&root)).unwrap().entries, []);
    let count = 2 * FILE_PAGE + 7;
    for n in 0..count {
        std::fs::write(root.join(format!("{n:05}")), "x").unwrap();
    }
    use std::os::unix::ffi::OsStrExt;
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = desk.call(FileList { after, ..list(&root) }).unwrap();
        assert!(page.entries.len() <= FILE_PAGE && page.unnameable == 1);
        seen.extend(page.entries.iter().map(|entry| entry.name.clone()));
        (after, pages) = (seen.last().cloned(), pages + 1);
        if !page.more {
            break;
        }
    }
    assert_eq!((pages, &seen), (3, &(0..count).map(|n| format!("{n:05}")).collect::<Vec<_>>()));

    let folder = root.join("~kinds");
    std::fs::create_dir(&folder).unwrap();
    symlink("/etc/passwd", folder.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let kinds: Vec<_> = desk.call(list(&folder)).unwrap().entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [FileKind::Link, FileKind::Special]);
    desk.refused(list(&root.join("00000")), ErrorCode::NotFound, &["no folder"]);
    desk.refused(list(&root.join("gone")), ErrorCode::NotFound, &["no such"]);
}

/// A name may have 255 bytes, of which each may need an escape in JSON: the largest page fits a message all the same.
#[test]
fn a_page_of_the_longest_names_fits_a_message() {
    let (home, _folder, root) = with_root();
    (0..FILE_PAGE).for_each(|n| std::fs::write(root.join(format!("{n:04}{}", "\u{1}".repeat(250))), "").unwrap());
    let mut desk = Desk::of(&home);
    let page = desk.call(list(&root)).unwrap();
    assert!(page.more && page.entries.len() > 50, "{}", page.entries.len());
}

#[test]
fn nothing_outside_of_the_folders_that_are_open_is_touched() {
    let (home, folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let outside = folder.path().canonicalize().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "s").unwrap();
    std::fs::create_dir(root.join("in")).unwrap();
    std::fs::write(root.join("in/file"), "inside").unwrap();
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../outside", root.join("relative")).unwrap();
    symlink("../outside/secret", root.join("to-file")).unwrap();
    symlink("../../outside/new", root.join("in/to-nothing")).unwrap();
    symlink("in/file", root.join("good")).unwrap();
    symlink("round", root.join("round")).unwrap();

    let ways = [
        outside.join("secret"),
        root.join("../outside/secret"),
        root.join("in/../../outside/secret"),
        root.join("absolute/secret"),
        root.join("relative/secret"),
        root.join("to-file"),
        "/etc/passwd".into(),
        "/proc/self/environ".into(),
        "/dev/null".into(),
    ];
    for path in &ways {
        desk.refused(read(path), ErrorCode::NotPermitted, &["`"]);
        desk.refused(write(path, b"x", Over::Anything), ErrorCode::NotPermitted, &["`"]);
    }
    for path in [root.join(".."), root.join("absolute"), root.join("relative"), "/".into(), "/etc".into()] {
        desk.refused(list(&path), ErrorCode::NotPermitted, &["`"]);
    }
    for (path, code) in [
        (root.join("in/to-nothing"), ErrorCode::NotPermitted),
        (root.join("round"), ErrorCode::NotPermitted),
        ("relative".into(), ErrorCode::Malformed),
        ("".into(), ErrorCode::Malformed),
        ("/a\0b".into(), ErrorCode::Malformed),
        (format!("/{}", "x".repeat(5_000)).into(), ErrorCode::Malformed),
        (root.join("in"), ErrorCode::Malformed),
        (root.clone(), ErrorCode::Malformed),
    ] {
        desk.refused(read(&path), code, &[]);
        desk.refused(write(&path, b"x", Over::Anything), code, &[]);
    }
    assert_eq!(names(&outside), ["secret"]);
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");

    // A link that stays inside is followed, and stays one when what it leads to is written.
    assert_eq!(unbase64(&desk.call(read(&root.join("good"))).unwrap().bytes), b"inside");
    desk.call(write(&root.join("good"), b"new", Over::Anything)).unwrap();
    assert!(root.join("good").is_symlink());
    assert_eq!(std::fs::read(root.join("in/file")).unwrap(), b"new");
}

#[test]
fn what_is_no_file_is_not_opened() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let pipe = root.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let socket = root.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // Opening the pipe would wait for ever.
    for path in [&pipe, &socket] {
        desk.refused(read(path), ErrorCode::NotPermitted, &["pipe, socket or device"]);
        desk.refused(write(path, b"x", Over::Anything), ErrorCode::NotPermitted, &["pipe, socket or device"]);
    }
    let home = Home::new();
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::write(home.file("settings.json"), r#"{"roots": ["/"]}"#).unwrap();
    home.start();
    let mut desk = Desk::of(&home);
    assert!(desk.call(list(Path::new("/"))).is_ok());
    for path in ["/proc/self/environ", "/proc/1/root/etc/passwd", "/proc/sys/kernel/hostname"] {
        desk.refused(read(Path::new(path)), ErrorCode::NotPermitted, &["`/proc"]);
    }
    desk.refused(list(Path::new("/proc")), ErrorCode::NotPermitted, &["kernel"]);
    for path in ["/dev/null", "/dev/zero"] {
        desk.refused(read(Path::new(path)), ErrorCode::NotPermitted, &["device"]);
    }
}

#[test]
fn the_home_of_happy_is_closed_whatever_leads_there() {
    let home = Home::new();
    let above = home.path().parent().unwrap().canonicalize().unwrap();
    let own = above.join("h");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("settings.json"), serde_json::json!({ "roots": [above, own] }).to_string()).unwrap();
    home.start();
    let mut desk = Desk::of(&home);
    symlink("h", above.join("link")).unwrap();
    symlink("h/access.key", above.join("key")).unwrap();
    std::fs::hard_link(own.join("access.key"), above.join("hard")).unwrap();
    for path in ["h/access.key", "link/access.key", "key", "hard", "h/logs/daemon.log", "./h//access.key"] {
        desk.refused(read(&above.join(path)), ErrorCode::NotPermitted, &["home of happy"]);
        desk.refused(write(&above.join(path), b"x", Over::Anything), ErrorCode::NotPermitted, &["home of happy"]);
    }
    desk.refused(write(&own.join("new"), b"x", Over::Nothing), ErrorCode::NotPermitted, &["home of happy"]);
    for path in ["h", "link", "h/sessions"] {
        desk.refused(list(&above.join(path)), ErrorCode::NotPermitted, &["home of happy"]);
    }
    // What lies beside it is open, also with two names.
    std::fs::write(above.join("a"), "a").unwrap();
    std::fs::hard_link(above.join("a"), above.join("b")).unwrap();
    assert_eq!(unbase64(&desk.call(read(&above.join("b"))).unwrap().bytes), b"a");
}

#[test]
fn a_huge_file_is_read_in_parts_and_not_written() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let path = root.join("huge");
    let size = 100 << 30;
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let part = desk.call(FileRead { offset: size - 10, length: Some(100), ..read(&path) }).unwrap();
    assert_eq!((unbase64(&part.bytes), part.end), (vec![0; 10], true));
    assert!(desk.call(read(&path)).unwrap().hash.is_none(), "that would take minutes");
    desk.refused(write(&path, b"x", Over::Hash("00".into())), ErrorCode::TooMany, &["session"]);
    let large = root.join("large");
    std::fs::File::create(&large).unwrap().set_len(MAX_WHOLE).unwrap();
    let append = FileWrite {
        range: Some(FileRange { offset: MAX_WHOLE, length: 0 }),
        ..write(&large, b"x", Over::Hash(desk.call(read(&large)).unwrap().hash.unwrap()))
    };
    desk.refused(append, ErrorCode::TooMany, &["16 MiB"]);
    desk.call(write(&root.join("most"), &vec![7; MAX_WRITE], Over::Nothing)).unwrap();
    desk.refused(write(&root.join("more"), &vec![7; MAX_WRITE + 1], Over::Nothing), ErrorCode::TooMany, &["ranges"]);
    let nonsense = FileWrite { bytes: "not base64!".into(), ..write(&root.join("x"), b"", Over::Nothing) };
    desk.refused(nonsense, ErrorCode::Malformed, &["base64"]);
    assert_eq!(std::fs::metadata(&large).unwrap().len(), MAX_WHOLE);
}

#[test]
fn a_file_that_is_written_to_while_it_is_read_is_never_half_of_each() {
    let (home, _folder, root) = with_root();
    let path = root.join("busy");
    std::fs::write(&path, vec![b'a'; 60_000]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut whole, mut told) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut letter = b'a';
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                letter = if letter == b'z' { b'a' } else { letter + 1 };
                std::fs::write(&path, vec![letter; 60_000]).unwrap();
            }
        });
        let mut desk = Desk::of(&home);
        for _ in 0..200 {
            match desk.call(read(&path)) {
                Ok(part) => {
                    let bytes = unbase64(&part.bytes);
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two files in one");
                    whole += 1;
                }
                Err(error) => {
                    assert_eq!(error.code, ErrorCode::Conflict, "{}", error.message);
                    told += 1;
                }
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(told > 0, "{whole} whole, {told} told");
}

#[test]
fn a_file_that_may_not_be_written_stays_as_it_is() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let path = root.join("fixed");
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    desk.refused(write(&path, b"new", Over::Anything), ErrorCode::NotPermitted, &["read-only", "chmod u+w"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}

/// A disk of 64 KiB that is full, and one that can only be read: below `unshare`, as a user without rights has it.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_and_one_that_can_only_be_read_are_told_and_the_file_is_as_it_was() {
    let (home, _folder, root) = with_root();
    home.run(&["daemon", "stop"]).ok();
    let (full, fixed) = (root.join("full"), root.join("fixed"));
    let script = format!(
        "set -e; mkdir '{0}' '{1}'; mount -t tmpfs -o size=64k none '{0}'; echo old > '{0}/a'; head -c 45000 /dev/zero > '{0}/b'; \
         mount -t tmpfs none '{1}'; echo old > '{1}/a'; mount -o remount,ro '{1}'; \"$HAPPY\" daemon start --api-port 0 --relay-port 0",
        full.display(),
        fixed.display()
    );
    home.shell(&["unshare", "--map-root-user", "--mount", "--"], &script);
    let mut desk = Desk::of(&home);
    desk.refused(
        write(&full.join("a"), &[1; 30_000], Over::Anything),
        ErrorCode::Failed,
        &["disk is full", "free some"],
    );
    assert_eq!(unbase64(&desk.call(read(&full.join("a"))).unwrap().bytes), b"old\n");
    let left: Vec<_> = desk.call(list(&full)).unwrap().entries.into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, ["a", "b"], "what was written in part is gone");
    desk.call(write(&full.join("a"), b"small", Over::Anything)).unwrap();
    desk.refused(write(&fixed.join("a"), b"x", Over::Anything), ErrorCode::NotPermitted, &["only be read"]);
    desk.refused(write(&fixed.join("new"), b"x", Over::Nothing), ErrorCode::NotPermitted, &["only be read"]);
}

#[test]
fn without_settings_the_home_and_the_folders_of_sessions_are_open() {
    let user = tempfile::tempdir().unwrap();
    let user = user.path().canonicalize().unwrap();
    std::fs::create_dir_all(&user).unwrap();
    let home = Home::with("HOME", user.to_str().unwrap());
    home.start();
    let work = tempfile::tempdir().unwrap();
    let work = work.path().canonicalize().unwrap();
    std::fs::write(work.join("x"), "x").unwrap();
    let mut desk = Desk::of(&home);
    std::fs::write(user.join("y"), "y").unwrap();
    assert_eq!(unbase64(&desk.call(read(Path::new("~/y"))).unwrap().bytes), b"y");
    desk.refused(read(&work.join("x")), ErrorCode::NotPermitted, &["outside"]);
    home.run(&["run", "-d", "--cwd", work.to_str().unwrap(), "sleep", "1000"]).ok();
    assert_eq!(unbase64(&desk.call(read(&work.join("x"))).unwrap().bytes), b"x");
    // One that runs in `/` opens nothing.
    home.run(&["run", "-d", "--cwd", "/", "sleep", "1000"]).ok();
    desk.refused(read(Path::new("/etc/passwd")), ErrorCode::NotPermitted, &["outside"]);
    let roots: Vec<_> = desk.call(FileList::default()).unwrap().entries.into_iter().map(|entry| entry.name).collect();
    let mut wanted = [user.display().to_string(), work.display().to_string()];
    wanted.sort();
    assert_eq!(roots, wanted);
}
