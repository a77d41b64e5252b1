"""darkmirror's two sides with one image."""

import os
import shutil

import proc
from image import TAG
from registries import REPO, environment


class Side:
    def __init__(self, program, dir, config):
        self.program, self.dir = program, dir
        os.makedirs(dir)
        with open(os.path.join(dir, "darkmirror.yaml"), "w") as f:
            f.write("\n".join(config) + "\n")

    def run(self, *args):
        return proc.run([self.program, "--quiet", "-o", "json", *args], self.dir, environment(self.dir))

    def remove(self):
        shutil.rmtree(self.dir)


class Outside(Side):
    """An outside that reads the image from a registry."""

    def __init__(self, program, dir, src):
        super().__init__(program, dir, ["version: 1", "role: outside", "stream: bench", "state_dir: state", "outbox: outbox", "signing_key: key",
                                        "scan: {types: {unknown: allow}}", "oci:", "  - name: bench", f"    registry: http://{src.host}", "    allow_http: true",
                                        f'    images: ["{REPO}:{TAG}"]'])
        self.run("key", "generate", "--name", "bench")


class Inside(Side):
    """An inside that publishes into a registry, or for its own server."""

    def __init__(self, program, dir, outside, dst=None):
        config = ["version: 1", "role: inside", "state_dir: state", f"inbox: [{outside.dir}/outbox]", f"trust: [{outside.dir}/key.pub]",
                  "oci:", "  - name: bench"]
        if dst:
            config += [f"    registry: http://{dst.host}", "    allow_http: true"]
        super().__init__(program, dir, config)

    def check(self, image):
        """Fails unless the whole image is in the store."""
        for b in image.blobs:
            digest = b["digest"].removeprefix("sha256:")
            name = os.path.join(self.dir, "state/store/blobs/sha256", digest[:2], digest)
            if not os.path.isfile(name) or os.path.getsize(name) != b["size"]:
                raise proc.Failed(f"{name} is not there, or not whole")
