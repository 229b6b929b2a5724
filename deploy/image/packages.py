"""What the image takes from Debian: the C library, both iptables backends, CA certificates.

In: an architecture. Out: a folder with just the files that are needed, the packages' licences, and their
control files, by which vulnerability scanners know what is inside. The packages come from this machine's own
sources, because the binary is linked against this machine's C library; apt checks their signatures. apt
works in a folder of its own: nothing about this machine's packages is read or changed.
"""

import fnmatch
import pathlib
import shutil
import subprocess
import tempfile

# Package → files. {lib} is the multiarch folder. All IPv4 extensions of iptables are taken: to
# judge where its jump stands the agent reads everybody's rules, and iptables-legacy-save fails at the
# first rule whose extension is missing.
WANTED = {
    "base-files": ["usr/lib/os-release"],
    "libc6": ["usr/lib/{lib}/ld-linux-*.so.*", "usr/lib/ld-linux-*.so.*", "usr/lib64/ld-linux-*.so.*",
              "usr/lib/{lib}/libc.so.6", "usr/lib/{lib}/libm.so.6"],
    "libgcc-s1": ["usr/lib/{lib}/libgcc_s.so.1"],
    "iptables": ["usr/sbin/xtables-nft-multi", "usr/sbin/xtables-legacy-multi",
                 "usr/sbin/iptables-nft*", "usr/sbin/iptables-legacy*",
                 "usr/lib/{lib}/xtables/libxt_*.so", "usr/lib/{lib}/xtables/libipt_*.so"],
    "libxtables12": ["usr/lib/{lib}/libxtables.so.*"],
    "libip4tc2": ["usr/lib/{lib}/libip4tc.so.*"],
    "libip6tc2": ["usr/lib/{lib}/libip6tc.so.*"],
    "libmnl0": ["usr/lib/{lib}/libmnl.so.*"],
    "libnftnl11": ["usr/lib/{lib}/libnftnl.so.*"],
    "libnetfilter-conntrack3": ["usr/lib/{lib}/libnetfilter_conntrack.so.*"],  # libxt_connlabel.so
    "libnfnetlink0": ["usr/lib/{lib}/libnfnetlink.so.*"],
    "ca-certificates": [],  # becomes one file, see certificates()
}
MULTIARCH = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


def unpack(base: pathlib.Path, arch: str) -> None:
    with tempfile.TemporaryDirectory(prefix="lanyard-debs-") as folder:
        work = pathlib.Path(folder)
        download(work, arch)
        for package, patterns in WANTED.items():
            found = list(work.glob(f"{package}_*.deb"))
            if len(found) != 1:
                raise RuntimeError(f"apt gave {len(found)} files for {package}:{arch}, not one")
            content = work / package
            subprocess.run(["dpkg-deb", "-x", found[0], content], check=True)
            merge_usr(content)
            take(content, base, [pattern.format(lib=MULTIARCH[arch]) for pattern in patterns])
            licence(work, package, base, arch)
            control = base / "var/lib/dpkg/status.d" / package
            control.parent.mkdir(parents=True, exist_ok=True)
            control.write_bytes(subprocess.run(["dpkg-deb", "-f", found[0]], check=True, capture_output=True).stdout)
        certificates(work / "ca-certificates", base)
    for link, target in {"lib": "usr/lib", "lib64": "usr/lib64", "etc/os-release": "../usr/lib/os-release"}.items():
        if (base / target).exists() or link.startswith("etc"):
            (base / link).symlink_to(target)
    (base / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (base / "run").mkdir()  # iptables-legacy makes its lock file there where the host's is not mounted


def download(work: pathlib.Path, arch: str) -> None:
    """The packages' files, in `work`."""
    (work / "state/lists/partial").mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    (work / "state/status").touch()
    apt(work, arch, "update")
    apt(work, arch, "download", *WANTED)


def apt(work: pathlib.Path, arch: str, *words: str) -> None:
    options = {
        "APT::Architecture": arch, "APT::Architectures": arch, "APT::Sandbox::User": "",
        "Dir::State": f"{work}/state", "Dir::State::status": f"{work}/state/status", "Dir::Cache": f"{work}/cache",
        "Acquire::Languages": "none", "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
    }
    command = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}")), *words]
    done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"apt-get {words[0]} for {arch} failed:\n{done.stdout}")


def licence(work: pathlib.Path, package: str, base: pathlib.Path, arch: str) -> None:
    """The package's copyright file; some have it in another package of the same source."""
    folder = work / package / "usr/share/doc" / package
    if folder.is_symlink():
        owner = folder.readlink().name
        apt(work, arch, "download", owner)
        [deb] = work.glob(f"{owner}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, work / owner], check=True)
        folder = work / owner / "usr/share/doc" / owner
    target = base / "usr/share/doc" / package / "copyright"
    target.parent.mkdir(parents=True)
    shutil.copyfile(folder / "copyright", target)


def merge_usr(content: pathlib.Path) -> None:
    """Moves what a package still has in /lib to /usr/lib, and so on."""
    for name in ("lib", "lib64", "sbin", "bin"):
        old = content / name
        if old.is_dir() and not old.is_symlink():
            shutil.copytree(old, content / "usr" / name, symlinks=True, dirs_exist_ok=True)


def take(content: pathlib.Path, base: pathlib.Path, patterns: list[str]) -> None:
    """Copies the files that fit, links as links; every pattern but the loader's must find something."""
    files = [path.relative_to(content) for path in content.rglob("*") if path.is_symlink() or path.is_file()]
    for pattern in patterns:
        fitting = [path for path in files if fnmatch.fnmatchcase(str(path), pattern)]
        if not fitting and "ld-linux" not in pattern:
            raise RuntimeError(f"{content.name} has no {pattern}: the list in {pathlib.Path(__file__).name} is wrong for it")
        for path in fitting:
            target = base / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_symlink():
                shutil.copy2(content / path, target, follow_symlinks=False)


def certificates(content: pathlib.Path, base: pathlib.Path) -> None:
    """One bundle of all, as the package's own installation would make it."""
    bundle = base / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True)
    parts = sorted(content.glob("usr/share/ca-certificates/**/*.crt"))
    bundle.write_text("".join(part.read_text().strip() + "\n" for part in parts))
