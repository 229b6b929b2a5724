"""Looks whether an image can run before anybody gets it.

In: layers as folders, the architecture. Out: what was found, in words; an error names what is wrong. Every
program and library is for the architecture and finds its libraries inside the image; no shell is there; where this
machine can run the architecture, the programs are started with the image as their root.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile

from binary import MACHINES

ELF_MACHINES = {"amd64": "X86-64", "arm64": "AArch64"}
# What the agent's rules are made of; iptables loads each from a file only when it is used.
EXTENSIONS = [["-m", "comment"], ["-m", "tcp"], ["-j", "DNAT"], ["-j", "REJECT"]]


def inspect(layers: list[pathlib.Path], arch: str) -> str:
    with tempfile.TemporaryDirectory(prefix="lanyard-root-") as folder:
        root = pathlib.Path(folder)
        for layer in layers:
            shutil.copytree(layer, root, symlinks=True, dirs_exist_ok=True)
        elves = [path for path in root.rglob("*") if not path.is_symlink() and path.is_file() and is_elf(path)]
        names = {path.name for path in root.rglob("*.so*")}
        for path in elves:
            check(path, str(path.relative_to(root)), arch, names)
        dangling = [path for path in root.rglob("*") if path.is_symlink() and not inside(root, path).exists()]
        if dangling:
            raise RuntimeError(f"links that lead nowhere: {', '.join(map(str, dangling))}")
        shells = [path for path in root.rglob("*") if path.name in ("sh", "bash", "dash", "busybox")]
        if shells:
            raise RuntimeError(f"a shell is in the image: {shells}")
        return f"{len(elves)} ELF files find all their libraries; {started(root, arch)}"


def is_elf(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def check(path: pathlib.Path, name: str, arch: str, names: set[str]) -> None:
    told = subprocess.run(["readelf", "-hdl", path], capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}).stdout
    if ELF_MACHINES[arch] not in told.split("Machine:", 1)[1].splitlines()[0]:
        raise RuntimeError(f"{name} is not for {arch}")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", told) + re.findall(r"interpreter: .*/([^/\]]+)\]", told)
    missing = [library for library in needed if library not in names]
    if missing:
        raise RuntimeError(f"{name} needs {', '.join(missing)}, which the image does not have")


def inside(root: pathlib.Path, link: pathlib.Path) -> pathlib.Path:
    """Where a link leads when `root` is the root."""
    target = link.readlink()
    return root / target.relative_to("/") if target.is_absolute() else link.parent / target


def started(root: pathlib.Path, arch: str) -> str:
    if MACHINES.get(platform.machine()) != arch:
        return "not started, this machine cannot"
    change_root = ["chroot", root] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot", root]
    programs = [["/usr/local/bin/lanyard", "--version"]]
    for backend in ("nft", "legacy"):
        programs += [[f"/usr/sbin/iptables-{backend}{which}", "--version"] for which in ("", "-save", "-restore")]
        programs += [[f"/usr/sbin/iptables-{backend}", *extension, "--help"] for extension in EXTENSIONS]
    for program in programs:
        done = subprocess.run([*change_root, *program], capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        if done.returncode != 0:
            raise RuntimeError(f"inside the image `{' '.join(program)}` failed: {done.stderr.strip()}")
    return f"{len(programs)} programs started in it"
