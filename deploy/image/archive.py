"""Writes layers as one archive: an OCI image layout that is a docker archive, too.

In: folders (one for each layer), the architecture, where it comes from. Out: the tar file, and its
sizes in words. Deterministic: names sorted, owner 0:0, modes and times fixed, gzip without a time. Layers but the last
have time 0, so that their digests stay while the packages stay; the last has the source's time.
"""

import gzip
import hashlib
import io
import json
import pathlib
import tarfile

from source import Source

NAME = "docker.io/library/lanyard"
TITLE = "org.opencontainers.image."


def write(target: pathlib.Path, layers: list[pathlib.Path], arch: str, source: Source) -> str:
    blobs: dict[str, bytes] = {}

    def keep(content: bytes, kind: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    plain = [layer(folder, source.epoch if folder == layers[-1] else 0) for folder in layers]
    packed = [keep(gzip.compress(content, 9, mtime=0), "layer.v1.tar+gzip") for content in plain]
    diff_ids = ["sha256:" + hashlib.sha256(content).hexdigest() for content in plain]
    config = keep(as_json(configuration(arch, source, diff_ids)), "config.v1+json")
    manifest = keep(as_json({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": packed, "annotations": labels(source),
    }), "manifest.v1+json")
    reference = f"{NAME}:{source.version}"
    index = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest | {
            "platform": {"architecture": arch, "os": "linux"},
            # The first is skopeo's and podman's name for it, the second containerd's.
            "annotations": {TITLE + "ref.name": source.version, "io.containerd.image.name": reference},
        }],
    }
    docker = [{"Config": blob(config), "RepoTags": [f"lanyard:{source.version}"], "Layers": [blob(one) for one in packed]}]
    files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    files |= {"oci-layout": as_json({"imageLayoutVersion": "1.0.0"}), "index.json": as_json(index),
              "manifest.json": as_json(docker)}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(tar([(entry(name, source.epoch, size=len(files[name])), files[name]) for name in sorted(files)]))
    partial.replace(target)
    mb = 1_000_000
    return (f"{sum(one['size'] for one in packed) / mb:.1f} MB of compressed layers "
            f"({' + '.join(format(one['size'] / mb, '.1f') for one in packed)}), {sum(map(len, plain)) / mb:.1f} MB unpacked")


def configuration(arch: str, source: Source, diff_ids: list[str]) -> dict:
    return {
        "created": source.created, "architecture": arch, "os": "linux",
        "config": {
            "Entrypoint": ["/usr/local/bin/lanyard"],
            "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "WorkingDir": "/", "Labels": labels(source),
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


def labels(source: Source) -> dict[str, str]:
    return {
        TITLE + "title": "lanyard", TITLE + "description": source.description, TITLE + "version": source.version,
        TITLE + "revision": source.revision, TITLE + "created": source.created, TITLE + "licenses": source.licence,
    }


def layer(folder: pathlib.Path, epoch: int) -> bytes:
    members = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            members.append((entry(name, epoch, tarfile.SYMTYPE, 0o777, link=str(path.readlink())), b""))
        elif path.is_dir():
            members.append((entry(name + "/", epoch, tarfile.DIRTYPE, 0o755), b""))
        else:
            content = path.read_bytes()
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            members.append((entry(name, epoch, mode=mode, size=len(content)), content))
    return tar(members)


def entry(name: str, epoch: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime, info.linkname = kind, mode, size, epoch, link
    return info


def tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return written.getvalue()


def blob(descriptor: dict) -> str:
    return "blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")


def as_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
