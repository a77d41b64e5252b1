#!/usr/bin/env python3
"""The measurements of bench/models/README.md. run.sh prepares for it."""

import argparse
import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import proc
import report
from proc import MB, median

GIB = 1 << 30

# The bounds, of medians. Ratios are beside hf download, in the same run: times
# its throughput, and of its CPU time a GiB. They hold on two cores, which the
# hub shares: README.md says what limits what.
SMALL = (4.0, 0.25)                                   # many small files, on every line
LARGE = {"loopback": (1.2, 1.1), "50 ms": (1.2, 1.1)}  # where CPU is the limit
CAPPED = {1: (4.0, 1.0), 40: (1.5, 0.8), 10: (1.5, 0.8)}  # by files, where a connection is
MEMORY = 64 * MB    # of a fetch
HEAD_P99 = 5.0      # ms, 1,000 connections at HEAD_RATE
HEAD_RATE = 2000    # requests a second, over all of them
NGINX = 0.85        # of its throughput with the same file

# A shape is how many files of how many bytes.
SHAPES = {"1 x 4 GiB": (1, 4 * GIB), "40 x 100 MB": (40, 100 * MB), "2,000 x 50 KB": (2000, 50_000)}
QUICK = {"1 x 1 GiB": (1, GIB), "10 x 100 MB": (10, 100 * MB), "500 x 50 KB": (500, 50_000)}
# A line is what stands between client and hub.
LINES = {"loopback": [], "50 ms": ["-delay", "50ms"], "100 MB/s a connection": ["-conn-rate", "100000000"]}


class Hub(proc.Server):
    """bench/hub with one repository, team/bench."""

    def __init__(self, program, dir, data, *flags):
        os.makedirs(dir)
        self.out = os.path.join(dir, os.path.basename(program) + ".log")
        super().__init__([program, "-dir", data, *flags], dir, lambda: self.addresses() is not None)
        self.url, self.cdn = self.addresses()

    def addresses(self):
        try:
            with open(self.out) as f:
                m = re.search(r"^hub (\S+) cdn (\S+)$", f.read(), re.M)
        except OSError:
            return None
        return m and m.groups()


class Side:
    """darkmirror in a folder of its own."""

    def __init__(self, program, dir, *config):
        self.program, self.dir = program, dir
        os.makedirs(dir)
        with open(os.path.join(dir, "darkmirror.yaml"), "w") as f:
            f.write("version: 1\nstate_dir: state\n" + "\n".join(config) + "\n")

    def run(self, *args):
        return proc.run([self.program, "--quiet", "-o", "json", *args], self.dir, bare(self.dir))

    def remove(self):
        shutil.rmtree(self.dir)


class Bench:
    def __init__(self, args):
        self.args, self.work, self.reps = args, args.work, 2 if args.quick else 5
        self.rep = report.Report()
        self.n = 0

    def path(self, name):
        self.n += 1
        return os.path.join(self.work, f"{self.n:03d}-{name}")

    def head(self):
        r = self.rep
        r.say(f"darkmirror bench-models, {time.strftime('%Y-%m-%d')}{', quick' if self.args.quick else ''}: medians of {self.reps}, least in brackets")
        r.say(f"machine   {report.machine(self.work)}, load {os.getloadavg()[0]:.1f}")
        versions = {
            "Go": report.first(["go", "env", "GOVERSION"], r"[\d.]+"), "darkmirror": report.first([self.args.darkmirror, "version"], r"(?<=darkmirror )\S+"),
            "huggingface_hub": report.first([self.args.python, "-c", "import huggingface_hub; print(huggingface_hub.__version__)"]),
            "nginx": self.args.nginx and report.first([self.args.nginx, "-v"], r"[\d.]+"), "curl": report.first(["curl", "--version"]),
        }
        r.say("versions  " + ", ".join(f"{n} {v or 'missing, left out'}" for n, v in versions.items()))

    # ------------------------------------------------------------- outside

    def fetches(self):
        for shape, (count, size) in (QUICK if self.args.quick else SHAPES).items():
            data = self.path("data")
            made(os.path.join(data, "models/team/bench"), count, size)
            for line, flags in LINES.items():
                with Hub(self.args.hub, self.path("hub"), data, *flags) as hub:
                    self.fetch(shape, line, hub, count, size)
            shutil.rmtree(data)

    def fetch(self, shape, line, hub, count, size):
        """hf download and darkmirror fetch in turn, each into an empty folder."""
        total = count * size
        runs = {"hf download": [], "darkmirror fetch": []}
        for i in range(self.reps):
            for name in list(runs)[i % 2:] + list(runs)[:i % 2]:
                to = self.path("to")
                runs[name].append(self.hf(hub, to) if name == "hf download" else self.ours(hub, to))
                if (got := proc.tree_bytes(to)) < total:
                    raise proc.Failed(f"{name}: {got} of {total} bytes are there")
                shutil.rmtree(to)
        self.rep.section(f"Download, {shape}, {line}")
        self.rep.table([["program", "wall s", "MB/s", "CPU s a GiB", "MB"]] + [
            [name, cell(r, "wall"), f"{total / median(r, 'wall') / MB:.0f}", f"{median(r, 'cpu') * GIB / total:.2f} ({least(r, 'cpu') * GIB / total:.2f})", f"{median(r, 'rss') / MB:.0f}"]
            for name, r in runs.items()])
        theirs, ours = runs.values()
        faster, cheaper = median(theirs, "wall") / median(ours, "wall"), median(ours, "cpu") / median(theirs, "cpu")
        times, share = SMALL if size < MB else LARGE.get(line) or CAPPED[count]
        self.rep.bound(f"throughput beside hf, {shape}, {line}", 1 / faster, 1 / times, f"{faster:.1f} times, {times} at least")
        self.rep.bound(f"CPU beside hf, {shape}, {line}", cheaper, share, f"{cheaper:.2f} of {share}")
        self.rep.bound(f"memory, {shape}, {line}", median(ours, "rss"), MEMORY, f"{median(ours, 'rss') / MB:.0f} MB of {MEMORY / MB:.0f}")

    def hf(self, hub, to):
        os.makedirs(to)
        env = bare(to) | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        return proc.run([os.path.join(os.path.dirname(self.args.python), "hf"), "download", "team/bench"], to, env)

    def ours(self, hub, to):
        s = Side(self.args.darkmirror, to, "role: outside", "signing_key: key", "models:", "  - name: bench", f"    hub: {hub.url}", "    allow_http: true",
                 f"    allow_hosts: [\"{hub.cdn.removeprefix('http://')}\"]", "    repositories: [team/bench]")
        s.run("key", "generate", "--name", "bench")
        return s.run("fetch")

    # -------------------------------------------------------------- inside

    def serving(self):
        local = self.path("local")
        made(os.path.join(local, "team/bench"), 1, GIB)
        made(os.path.join(local, "team/many"), 1000, 2000)
        outside = Side(self.args.darkmirror, self.path("outside"), "role: outside", "outbox: outbox", "signing_key: key",
                       "scan: {models: {hold: [critical]}, unscanned: warn}", "models:", "  - name: bench",
                       f"    folder: {local}", "    repositories: [team/bench, team/many]")
        outside.run("key", "generate", "--name", "bench")
        outside.run("export")
        host = f"127.0.0.1:{free_port()}"
        inside = Side(self.args.darkmirror, self.path("inside"), "role: inside", f"inbox: [{outside.dir}/outbox]", f"trust: [{outside.dir}/key.pub]",
                      "models:", "  - name: bench", "serve:", f"  listen: {host}")
        inside.run("import")
        outside.remove()
        with proc.Server([inside.program, "serve"], inside.dir, lambda: listening(host), bare(inside.dir)) as ours:
            base = f"http://{host}/models/bench/team"
            wait(host, "/models/bench/team/bench/resolve/main/file-0000.safetensors")
            servers = {"darkmirror serve": base + "/{}/resolve/main/{}"}
            if self.args.nginx:
                at, nginx = self.nginx(local)
                with nginx:
                    self.load(servers | {"nginx": at + "/team/{}/{}"}, ours)
            else:
                self.load(servers, ours)

    def nginx(self, local):
        dir, host = self.path("nginx"), f"127.0.0.1:{free_port()}"
        os.makedirs(dir)
        conf = os.path.join(dir, "nginx.conf")
        # The header is what headload wants to see of a hub.
        with open(conf, "w") as f:
            f.write(f"{'user root; ' if os.getuid() == 0 else ''}daemon off; worker_processes auto; pid {dir}/pid; error_log stderr;\nevents {{ worker_connections 4096; }}\n"
                    f"http {{ access_log off; sendfile on; keepalive_requests 1000000; default_type application/octet-stream;\n"
                    f"  client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n"
                    f"  server {{ listen {host}; root {local}; add_header X-Repo-Commit 0; }} }}\n")
        return f"http://{host}", proc.Server([self.args.nginx, "-c", conf, "-p", dir], dir, lambda: listening(host))

    def load(self, servers, ours):
        heads, bursts, gets, four = ({name: [] for name in servers} for _ in range(4))
        for i in range(self.reps):
            for name in list(servers)[i % len(servers):] + list(servers)[:i % len(servers)]:
                small = [servers[name].format("many", f"file-{n:04d}.safetensors") for n in range(1000)]
                heads[name].append(self.heads(small, HEAD_RATE))
                bursts[name].append(self.heads(small, 0))
                big = servers[name].format("bench", "file-0000.safetensors")
                gets[name].append(self.curl([big]))
                four[name].append(self.curl([big] * 4))
        self.rep.section("Serving: HEAD over 1,000 connections, GET of 1 GiB by curl")
        rows = [["server", f"HEAD {HEAD_RATE}/s: p50 ms", "p99 ms", "as fast as it goes: a second", "p99 ms", "GET MB/s", "4 at once MB/s"]]
        for name in servers:
            rows.append([name, *(f"{mid(h[k] for h in heads[name]):.2f}" for k in ("p50", "p99")),
                         f"{mid(h['rate'] for h in bursts[name]):.0f}", f"{mid(h['p99'] for h in bursts[name]):.1f}",
                         f"{mid(gets[name]):.0f}", f"{mid(four[name]):.0f}"])
        self.rep.table(rows)
        with open(f"/proc/{ours.p.pid}/status") as f:
            peak = int(re.search(r"VmHWM:\s*(\d+)", f.read()).group(1)) * 1024
        self.rep.say(f"  peak memory of darkmirror serve: {peak / MB:.0f} MB")
        p99 = mid(h["p99"] for h in heads["darkmirror serve"])
        self.rep.bound("p99 of HEAD, 1,000 connections", p99, HEAD_P99, f"{p99:.2f} ms of {HEAD_P99:.0f}")
        for what, speeds in (("GET", gets), ("4 GETs at once", four)):
            if "nginx" in servers:
                ratio = mid(speeds["darkmirror serve"]) / mid(speeds["nginx"])
                self.rep.bound(f"{what} beside nginx", 1 / ratio, 1 / NGINX, f"{ratio:.2f}, {NGINX} at least")

    def heads(self, urls, rate):
        used = proc.run([self.args.headload, "-conns", "1000", "-rate", str(rate), "-for", "3s" if self.args.quick else "6s", *urls], self.work, bare(self.work))
        m = re.search(r"a second (\S+), ms p50 (\S+) p99 (\S+)", used.out)
        return dict(zip(("rate", "p50", "p99"), map(float, m.groups())))

    def curl(self, urls):
        """MB a second of all of them together."""
        args = ["curl", "--silent", "--fail", "--parallel", "--parallel-immediate"]
        for u in urls:
            args += ["--output", "/dev/null", u]
        return len(urls) * GIB / proc.run(args, self.work, bare(self.work)).wall / MB

    def all(self):
        start = time.monotonic()
        self.head()
        self.serving()
        self.fetches()
        self.rep.verdict()
        self.rep.say()
        self.rep.say(f"took {time.monotonic() - start:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
        return self.rep.missed()


def made(dir, count, size):
    """Files of random bytes, and the configuration that makes a model of them."""
    os.makedirs(dir)
    for i in range(count):
        with open(os.path.join(dir, f"file-{i:04d}.safetensors"), "wb") as f:
            for _ in range(0, size, 16 << 20):
                f.write(os.urandom(min(16 << 20, size - f.tell())))
    with open(os.path.join(dir, "config.json"), "w") as f:
        f.write('{"made": "%s"}' % secrets.token_hex(8))


def bare(home):
    """An environment of nothing but what programs need to start."""
    return {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(host):
    name, port = host.split(":")
    with socket.socket() as s:
        return s.connect_ex((name, int(port))) == 0


def wait(host, path):
    """Until the server has verified a file and gives its first byte."""
    c = http.client.HTTPConnection(host, timeout=60)
    c.request("GET", path, headers={"Range": "bytes=0-0"})
    if (status := c.getresponse().status) != 206:
        raise proc.Failed(f"{path}: {status}")
    c.close()


def mid(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def least(runs, field):
    return min(getattr(r, field) for r in runs)


def cell(runs, field):
    return f"{median(runs, field):.2f} ({least(runs, field):.2f})"


def readme(lines):
    """Puts the run's tables into README.md, between its two marks."""
    name = os.path.join(os.path.dirname(os.path.abspath(__file__)), "README.md")
    with open(name) as f:
        text = f.read()
    body = "\n".join(("    " + line).rstrip() for line in lines)
    text, n = re.subn(r"(?s)(<!-- figures of a run -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{body}\n\n{m[2]}", text)
    if n != 1:
        raise proc.Failed("README.md has no marks for the figures")
    with open(name, "w") as f:
        f.write(text)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--quick", action="store_true")
    p.add_argument("--readme", action="store_true")
    for name in ("work", "darkmirror", "hub", "headload", "python", "results"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--nginx", help="left out where not given")
    args = p.parse_args()
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(s, lambda *_: sys.exit(130))
    need, free = (5 if args.quick else 10) * GIB, shutil.disk_usage(args.work).free
    if free < need:
        sys.exit(f"bench-models: {need / GIB:.0f} GiB are needed below BENCH_DIR, {free / GIB:.1f} are free")
    try:
        b = Bench(args)
        missed = b.all()
        name = b.rep.save(args.results, "-models-quick" if args.quick else "-models")
        if args.readme:
            readme(b.rep.lines)
    except proc.Failed as e:
        sys.exit(f"bench-models: {e}")
    print(f"\nwritten to bench/results/{os.path.basename(name)}")
    if missed:
        sys.exit(f"bench-models: {len(missed)} of {len(b.rep.bounds)} bounds missed")


if __name__ == "__main__":
    main()
