"""Builds the binary so that the same tree gives the same bytes wherever it lies.

In: an architecture. Out: the path of the binary. Paths of this machine (the tree, cargo's and rustup's
folders) are replaced by fixed ones in everything that the compilers write.
"""

import os
import pathlib
import platform
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRIPLES = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
CROSS_COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def build(arch: str) -> pathlib.Path:
    triple = TRIPLES[arch]
    environment = os.environ | remapped()
    if MACHINES.get(platform.machine()) != arch:
        compiler = CROSS_COMPILERS[arch]
        if not shutil.which(compiler):
            raise RuntimeError(f"{compiler} is missing: it is in Debian's package gcc-{compiler.removesuffix('-gcc')}")
        environment["CARGO_TARGET_" + triple.upper().replace("-", "_") + "_LINKER"] = compiler
        environment["CC_" + triple.replace("-", "_")] = compiler
    have_target(triple)
    print(f"image: building lanyard for {arch} (about five minutes the first time on two cores)", flush=True)
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--bin", "lanyard", "--target", triple]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    target = pathlib.Path(environment.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / triple / "release" / "lanyard"


def remapped() -> dict[str, str]:
    """Settings for rustc and the C compiler."""
    home = pathlib.Path.home()
    places = {
        os.environ.get("CARGO_HOME", home / ".cargo"): "/cargo",
        output("rustc", "--print", "sysroot"): "/rust",
        os.environ.get("CARGO_TARGET_DIR", ROOT / "target"): "/src/target",
        ROOT: "/src",
    }
    # Of several that fit, rustc and gcc take the last one given: the innermost folder comes last.
    ordered = sorted(((str(a), b) for a, b in places.items()), key=lambda pair: len(pair[0]))
    rust = [f"--remap-path-prefix={a}={b}" for a, b in ordered]
    c = " ".join(f"-ffile-prefix-map={a}={b}" for a, b in ordered)
    flags = {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(rust)}
    return flags | {f"CFLAGS_{triple.replace('-', '_')}": c for triple in TRIPLES.values()}


def have_target(triple: str) -> None:
    """The standard library for `triple`, by rustup where that rules the toolchain."""
    if pathlib.Path(output("rustc", "--print", "target-libdir", "--target", triple)).is_dir():
        return
    if not shutil.which("rustup"):
        raise RuntimeError(f"rustc has no standard library for {triple}, and there is no rustup to add it")
    print(f"image: adding Rust's standard library for {triple}", flush=True)
    subprocess.run(["rustup", "target", "add", triple], cwd=ROOT, check=True)


def output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    except FileNotFoundError as error:
        raise RuntimeError(f"{command[0]} is missing: Rust is installed by https://rustup.rs") from error
