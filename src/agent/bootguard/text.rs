//! The boot guard's files, as text.
//!
//! In: the host's program. Out: the unit. Pure. `ExecStart` is one plain command line: no shell, no
//! variable, nothing of the image.

/// The rules, a script for `iptables-restore --noflush`.
pub const RULES: &str = "/etc/lanyard/boot-guard.rules";
/// The unit.
pub const UNIT: &str = "/etc/systemd/system/lanyard-boot-guard.service";
/// What enables it: whoever starts kubelet wants it, and where kubelet has another name, the boot does.
pub(super) const LINKS: [&str; 2] = [
    "/etc/systemd/system/kubelet.service.wants/lanyard-boot-guard.service",
    "/etc/systemd/system/multi-user.target.wants/lanyard-boot-guard.service",
];
/// What the links say.
pub(super) const LINK_TARGET: &str = "../lanyard-boot-guard.service";
/// Removed with it where nothing else is in them.
pub(super) const FOLDERS: [&str; 2] = ["/etc/lanyard", "/etc/systemd/system/kubelet.service.wants"];

/// The unit that runs `program`.
pub(super) fn unit(program: &str) -> String {
    format!(
        "\
# Written by the agent of Lanyard (--boot-guard). `lanyard uninstall --boot-guard=/` removes it.
[Unit]
Description=Lanyard boot guard: pods cannot reach the node's identity before the agent runs
After=local-fs.target systemd-modules-load.service iptables.service nftables.service netfilter-persistent.service firewalld.service ufw.service
Before=containerd.service crio.service docker.service kubelet.service k3s.service k3s-agent.service rke2-server.service rke2-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} --noflush -w 5 {RULES}

[Install]
WantedBy=kubelet.service multi-user.target
"
    )
}
