#!/usr/bin/env python3
"""The measurements of bench/oci/README.md. run.sh prepares for it."""

import argparse
import glob
import os
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import proc
import report
from clients import PEERS, Ocicopy
from gap import Inside, Outside
from image import LAYERS, Layout
from proc import MB, median
from registries import Embedded, Registry

# The bounds, of the least CPU and wall time and of the median peak. That of the
# CPU is set beside programs that keep a copy and hash it once, as ocicopy does.
KEPT = {"crane": 1.0, "oras": 1.05}  # of their pull and push by way of a folder
MEMORY = 40 * MB    # of a copy
NOOP = 0.015        # s, where all is there already
IMPORT = 400        # MB/s, from a bundle into the embedded registry

V3, DEBIAN, OURS = "distribution v3", "docker-registry", "darkmirror serve"
SIDES = "darkmirror export, import"


class Bench:
    def __init__(self, args):
        self.args, self.work, self.reps = args, args.work, 2 if args.quick else 5
        self.rep = report.Report()
        self.n = 0
        self.programs = {name: p for name in PEERS if (p := find(args.peers, name))}
        self.registries = {}
        for name, program in ((V3, "registry"), (DEBIAN, "docker-registry")):
            if p := find(args.peers, program):
                self.registries[name] = lambda p=p: Registry(p, self.path("registry"))
        if not self.registries:
            raise proc.Failed("neither distribution's registry nor Debian's docker-registry could be had")
        if "crane" not in self.programs:
            raise proc.Failed("crane could not be had, which fills the first registry")
        self.layout = None
        self.copied = None  # least CPU of ocicopy, between the first registry's
        self.halves = {}  # name of the road: runs of pull and of push, into the first registry

    def path(self, name):
        self.n += 1
        return os.path.join(self.work, f"{self.n:03d}-{name}")

    def head(self):
        r = self.rep
        r.say(f"darkmirror bench-oci, {time.strftime('%Y-%m-%d')}{', quick' if self.args.quick else ''}: medians of {self.reps}, least in brackets")
        r.say(f"machine   {report.machine(self.work)}, load {os.getloadavg()[0]:.1f}")
        versions = [("Go", report.first(["go", "env", "GOVERSION"], r"[\d.]+"))]
        for name in ("crane", "regctl", "skopeo", "oras", "registry", "docker-registry"):
            p = find(self.args.peers, name)
            versions.append(({"registry": V3}.get(name, name), p and report.first([p, *VERSION.get(name, ["version"])], r"\bv?\d+\.\d+[\w.]*")))
        if self.args.darkmirror:
            versions.append(("darkmirror", report.first([self.args.darkmirror, "version"], r"(?<=darkmirror )\S+")))
        r.say("versions  " + ", ".join(f"{n} {v or 'missing, left out'}" for n, v in versions))
        self.layout = Layout(self.path("layout"), self.args.layers)
        sizes = self.args.layers
        each = f"{len(sizes)} layers of {sizes[0]:g} MB" if len(set(sizes)) == 1 else f"layers of {', '.join(f'{s:g}' for s in sizes)} MB"
        r.say(f"image     {self.layout.bytes / MB:.0f} MB, {each}")

    def row(self, name, runs, again, registry=None):
        """One line of a table; runs may be empty, which is told."""
        if not runs:
            return [name] + ["-"] * 8
        return [name, cell(runs, "wall"), f"{self.layout.bytes / median(runs, 'wall') / MB:.0f}", cell(runs, "cpu"), f"{median(runs, 'rss') / MB:.0f}",
                cell(again, "wall", 1000, 0) if again else "-", cell(again, "cpu", 1000, 0) if again else "-",
                *((f"{median(registry, 'cpu'):.2f}", f"{median(registry, 'rss') / MB:.0f}") if registry else ("-", "-"))]

    def table(self, title, what, rows):
        self.rep.section(title)
        self.rep.table([[what, "wall s", "MB/s", "CPU s", "MB", "again ms", "its CPU ms", "registry CPU s", "MB"], *rows])

    # ------------------------------------------------ registry to registry

    def copies(self):
        clients = {name: PEERS[name](p, self.path(name)) for name, p in self.programs.items()}
        if self.args.ocicopy:
            clients["darkmirror (ocicopy)"] = Ocicopy(self.args.ocicopy, self.path("ocicopy"))
        for kind, start in self.registries.items():
            runs, again, used = ({name: [] for name in clients} for _ in range(3))
            with start() as src:
                self.fill(src)
                for name, client, dst in self.turns(clients, start):
                    if isinstance(client, Ocicopy):
                        client.fresh()
                    argv = client.copy(src, dst)
                    self.measure(client, argv, dst, runs[name], again[name], used[name])
            if not self.args.ocicopy:
                runs["darkmirror (ocicopy)"] = again["darkmirror (ocicopy)"] = []
            self.table(f"Copy, {kind} to {kind}", "program", [self.row(n, runs[n], again[n], used.get(n)) for n in runs])
            if ours := runs["darkmirror (ocicopy)"]:
                self.copy_bounds(kind, ours, again["darkmirror (ocicopy)"])
                if start is next(iter(self.registries.values())):
                    self.copied = least(ours, "cpu")

    def turns(self, clients, start):
        """Every client with a registry that has nothing, in another order each round."""
        order = list(clients)
        for _ in range(self.reps):
            for name in order:
                with start() as dst:
                    yield name, clients[name], dst
            order.append(order.pop(0))

    def measure(self, client, argv, dst, runs, again, used):
        """The first copy, and what it costs to find that all is there."""
        before = dst.used()
        runs.append(client.run(argv))
        after = dst.used()
        used.append(proc.Usage(cpu=after[0] - before[0], rss=after[1]))
        dst.check(self.layout)
        again.extend(client.run(argv) for _ in range(3))

    def fill(self, registry):
        crane = PEERS["crane"](self.programs["crane"], self.path("crane"))
        crane.run(crane.push(self.layout, registry))
        registry.check(self.layout)

    def copy_bounds(self, kind, runs, again):
        rss = median(runs, "rss")
        self.rep.bound(f"memory of a copy, {kind}", rss, MEMORY, f"{rss / MB:.1f} MB of {MEMORY / MB:.0f}")
        if kind == V3:  # an old registry takes longer than that to answer
            noop = least(again, "wall")
            self.rep.bound(f"copy of what is there, {kind}", noop, NOOP, f"{noop * 1000:.1f} ms of {NOOP * 1000:.0f}")

    # ------------------------------------------------ a folder to a registry

    def pushes(self):
        clients = {name: PEERS[name](p, self.path(name)) for name, p in self.programs.items()}
        targets = dict(self.registries)
        if self.args.darkmirror:
            targets[OURS] = lambda: Embedded(self.args.darkmirror, self.path("embedded"))
            with next(iter(self.registries.values()))() as src:
                self.fill(src)
                outside = Outside(self.args.darkmirror, self.path("outside"), src)
                outside.run("export")
        for kind, start in targets.items():
            runs, again, used = ({name: [] for name in clients} for _ in range(3))
            for name, client, dst in self.turns(clients, start):
                client.login(dst.host)
                self.measure(client, client.push(self.layout, dst), dst, runs[name], again[name], used[name])
            rows = [self.row(f"{n}, layout", runs[n], again[n], used[n]) for n in clients]
            imports = self.imports(outside, kind, start) if self.args.darkmirror else ([], [], None)
            if start is next(iter(self.registries.values())):
                for name, pushed in [*runs.items(), (SIDES, imports[0])]:
                    self.halves[name].append(pushed)
            self.table(f"Push into {kind}, from a layout or a bundle", "program", [*rows, self.row("darkmirror import, bundle", *imports)])
        if not self.args.darkmirror:
            self.table(f"Push into {OURS}, from a layout or a bundle", "program",
                       [self.row(n, [], []) for n in [*(f"{n}, layout" for n in clients), "darkmirror import, bundle"]])

    def imports(self, outside, kind, start):
        """Imports one bundle into fresh insides; the embedded registry is an inside's own."""
        runs, again, used = [], [], []
        for _ in range(self.reps):
            if kind == OURS:
                inside = Inside(self.args.darkmirror, self.path("inside"), outside)
                runs.append(inside.run("import"))
                inside.check(self.layout)
                again.extend(inside.run("import") for _ in range(3))
                inside.remove()
                continue
            with start() as dst:
                inside = Inside(self.args.darkmirror, self.path("inside"), outside, dst)
                before = dst.used()
                runs.append(inside.run("import"))
                after = dst.used()
                used.append(proc.Usage(cpu=after[0] - before[0], rss=after[1]))
                (repo,) = dst.repositories()
                dst.check(self.layout, repo)
                again.extend(inside.run("import") for _ in range(3))
                inside.remove()
        if kind == OURS:
            speed = self.layout.bytes / least(runs, "wall") / MB
            self.rep.bound("import into the embedded registry", 1000 / speed, 1000 / IMPORT, f"{speed:.0f} MB/s of {IMPORT} at least")
        return runs, again, used

    # ------------------------------------------------ a registry to a folder

    def pulls(self):
        clients = {name: PEERS[name](p, self.path(name)) for name, p in self.programs.items()}
        runs, again = ({name: [] for name in [*clients, "darkmirror export"]} for _ in range(2))
        kind, start = next(iter(self.registries.items()))
        with start() as src:
            self.fill(src)
            for i in range(self.reps):
                for name, client in list(clients.items())[i % len(clients):] + list(clients.items())[:i % len(clients)]:
                    to = self.path("pulled")
                    argv = client.pull(src, to)
                    runs[name].append(client.run(argv))
                    pulled(self.layout, to)
                    again[name].extend(client.run(argv) for _ in range(3))
                    shutil.rmtree(to)
                if self.args.darkmirror:
                    outside = Outside(self.args.darkmirror, self.path("outside"), src)
                    runs["darkmirror export"].append(outside.run("export"))
                    again["darkmirror export"].extend(outside.run("export") for _ in range(3))
                    outside.remove()
        self.table(f"Pull from {kind}, into a layout, or by export into store and bundle", "program", [self.row(n, runs[n], again[n]) for n in runs])
        self.halves = {name: [runs[name]] for name in clients} | {SIDES: [runs["darkmirror export"]]}

    def roads(self):
        """Both halves together: what carrying an image in a folder costs."""
        rows = [["program", "wall s", "MB/s", "CPU s", "MB"]]
        for name, (pull, push) in self.halves.items():
            rows.append(self.row(name, [a + b for a, b in zip(pull, push)], [])[:5])
        self.rep.section(f"By way of a folder, {next(iter(self.registries))} to {next(iter(self.registries))}: pull and push, or export and import")
        self.rep.table(rows)
        for name, share in KEPT.items():
            if self.copied and name in self.halves:
                limit = share * sum(least(half, "cpu") for half in self.halves[name])
                self.rep.bound(f"CPU of a copy by ocicopy, beside {name}'s by way of a folder", self.copied, limit, f"{self.copied:.2f} s of {limit:.2f}")

    def all(self):
        start = time.monotonic()
        self.head()
        for step in (self.copies, self.pulls, self.pushes, self.roads):
            step()
        if self.rep.bounds:
            self.rep.verdict()
        self.rep.say()
        self.rep.say(f"took {time.monotonic() - start:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
        return self.rep.missed()


VERSION = {"skopeo": ["--version"], "registry": ["--version"], "docker-registry": ["--version"]}


def find(folder, name):
    """A peer in the bench's own folder (NAME-vVERSION), or in the PATH."""
    own = sorted(glob.glob(os.path.join(folder, name + "-v*")))
    return own[-1] if own else shutil.which(name)


def least(runs, field):
    return min(getattr(r, field) for r in runs)


def cell(runs, field, unit=1, digits=2):
    return f"{median(runs, field) * unit:.{digits}f} ({least(runs, field) * unit:.{digits}f})"


def pulled(layout, to):
    """Fails unless every blob is in the layout to."""
    for b in layout.blobs:
        name = os.path.join(to, "blobs", *b["digest"].split(":"))
        if not os.path.isfile(name) or os.path.getsize(name) != b["size"]:
            raise proc.Failed(f"{name} is not there, or not whole")


def children(pid):
    for name in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(name) as f:
                yield from map(int, f.read().split())
        except OSError:
            pass


def kill_children(pid):
    """Ends, by id, what this process started and what that started."""
    for child in list(children(pid)):
        kill_children(child)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


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
    p.add_argument("--layers", type=lambda s: [float(n) for n in s.split(",")], default=LAYERS)
    for name in ("work", "peers", "results"):
        p.add_argument("--" + name, required=True)
    for name in ("darkmirror", "ocicopy"):
        p.add_argument("--" + name, help="left out where not given")
    args = p.parse_args()
    need, free = 9 * sum(args.layers) * MB, shutil.disk_usage(args.work).free
    if free < need:
        sys.exit(f"bench-oci: {need / 1e9:.0f} GB are needed below BENCH_DIR, {free / 1e9:.1f} are free")
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(s, lambda *_: sys.exit(130))
    try:
        b = Bench(args)
        missed = b.all()
        name = b.rep.save(args.results, "-oci-quick" if args.quick else "-oci")
        if args.readme:
            readme(b.rep.lines)
    except proc.Failed as e:
        sys.exit(f"bench-oci: {e}")
    finally:
        kill_children(os.getpid())
    print(f"\nwritten to bench/results/{os.path.basename(name)}")
    if missed:
        sys.exit(f"bench-oci: {len(missed)} of {len(b.rep.bounds)} bounds missed")


if __name__ == "__main__":
    main()
