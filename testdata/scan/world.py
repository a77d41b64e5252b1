"""Make what the scan test carries: world.py FOLDER.

FOLDER/layout   an OCI image layout: an index, a manifest, a layer, in it a wheel,
                in it the EICAR test file
FOLDER/models   a folder of models: one with clean tensors, one whose pickle would
                run a command, one that is over the daemon's limit
FOLDER/files    a folder of files, one of them with our own test signature

Nothing here is harmful: the EICAR file is what every antivirus finds by
agreement, and the pickle would print a word. Neither is written in one piece
into this file, so that it is no finding itself.
"""

import gzip
import hashlib
import io
import json
import os
import struct
import sys
import tarfile
import zipfile

root = sys.argv[1]
EICAR = ("X5O!P%@AP[4" + "\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*").encode()
MARKER = ("darkmirror-" + "test-" + "marker-").encode() + b"7d1f0c"


def wheel(name, files):
    out = io.BytesIO()
    dist = name.split("-")[0] + "-" + name.split("-")[1] + ".dist-info"
    files = dict(files)
    files[dist + "/METADATA"] = f"Metadata-Version: 2.1\nName: {name.split('-')[0]}\nVersion: {name.split('-')[1]}\n".encode()
    files[dist + "/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[dist + "/RECORD"] = "".join(f"{n},,\n" for n in files).encode()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for n, body in files.items():
            z.writestr(zipfile.ZipInfo(n, (2026, 1, 1, 0, 0, 0)), body)
    return out.getvalue()


def layer(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as t:
        for n, body in files.items():
            info = tarfile.TarInfo(n)
            info.size = len(body)
            t.addfile(info, io.BytesIO(body))
    return raw.getvalue()


def layout(folder, layers):
    blobs = os.path.join(folder, "blobs", "sha256")
    os.makedirs(blobs)

    def put(body):
        digest = hashlib.sha256(body).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as f:
            f.write(body)
        return {"digest": "sha256:" + digest, "size": len(body)}

    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    descriptors = []
    for body in layers:
        config["rootfs"]["diff_ids"].append("sha256:" + hashlib.sha256(body).hexdigest())
        descriptors.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put(gzip.compress(body, mtime=0))})
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())},
        "layers": descriptors,
    }
    child = {"mediaType": manifest["mediaType"], "platform": {"os": "linux", "architecture": "amd64"}, **put(json.dumps(manifest).encode())}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [child]}
    top = {"mediaType": index["mediaType"], "annotations": {"org.opencontainers.image.ref.name": "1.0"}, **put(json.dumps(index).encode())}
    with open(os.path.join(folder, "index.json"), "w") as f:
        json.dump({"schemaVersion": 2, "mediaType": index["mediaType"], "manifests": [top]}, f)
    with open(os.path.join(folder, "oci-layout"), "w") as f:
        json.dump({"imageLayoutVersion": "1.0.0"}, f)


def write(path, body):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(body)


layout(
    os.path.join(root, "layout"),
    [
        layer({"etc/os-release": b'ID=debian\nVERSION_ID="12"\n', "var/lib/dpkg/status": b""}),
        layer({"opt/lib-1.0-py3-none-any.whl": wheel("lib-1.0-py3-none-any.whl", {"lib/__init__.py": b"", "lib/data.bin": EICAR})}),
    ],
)
header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
write(os.path.join(root, "models", "team", "good", "model.safetensors"), struct.pack("<Q", len(header)) + header + bytes(16))
write(os.path.join(root, "models", "team", "good", "config.json"), b'{"model_type": "tiny"}')
command = b"cposix\n" + b"sys" + b"tem\n(S'echo hello'\ntR."
write(os.path.join(root, "models", "team", "bad", "pytorch_model.bin"), command)
write(os.path.join(root, "models", "team", "bad", "config.json"), b'{"model_type": "tiny"}')
write(os.path.join(root, "files", "driver", "readme.txt"), b"a file like any other\n")
write(os.path.join(root, "files", "marked", "installer.sh"), b"#!/bin/sh\n# " + MARKER + b"\n")
