#!/usr/bin/env python3
"""The measurements of bench/devpi/README.md. run.sh prepares for it."""

import argparse
import base64
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import proc
import report
import wheels
from proc import MB, median

# The bounds: of the pace of a bare loop, which is the server's own. The server
# computes on one core, so its CPU time is the pace too, and the one figure that
# other work on the machine changes little.
LEAST = 0.9
SPREAD = 1.5  # where the bare loop itself varies more, seconds say nothing
TWINE = 20    # files: a password costs the server so much that more would take long


class Bench:
    def __init__(self, args):
        self.args, self.work, self.reps = args, args.work, 2 if args.quick else 5
        self.rep, self.n, self.runs, self.server_cpu = report.Report(), 0, {}, {}
        self.folder = self.path("wheels")
        self.projects = wheels.make(self.folder, 5 if args.quick else 1)
        self.files = sorted(glob.glob(os.path.join(self.folder, "*.whl")))
        self.digests = {os.path.basename(f): digest(f) for f in self.files}
        self.password = os.path.join(self.work, "password")
        for name, text in (("password", "secret\n"), ("secret", "a secret of a server that only this run knows\n")):
            with open(os.open(os.path.join(self.work, name), os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
                f.write(text)
        self.template = self.path("server")
        proc.run([self.bin("devpi-init"), "--serverdir", self.template, "--no-root-pypi", "--root-passwd", "secret"], self.work)

    def path(self, name):
        self.n += 1
        return os.path.join(self.work, f"{self.n:03d}-{name}")

    def bin(self, name):
        return os.path.join(self.args.venv, "bin", name)

    def head(self):
        r = self.rep
        r.say(f"darkmirror bench-devpi, {time.strftime('%Y-%m-%d')}{', quick' if self.args.quick else ''}: medians of {self.reps}, least and most in brackets")
        r.say(f"machine   {report.machine(self.work)}, load {os.getloadavg()[0]:.1f}")
        versions = {"Go": report.first(["go", "env", "GOVERSION"], r"[\d.]+"), "darkmirror": report.first([self.args.darkmirror, "version"], r"(?<=darkmirror )\S+")}
        versions |= {n: report.first([self.bin("python"), "-c", f"import importlib.metadata as m; print(m.version('{n}'))"]) for n in ("devpi-server", "devpi-client", "twine")}
        r.say("versions  " + ", ".join(f"{n} {v}" for n, v in versions.items()))
        total = sum(map(os.path.getsize, self.files))
        r.say(f"files     {len(self.files)} wheels of {len(self.projects)} projects, {total / MB:.1f} MB")

    def bundle(self):
        """Seals the wheels into a bundle and imports it once, without DevPI."""
        d = self.path("outside")
        os.makedirs(d)
        with proc.Server([self.args.serve, "-folder", self.folder, "-work", os.path.join(d, "index")], d, lambda: address(os.path.join(d, "serve.log"))):
            write(d, "outside.yaml", "role: outside", f"signing_key: {d}/key", "pypi:", "  - name: main",
                  f"    index: {address(os.path.join(d, 'serve.log'))}", "    allow_http: true", "    min_age: 0s",
                  f"    targets: [{', '.join(t.split('-', 1)[0] + '-' + t.split('-')[2] for t in wheels.PLATFORMS)}]",
                  "    catalogue:", *(f"      - '{p}: all'" for p in self.projects))
            for args in (["key", "generate"], ["export"]):
                proc.run([self.args.darkmirror, "--config", "outside.yaml", *args], d)
        self.outbox, self.key = os.path.join(d, "state", "outbox"), os.path.join(d, "key.pub")
        self.staged = self.inside("")
        proc.run([self.args.darkmirror, "--config", "inside.yaml", "import"], self.staged)
        with open(glob.glob(os.path.join(self.outbox, "*", "bundle.dsse.json"))[0]) as f:
            manifest = json.loads(base64.b64decode(json.load(f)["payload"]))
        self.snapshot = next(s["snapshot"] for s in manifest["sources"] if s["name"] == "pypi/main")

    def inside(self, index):
        """A fresh inside, with DevPI as its target where index names one."""
        d = self.path("inside")
        os.makedirs(d)
        target = [f"    devpi: {{index: {index}, user: root, password_file: {self.password}, create: true, allow_http: true}}"] if index else []
        write(d, "inside.yaml", "role: inside", f"inbox: [{self.outbox}]", "pypi:", "  - name: main", *target)
        proc.run([self.args.darkmirror, "--config", "inside.yaml", "key", "trust", self.key], d)
        return d

    # ---------------------------------------------------------------- the ways

    def bare(self, index, d, *flags):
        os.makedirs(d)
        u = proc.run([self.args.bare, "-index", index, "-password_file", self.password, *flags, self.folder], d)
        u.seconds = float(re.search(r"seconds ([\d.]+)", u.out).group(1))
        return u

    def read(self, index, d):
        return self.bare(index, d, "-read")

    def publish(self, index, d):
        os.makedirs(d)
        u = proc.run([self.args.publish, "-store", os.path.join(self.staged, "state", "store"), "-snapshot", self.snapshot, "-state", os.path.join(d, "state"),
                      "-index", index, "-password_file", self.password], d)
        u.seconds = float(re.search(r"seconds ([\d.]+)", u.out).group(1))
        return u

    def whole(self, index, d):
        d = self.inside(index)
        u = proc.run([self.args.darkmirror, "--config", "inside.yaml", "import"], d)
        u.seconds = u.wall
        shutil.rmtree(d)
        return u

    def devpi(self, index, d):
        os.makedirs(d)
        env = {"PATH": os.path.join(self.args.venv, "bin") + ":" + os.environ["PATH"], "HOME": d, "LC_ALL": "C.UTF-8"}
        base, name = index.rsplit("/root/", 1)
        for args in (["use", base], ["login", "root", "--password=secret"], ["index", "-c", name, "volatile=False", "bases="], ["use", "root/" + name]):
            proc.run([self.bin("devpi"), args[0], "--clientdir", d, *args[1:]], d, env)
        u = proc.run([self.bin("devpi"), "upload", "--clientdir", d, "--from-dir", self.folder], d, env)
        u.seconds = u.wall
        return u

    def twine(self, index, d):
        self.create(index, d)
        env = {"PATH": os.environ["PATH"], "HOME": d, "LC_ALL": "C.UTF-8"}
        u = proc.run([self.bin("twine"), "upload", "--disable-progress-bar", "--repository-url", index + "/", "-u", "root", "-p", "secret", *self.files[:TWINE]], d, env)
        u.seconds = u.wall
        return u

    def create(self, index, d):
        os.makedirs(d)
        base = index.rsplit("/root/", 1)[0]
        token = call(base + "/+login", "POST", {"user": "root", "password": "secret"})["result"]["password"]
        call(index, "PUT", {"type": "stage", "volatile": False, "bases": []}, base64.b64encode(f"root:{token}".encode()).decode())

    # ---------------------------------------------------------------- the run

    def one(self, name, way, count):
        """A way to upload, into a new index of a new server, and what is there then."""
        server = self.path("devpi")
        shutil.copytree(self.template, server)
        port = free()
        base = f"http://127.0.0.1:{port}"
        argv = [self.bin("devpi-server"), "--serverdir", server, "--host", "127.0.0.1", "--port", str(port), "--secretfile", os.path.join(self.work, "secret")]
        with proc.Server(argv, server, lambda: answers(base + "/+api")) as s:
            index, before, d = f"{base}/root/bench", cpu_of(s.p.pid), self.path(name.split()[0])
            u = way(index, d)
            u.server = cpu_of(s.p.pid) - before
            self.compare(index, name, sorted(self.digests)[:count])
        u.pace = count / u.seconds
        shutil.rmtree(server)
        shutil.rmtree(d, ignore_errors=True)
        self.runs.setdefault(name, []).append(u)

    def compare(self, index, name, wanted):
        """Every file's digest, as the index tells it."""
        got = {}
        for p in self.projects:
            page = get(f"{index}/+simple/{p}/", "application/vnd.pypi.simple.v1+json")
            got |= {f["filename"]: f["hashes"]["sha256"] for f in (json.loads(page)["files"] if page else [])}
        want = {n: self.digests[n] for n in wanted}
        if got != want:
            wrong = [n for n in set(got) | set(want) if got.get(n) != want.get(n)]
            raise proc.Failed(f"{name}: {len(wrong)} of {len(want)} files are not there or are others: {sorted(wrong)[:3]}")

    def all(self):
        n = len(self.files)
        ways = [("bare loop", self.bare, n), ("darkmirror, publish", self.publish, n), ("bare loop that reads", self.read, n),
                ("darkmirror import", self.whole, n), ("devpi upload", self.devpi, n), ("twine upload", self.twine, min(TWINE, n))]
        for i in range(self.reps):
            for name, way, count in ways if i % 2 == 0 else ways[1::-1] + ways[2:]:
                self.one(name, way, count)
        rows = [["program", "files", "files/s", "", "of the bare loop", "CPU s", "MB", "server CPU ms a file", "of the bare loop"]]
        for name, _, count in ways:
            r = self.runs[name]
            paces = [u.pace for u in r]
            rows.append([name, count, f"{median(r, 'pace'):.1f}", f"({min(paces):.1f} to {max(paces):.1f})", f"{self.beside('bare loop', name, 'seconds', count):.2f}",
                         f"{median(r, 'cpu'):.2f}", f"{median(r, 'rss') / MB:.0f}", f"{median(r, 'server') * 1000 / count:.1f}", f"{self.beside('bare loop', name, 'server', count):.2f}"])
        self.rep.section("Upload into a new index, every file compared afterwards")
        self.rep.table(rows)
        paces = [u.pace for u in self.runs["bare loop"]]
        quiet = max(paces) <= SPREAD * min(paces)
        for name in ("bare loop", "bare loop that reads"):
            for field, what in (("server", "server CPU"), ("seconds", "pace")):
                ratio = self.beside(name, "darkmirror, publish", field, n)
                undecided = "" if quiet or field == "server" else f"; not decided: the machine was busy, the bare loop did {min(paces):.0f} to {max(paces):.0f}"
                self.rep.bounds.append((f"{what}, beside the {name}", f"{ratio:.2f}, {LEAST} at least{undecided}", ratio >= LEAST and not undecided))
        self.rep.verdict()

    def beside(self, other, name, field, count):
        """What other takes a file, of what name takes: the median of the rounds, since a round's runs stand side by side."""
        pairs = zip(self.runs[other], self.runs[name])
        return statistics.median((getattr(a, field) / len(self.files)) / (getattr(b, field) / count) for a, b in pairs)


def digest(name):
    with open(name, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write(folder, name, *lines):
    with open(os.path.join(folder, name), "w") as f:
        f.write("\n".join(("version: 1", "state_dir: state", *lines)) + "\n")


def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def address(log):
    """The address that a server has printed."""
    try:
        with open(log) as f:
            m = re.search(r"http://\S+", f.read())
    except OSError:
        return None
    return m and m.group(0)


def get(url, accept="*/*"):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as r:
            return r.read()
    except urllib.error.HTTPError as e:
        if e.code == 404:
            return None
        raise


def call(url, method, doc, token=""):
    headers = {"Content-Type": "application/json", "Accept": "application/json"} | ({"X-Devpi-Auth": token} if token else {})
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(doc).encode(), headers, method=method), timeout=60) as r:
        return json.load(r)


def answers(url):
    try:
        return get(url) is not None
    except OSError:
        return False


def cpu_of(pid):
    """The CPU seconds of a process so far."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    p = argparse.ArgumentParser()
    for name in ("work", "darkmirror", "bare", "publish", "serve", "venv", "results"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--quick", action="store_true")
    args = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    b = Bench(args)
    b.head()
    b.bundle()
    b.all()
    name = b.rep.save(args.results, "-devpi" + ("-quick" if args.quick else ""))
    print(f"\nwritten to {os.path.relpath(name)}")
    sys.exit(1 if b.rep.missed() else 0)


if __name__ == "__main__":
    main()
