"""Registries on loopback, each with a folder of its own."""

import base64
import http.client
import json
import os
import shutil
import socket

import proc
from image import TAG

TOKEN = "bench-token-of-no-worth"
REPO = "bench/image"


class Registry(proc.Server):
    """distribution v3 or Debian's docker-registry with an empty folder."""

    prefix = ""

    def __init__(self, program, dir):
        os.makedirs(dir)
        self.dir, self.host = dir, f"127.0.0.1:{free_port()}"
        conf = os.path.join(dir, "registry.json")  # JSON is YAML, too
        with open(conf, "w") as f:
            json.dump({"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}}, "http": {"addr": self.host},
                       "storage": {"filesystem": {"rootdirectory": os.path.join(dir, "data")}}}, f)
        super().__init__([program, "serve", conf], dir, lambda: self.status("/v2/") in (200, 401), environment(dir))

    @property
    def name(self):
        """The repository as a client writes it."""
        return f"{self.host}/{self.prefix}{REPO}"

    def ask(self, method, path):
        c = http.client.HTTPConnection(self.host, timeout=30)
        try:
            c.request(method, path, headers={"Accept": "application/vnd.oci.image.manifest.v1+json", "Authorization": "Basic " + credentials()})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def status(self, path):
        try:
            return self.ask("HEAD", path)[0]
        except OSError:
            return 0

    def check(self, image, repo=None):
        """Fails unless the whole image is there."""
        base = f"/v2/{repo or self.prefix + REPO}/"
        status, headers, _ = self.ask("HEAD", base + "manifests/" + TAG)
        if status != 200 or headers["Docker-Content-Digest"] != image.digest:
            raise proc.Failed(f"{base}manifests/{TAG}: {status} {headers.get('Docker-Content-Digest')}, want {image.digest}")
        for b in image.blobs:
            status, headers, _ = self.ask("HEAD", base + "blobs/" + b["digest"])
            if status != 200 or int(headers["Content-Length"]) != b["size"]:
                raise proc.Failed(f"{base}blobs/{b['digest']}: {status}, {headers.get('Content-Length')} bytes, want {b['size']}")

    def repositories(self):
        """The repositories that have the tag."""
        top = os.path.join(self.dir, "data/docker/registry/v2/repositories")
        return [os.path.relpath(d.removesuffix("/_manifests/tags/" + TAG), top) for d, _, _ in os.walk(top) if d.endswith("/_manifests/tags/" + TAG)]

    def used(self):
        """CPU seconds and peak memory until now."""
        with open(f"/proc/{self.p.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        with open(f"/proc/{self.p.pid}/status") as f:
            (peak,) = [line.split()[1] for line in f if line.startswith("VmHWM")]
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak) * 1024

    def close(self):
        super().close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Embedded(Registry):
    """darkmirror serve as a target of pushes."""

    prefix = "bench/"

    def __init__(self, program, dir):
        os.makedirs(dir)
        self.dir, self.host = dir, f"127.0.0.1:{free_port()}"
        with open(os.path.join(dir, "push.token"), "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
            f.write(TOKEN)
        with open(os.path.join(dir, "darkmirror.yaml"), "w") as f:
            f.write("version: 1\nrole: inside\nstate_dir: state\ninbox: [inbox]\n"
                    "oci:\n  - name: bench\n"
                    f"serve:\n  listen: {self.host}\n  push_token_file: push.token\n")
        proc.Server.__init__(self, [program, "serve"], dir, lambda: self.status("/v2/") in (200, 401), environment(dir))


def credentials():
    return base64.b64encode(b"bench:" + TOKEN.encode()).decode()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(dir):
    """All that a program is given: docker-registry takes every REGISTRY_ variable for a setting, clients read proxies and credentials."""
    return {"PATH": os.environ["PATH"], "HOME": dir, "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": dir, "DOCKER_CONFIG": dir,
            "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
