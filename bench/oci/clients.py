"""The programs that copy an image, as they are called, with their defaults."""

import json
import os

import proc
from image import TAG
from registries import credentials, environment


class Client:
    """A program with an empty home folder."""

    def __init__(self, program, dir):
        self.program, self.dir = program, dir
        os.makedirs(dir)
        self.login()

    def login(self, *hosts):
        with open(os.path.join(self.dir, "config.json"), "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
            json.dump({"auths": {h: {"auth": credentials()} for h in hosts}}, f)

    def run(self, argv):
        return proc.run([self.program, *argv], self.dir, environment(self.dir))


class Crane(Client):
    def copy(self, src, dst):
        return ["copy", f"{src.name}:{TAG}", f"{dst.name}:{TAG}"]

    def push(self, layout, dst):
        return ["push", layout.dir, f"{dst.name}:{TAG}"]

    def pull(self, src, to):
        return ["pull", "--format", "oci", f"{src.name}:{TAG}", to]


class Regctl(Client):
    def copy(self, src, dst):
        return self.call(f"{src.name}:{TAG}", f"{dst.name}:{TAG}", src, dst)

    def push(self, layout, dst):
        return self.call(f"ocidir://{layout.dir}:{TAG}", f"{dst.name}:{TAG}", dst)

    def pull(self, src, to):
        return self.call(f"{src.name}:{TAG}", f"ocidir://{to}:{TAG}", src)

    def call(self, a, b, *plain):
        return [*(f"--host=reg={r.host},tls=disabled" for r in plain), "image", "copy", a, b]


class Skopeo(Client):
    def copy(self, src, dst):
        return self.call(f"docker://{src.name}:{TAG}", f"docker://{dst.name}:{TAG}")

    def push(self, layout, dst):
        return self.call(f"oci:{layout.dir}:{TAG}", f"docker://{dst.name}:{TAG}")

    def pull(self, src, to):
        return self.call(f"docker://{src.name}:{TAG}", f"oci:{to}:{TAG}")

    def call(self, a, b):
        return ["--insecure-policy", "copy", "-q", "--preserve-digests", "--authfile", os.path.join(self.dir, "config.json"),
                "--src-tls-verify=false", "--dest-tls-verify=false", a, b]


class Oras(Client):
    def copy(self, src, dst):
        return ["cp", "--no-tty", "--from-plain-http", "--to-plain-http", f"{src.name}:{TAG}", f"{dst.name}:{TAG}"]

    def push(self, layout, dst):
        return ["cp", "--no-tty", "--from-oci-layout", "--to-plain-http", f"{layout.dir}:{TAG}", f"{dst.name}:{TAG}"]

    def pull(self, src, to):
        return ["cp", "--no-tty", "--from-plain-http", "--to-oci-layout", f"{src.name}:{TAG}", f"{to}:{TAG}"]


class Ocicopy(Client):
    """bench/ocicopy: darkmirror's packages, from registry to store to registry in one process."""

    def fresh(self):
        """Another store."""
        self.stores = getattr(self, "stores", 0) + 1

    def copy(self, src, dst):
        return ["-store", os.path.join(self.dir, f"store{self.stores}"), f"http://{src.name}:{TAG}", f"http://{dst.name}:{TAG}"]


PEERS = {"crane": Crane, "regctl": Regctl, "skopeo": Skopeo, "oras": Oras}
