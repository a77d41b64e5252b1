"""The image that is copied: an OCI layout, the same bytes in every run.

Each layer is a real tar of one file, in gzip with stored blocks: the file's
bytes are a SHAKE256 stream, which nothing compresses. A program that looks into
a layer finds what the manifest says of it.
"""

import hashlib
import io
import json
import os
import struct
import tarfile
import zlib

MB = 1_000_000
TAG = "1.0"
LAYERS = [64.875] * 8  # MB, 519 in all; below the chunk of darkmirror's uploads
STORED = 0xFFFF        # bytes of a stored block


def content(number, size):
    """The tar of layer number, so long that its gzip has size bytes."""
    room = size - 18 - 5 * -(-size // (STORED + 5))
    room -= room % 512
    info = tarfile.TarInfo(f"usr/share/bench/{number}")
    info.size = room - 3 * 512
    out = io.BytesIO(info.tobuf(tarfile.USTAR_FORMAT))
    out.seek(0, os.SEEK_END)
    out.write(hashlib.shake_256(b"darkmirror bench layer %d" % number).digest(info.size))
    out.write(bytes(2 * 512))
    return out.getvalue()


def gzip(data):
    """data as one gzip member of stored blocks, in pieces."""
    yield b"\x1f\x8b\x08\x00\0\0\0\0\x00\xff"
    for at in range(0, len(data), STORED):
        part = data[at:at + STORED]
        yield struct.pack("<BHH", at + STORED >= len(data), len(part), len(part) ^ 0xFFFF)
        yield part
    yield struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


class Layout:
    """An OCI image-layout folder with one image, tagged TAG."""

    def __init__(self, dir, sizes=LAYERS):
        self.dir = dir
        os.makedirs(os.path.join(dir, "blobs", "sha256"))
        layers, ids = [], []
        for number, size in enumerate(sizes):
            tar = content(number, int(size * MB))
            ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
            layers.append(self.blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip(tar)))
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids},
                  "history": [{"created_by": f"bench layer {n}"} for n in range(len(ids))]}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.blob("application/vnd.oci.image.config.v1+json", [encode(config)]), "layers": layers}
        top = self.blob(manifest["mediaType"], [encode(manifest)])
        self.digest = top["digest"]
        self.blobs = [manifest["config"], *layers]
        self.bytes = top["size"] + sum(b["size"] for b in self.blobs)
        self.file("oci-layout", [encode({"imageLayoutVersion": "1.0.0"})])
        self.file("index.json", [encode({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                                         "manifests": [{**top, "annotations": {"org.opencontainers.image.ref.name": TAG}}]})])

    def file(self, name, pieces):
        size = 0
        with open(os.path.join(self.dir, name), "wb") as f:
            for piece in pieces:
                size += f.write(piece)
        return size

    def blob(self, media_type, pieces):
        """Writes a blob and returns its descriptor."""
        sha = hashlib.sha256()

        def hashed():
            for piece in pieces:
                sha.update(piece)
                yield piece

        size = self.file("blob", hashed())
        os.rename(os.path.join(self.dir, "blob"), os.path.join(self.dir, "blobs", "sha256", sha.hexdigest()))
        return {"mediaType": media_type, "digest": "sha256:" + sha.hexdigest(), "size": size}


def encode(value):
    return json.dumps(value, separators=(",", ":")).encode()
