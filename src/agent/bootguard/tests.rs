//! A host's root file system as a folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const SCRIPT: &str = "*filter\nCOMMIT\n";

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc/alternatives", "usr/sbin"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Self(root)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, name: &str, mode: u32) {
        let path = self.path().join("usr/sbin").join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path.trim_start_matches('/'))).unwrap()
    }
}

#[test]
fn installs_once_updates_what_differs_and_removes_all_of_it() {
    let root = Root::new();
    root.program("iptables-nft-restore", 0o755);
    assert_eq!(install(root.path(), SCRIPT, Backend::Nft).unwrap().len(), 4);
    assert_eq!(install(root.path(), SCRIPT, Backend::Nft).unwrap().len(), 0);
    let exec =
        "ExecStart=/usr/sbin/iptables-nft-restore --noflush -w 5 /etc/lanyard/boot-guard.rules\n";
    assert!(root.read(UNIT).contains(exec));
    // The links lead to the unit, as the host and as we see it.
    for link in text::LINKS {
        assert_eq!(root.read(link), root.read(UNIT));
    }
    let mode = fs::metadata(root.path().join(&RULES[1..]))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let newer = format!("{SCRIPT}#\n");
    assert_eq!(
        install(root.path(), &newer, Backend::Nft).unwrap(),
        [Path::new(RULES)]
    );
    assert_eq!(root.read(RULES), newer);

    assert_eq!(remove(root.path()).unwrap().len(), 4);
    assert_eq!(remove(root.path()).unwrap().len(), 0);
    assert!(!root.path().join("etc/lanyard").exists());
    assert!(root.path().join("etc/systemd/system").exists(), "not ours");
}

#[test]
fn takes_the_hosts_own_program_and_refuses_without_one() {
    let root = Root::new();
    let exec = |root: &Root| {
        install(root.path(), SCRIPT, Backend::Legacy).unwrap();
        let unit = root.read(UNIT);
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        line.unwrap().split(' ').next().unwrap().to_owned()
    };
    root.program("iptables-restore", 0o644);
    let refused = install(root.path(), SCRIPT, Backend::Legacy).unwrap_err();
    assert!(
        refused.to_string().contains("install the package iptables"),
        "{refused}"
    );
    assert!(!root.path().join("etc/lanyard").exists(), "nothing half");
    root.program("iptables-nft-restore", 0o755);
    assert_eq!(
        exec(&root),
        "/usr/sbin/iptables-nft-restore",
        "another backend closes, too"
    );
    root.program("iptables-restore", 0o755);
    assert_eq!(exec(&root), "/usr/sbin/iptables-restore");
    root.program("iptables-legacy-restore", 0o755);
    assert_eq!(exec(&root), "/usr/sbin/iptables-legacy-restore");
}

#[test]
fn links_are_followed_as_the_host_would_and_never_out_of_its_root() {
    let root = Root::new();
    root.program("xtables-nft-multi", 0o755);
    let at = |path: &str| root.path().join(path);
    symlink(
        "/etc/alternatives/iptables-restore",
        at("usr/sbin/iptables-restore"),
    )
    .unwrap();
    symlink(
        "../../usr/sbin/xtables-nft-multi",
        at("etc/alternatives/iptables-restore"),
    )
    .unwrap();
    let host = Host::new(root.path());
    assert_eq!(
        host.program(&["iptables-restore"]).as_deref(),
        Some("/usr/sbin/iptables-restore")
    );
    // A program of ours, not of the host.
    symlink("/proc/self/exe", at("usr/sbin/outside")).unwrap();
    assert_eq!(host.program(&["outside"]), None);
    symlink("loop", at("usr/sbin/loop")).unwrap();
    assert_eq!(host.program(&["loop"]), None);
    // Written through a link it would be somebody else's file.
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), at("etc/lanyard")).unwrap();
    let refused = install(root.path(), SCRIPT, Backend::Nft).unwrap_err();
    assert!(
        refused.to_string().contains("not a plain folder"),
        "{refused}"
    );
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_no_root_is_left_alone() {
    let empty = tempfile::tempdir().unwrap();
    assert!(install(empty.path(), SCRIPT, Backend::Nft).is_err());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}
