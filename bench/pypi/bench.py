"""Plans and fetches a closure of 200 projects, a round trip of 30 ms away, with
pip, uv and darkmirror, and mirrors one project with bandersnatch and with
darkmirror; see README.md. run.sh calls it."""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sys
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from proc import Failed, Server, median, run  # noqa: E402
from report import Report, first, machine  # noqa: E402

CONFIG = """version: 1
role: outside
state_dir: {dir}/state
signing_key: {dir}/key
{limits}pypi:
  - name: main
    index: {url}/simple/
    allow_hosts: [{host}]
    allow_http: true
    targets: [cp312-manylinux_2_28_x86_64]
    {what}
"""


class Bench:
    def __init__(self, a):
        self.a = a
        self.report = Report()
        self.number = 0
        self.used = {}

    def fresh(self):
        self.number += 1
        d = pathlib.Path(self.a.work) / f"run{self.number}"
        d.mkdir()
        return d

    def check(self, folder, want):
        """Every file of the closure, and no other, byte for byte."""
        have = {}
        for f in pathlib.Path(folder).rglob("*"):
            if f.is_file():
                have[hashlib.sha256(f.read_bytes()).hexdigest()] = f.name
        if missing := [n for d, n in want.items() if d not in have]:
            raise Failed(f"{len(missing)} of {len(want)} files are missing, {missing[0]} is the first")

    def timed(self, name, do):
        self.counters()
        used = do()
        c = self.counters()
        used.requests, used.connections = c["requests"], c["connections"]
        self.used.setdefault(name, []).append(used)

    def counters(self):
        with urllib.request.urlopen(self.url + "/-/counters") as r:
            return json.loads(r.read())

    def pip(self):
        d = self.fresh()
        self.timed("pip download", lambda: run([self.a.python, "-m", "pip", "download", "-q", "--isolated", "--disable-pip-version-check", "--no-cache-dir", "--trusted-host", self.name,
                                                "--index-url", self.url + "/simple/", "--only-binary", ":all:", "-d", str(d / "out"), "-r", self.requirements], str(d)))
        self.check(d / "out", self.closure)
        shutil.rmtree(d)

    def uv(self):
        # It unpacks what it downloads; the wheels themselves are not kept.
        d = self.fresh()
        env = {**os.environ, "UV_CACHE_DIR": str(d / "cache"), "UV_NO_CONFIG": "1"}
        self.timed("uv pip install", lambda: run([self.a.uv, "pip", "install", "-q", "--target", str(d / "out"), "--python", self.a.python, "--default-index", self.url + "/simple/",
                                                  "--only-binary", ":all:", "-r", self.requirements], str(d), env))
        n = sum(1 for f in (d / "out").glob("*.dist-info"))
        if n != len(self.closure):
            raise Failed(f"uv installed {n} of {len(self.closure)}")
        shutil.rmtree(d)

    def uv_resolves(self):
        d = self.fresh()
        env = {**os.environ, "UV_CACHE_DIR": str(d / "cache"), "UV_NO_CONFIG": "1"}
        self.timed("uv pip compile, nothing fetched", lambda: run([self.a.uv, "pip", "compile", "-q", "-p", self.a.python, "--default-index", self.url + "/simple/",
                                                                   "--only-binary", ":all:", "-o", str(d / "lock"), self.requirements], str(d), env))
        shutil.rmtree(d)

    def ours(self, name, command, limits="", what=None, want=None, again=None):
        d = self.fresh()
        config = d / "darkmirror.yaml"
        config.write_text(CONFIG.format(dir=d, url=self.url, host=self.name, limits=limits, what=what or f"requirements: [{{file: {self.requirements}}}]"))
        dm = [self.a.darkmirror, "--config", str(config)]
        run([*dm, "key", "generate"], str(d))
        self.timed(name, lambda: run([*dm, *command], str(d)))
        if command[0] != "plan":
            self.check(d / "state", want or self.closure)
        if again:
            self.timed(again, lambda: run([*dm, *command], str(d)))
        shutil.rmtree(d)

    def bandersnatch(self):
        d = self.fresh()
        conf = d / "bandersnatch.conf"
        conf.write_text(f"[mirror]\ndirectory = {d}/out\nmaster = {self.url}\nallow-non-https = true\njson = false\nhash-index = false\ntimeout = 30\nworkers = 10\nverifiers = 1\ncompare-method = hash\n")
        self.timed("bandersnatch", lambda: run([self.a.bandersnatch, "-c", str(conf), "sync", "made-000"], str(d)))
        self.check(d / "out", self.project)
        shutil.rmtree(d)

    def all(self):
        a = self.a
        work = pathlib.Path(a.work)
        self.requirements, files = str(work / "requirements.txt"), work / "files.txt"
        self.name = "127.0.0.1"
        self.url = f"http://{self.name}:{a.port}"

        def ready():
            try:
                self.counters()
            except OSError:
                return False
            return True

        with Server([a.index, "-listen", f"{self.name}:{a.port}", "-latency", a.latency, "-requirements", self.requirements, "-files", str(files)], str(work), ready):
            self.closure = dict(line.split() for line in files.read_text().splitlines())
            with urllib.request.urlopen(urllib.request.Request(self.url + "/simple/made-000/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})) as r:
                self.project = {f["hashes"]["sha256"]: f["filename"] for f in json.loads(r.read())["files"]}
            for _ in range(a.runs):
                self.pip()
                self.uv()
                self.uv_resolves()
                self.ours("darkmirror plan, nothing fetched", ["plan"])
                self.ours("darkmirror fetch", ["fetch"])
                self.ours("darkmirror fetch, 50 connections", ["fetch"], limits="limits: {per_host: 50, total: 50}\n", again="the same again")
                self.ours("darkmirror export", ["export"], limits="limits: {per_host: 50, total: 50}\n")
                self.bandersnatch()
                self.ours("darkmirror, the same project", ["fetch"], what='catalogue: ["made-000: all"]', want=self.project)
        self.print()

    def print(self):
        a, r = self.a, self.report
        r.say(f"bench-pypi, {time.strftime('%Y-%m-%d')}: {machine(a.work)}")
        r.say(f"pip {first([a.python, '-m', 'pip', '--version'])}, uv {first([a.uv, '--version'])}, bandersnatch {first([a.bandersnatch, '--version'])}; medians of {a.runs} (least to most)")
        rows = [["", "seconds", "", "CPU s", "RSS MB", "requests", "connections"]]
        for name, runs in self.used.items():
            walls = [u.wall for u in runs]
            rows.append([name, f"{median(runs, 'wall'):.2f}", f"{min(walls):.2f}-{max(walls):.2f}", f"{median(runs, 'cpu'):.2f}", f"{median(runs, 'rss') / 1e6:.0f}",
                         str(int(median(runs, "requests"))), str(int(median(runs, "connections")))])
        r.section(f"200 projects, {sum_bytes(self.closure, a)} to fetch, {a.latency} a round trip; then one project of 30 files")
        r.table(rows)
        pip, uv = median(self.used["pip download"], "wall"), median(self.used["uv pip install"], "wall")
        ours = median(self.used["darkmirror fetch, 50 connections"], "wall")
        r.bound("plan and fetch, of pip's time", ours / pip, 0.1)
        r.bound("plan and fetch, of uv's time", ours / uv, 1.0)
        r.bound("one project, of bandersnatch's time", median(self.used["darkmirror, the same project"], "wall") / median(self.used["bandersnatch"], "wall"), 1.0)
        r.verdict()
        if a.results:
            r.say()
            r.say("written to " + os.path.relpath(r.save(a.results, "-pypi")))
        sys.exit(1 if r.missed() else 0)


def sum_bytes(closure, a):
    return f"{len(closure)} wheels"


def main():
    p = argparse.ArgumentParser()
    for name in ("work", "darkmirror", "index", "python", "uv", "bandersnatch", "port"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--results", default="")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--latency", default="30ms")
    b = Bench(p.parse_args())
    try:
        b.all()
    except Failed as e:
        sys.exit(f"bench-pypi: {e}")


if __name__ == "__main__":
    main()
