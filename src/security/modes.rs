//! Warnings about files that other users of the host can read or change.
//!
//! A user that can read a private key can act as its owner, and a user that can write the policy can grant any
//! permission. This does not stop the node. It warns at its start and at a reload, once for each combination of
//! owner, group and mode of a file.
//!
//! "Other users" are all users except the file's owner and root, with two exceptions:
//! - The group may read a key that root owns, as in PostgreSQL: this is how root passes a key, and systemd a
//!   credential, to a service.
//! - The group may write a file that is not a key if its number is that of the file's owner: on most systems this is
//!   the user's private group.
//!
//! In a directory with the sticky bit, users can't replace each other's files. Access control lists affect the
//! group's bits, so they are included.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;

const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

/// The protection that a file needs from other users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Other users must neither read nor change it.
    Secret,
    /// Other users must not change it.
    Trusted,
}

/// The files to check, and the warnings so far.
#[derive(Debug, Default)]
pub struct FileModes {
    files: Vec<(PathBuf, Content)>,
    warned: BTreeMap<PathBuf, FileAccess>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileAccess {
    mode: u32,
    owner: u32,
    group: u32,
}

impl FileModes {
    /// Creates a check of these files and their directories.
    pub fn new(files: Vec<(PathBuf, Content)>) -> FileModes {
        FileModes { files, warned: BTreeMap::new() }
    }

    /// Creates a check of the files in a node's configuration.
    pub fn of_node(config: &Config, config_file: Option<&Path>) -> FileModes {
        let mut files = vec![(config.access.acl_policy_file.clone(), Content::Trusted)];
        let more = config
            .access
            .acl_model_file
            .iter()
            .chain(&config.peer_rules.peer_deny_file)
            .map(PathBuf::as_path)
            .chain(config_file);
        files.extend(more.map(|file| (file.to_owned(), Content::Trusted)));
        if let Some(tls) = &config.tls {
            let keys = [&tls.server_key_file, &tls.peer_key_file];
            let others = [&tls.client_ca_file, &tls.peer_ca_file, &tls.server_cert_file, &tls.peer_cert_file];
            files.extend(keys.map(|file| (file.clone(), Content::Secret)));
            files.extend(others.map(|file| (file.clone(), Content::Trusted)));
        }
        FileModes::new(files)
    }

    /// Returns new warnings. A file whose metadata can't be read is skipped, because reading the file will fail with
    /// a better text.
    pub fn new_warnings(&mut self) -> Vec<String> {
        let mut found = BTreeMap::new();
        let mut warnings = Vec::new();
        for (file, content) in &self.files {
            let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            for (path, content) in [(file.as_path(), *content), (directory, Content::Trusted)] {
                let Ok(metadata) = fs::metadata(path) else { continue };
                let access =
                    FileAccess { mode: metadata.mode() & 0o7777, owner: metadata.uid(), group: metadata.gid() };
                let Some(text) = fault(path, content, access, metadata.is_dir()) else { continue };
                if found.insert(path.to_owned(), access).is_none() && self.warned.get(path) != Some(&access) {
                    warnings.push(text);
                }
            }
        }
        self.warned = found;
        warnings
    }
}

/// Returns what is wrong with a file, and how to fix it.
fn fault(path: &Path, content: Content, access: FileAccess, is_dir: bool) -> Option<String> {
    let FileAccess { mode, owner, group } = access;
    let path = path.display();
    if content == Content::Secret && is_dir {
        // It is not a key, and can't be read as one. The advice below would make the directory unusable.
        return None;
    }
    let may_read = if owner == ROOT { 0o040 } else { 0 };
    if content == Content::Secret && mode & 0o077 & !may_read != 0 {
        return Some(format!(
            "other users of this host can use the private key {path} (mode {mode:04o}): run `chmod 600 {path}`"
        ));
    }
    let own_group = if group == owner { 0o020 } else { 0 };
    if mode & 0o022 & !own_group == 0 || is_dir && mode & STICKY != 0 {
        return None;
    }
    let what = if is_dir { "replace the files in" } else { "change" };
    Some(format!("other users of this host can {what} {path} (mode {mode:04o}): run `chmod go-w {path}`"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn is_fault(content: Content, mode: u32, owner: u32, group: u32, is_dir: bool) -> bool {
        fault(Path::new("f"), content, FileAccess { mode, owner, group }, is_dir).is_some()
    }

    #[test]
    fn files_that_others_can_use_are_faults() {
        use Content::{Secret, Trusted};
        for (content, mode, owner, group) in [
            (Secret, 0o600, 5, 5),
            (Secret, 0o400, 5, 5),
            (Secret, 0o640, 0, 5),
            (Secret, 0o440, 0, 0),
            (Trusted, 0o644, 5, 7),
            (Trusted, 0o664, 5, 5),
            (Trusted, 0o664, 0, 0),
        ] {
            assert!(!is_fault(content, mode, owner, group, false), "{content:?} {mode:o} {owner}:{group}");
        }
        for (content, mode, owner, group) in [
            (Secret, 0o644, 0, 0),
            (Secret, 0o604, 5, 5),
            (Secret, 0o640, 5, 5),
            (Secret, 0o660, 0, 5),
            (Secret, 0o620, 5, 5),
            (Trusted, 0o646, 5, 5),
            (Trusted, 0o664, 5, 7),
            (Trusted, 0o664, 0, 5),
            (Trusted, 0o622, 5, 7),
        ] {
            assert!(is_fault(content, mode, owner, group, false), "{content:?} {mode:o} {owner}:{group}");
        }
        assert!(is_fault(Trusted, 0o777, 5, 5, true));
        assert!(!is_fault(Secret, 0o755, 5, 5, true), "chmod 600 would make a directory unusable");
        assert!(!is_fault(Trusted, 0o1777, 0, 0, true), "/tmp");
        assert!(!is_fault(Trusted, 0o755, 5, 7, true));
    }

    #[test]
    fn warns_once_about_each_state_of_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let (key, policy) = (dir.path().join("key.pem"), dir.path().join("policy.csv"));
        let set = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        for file in [&key, &policy] {
            fs::write(file, "x").expect("written");
            set(file, 0o600);
        }
        let files = vec![
            (key.clone(), Content::Secret),
            (policy.clone(), Content::Trusted),
            (dir.path().join("none"), Content::Secret),
        ];
        let mut modes = FileModes::new(files);
        assert_eq!(modes.new_warnings(), Vec::<String>::new());
        set(&key, 0o644);
        let key_path = key.display();
        let text = |mode: &str| {
            format!(
                "other users of this host can use the private key {key_path} (mode {mode}): run `chmod 600 {key_path}`"
            )
        };
        assert_eq!(modes.new_warnings(), [text("0644")]);
        assert_eq!(modes.new_warnings(), Vec::<String>::new());
        set(&key, 0o604);
        assert_eq!(modes.new_warnings(), [text("0604")]);
        set(&key, 0o600);
        assert_eq!(modes.new_warnings(), Vec::<String>::new());
        set(&key, 0o604);
        set(&policy, 0o666);
        set(dir.path(), 0o777);
        let warnings = modes.new_warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        let policy = policy.display();
        let expected = format!("other users of this host can change {policy} (mode 0666): run `chmod go-w {policy}`");
        assert!(warnings.contains(&expected), "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("can replace the files in")), "{warnings:?}");
        assert_eq!(modes.new_warnings(), Vec::<String>::new());
    }
}
