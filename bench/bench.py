#!/usr/bin/env python3
"""The measurements of bench/README.md, in its order. run.sh prepares for it."""

import argparse
import glob
import json
import os
import shutil
import socket
import statistics
import sys
import time
from urllib.parse import urlsplit

import proc
import report
from proc import MB, median
from sides import Aptly, Inside, Outside, Pip

MiB = 1 << 20
GiB = 1 << 30

WRITTEN = 1.05      # bytes written for a bundle from a warm store, of its payload
MEMORY = 96 * MB    # peak of export and of import
FLAT = 1.10         # peak with a file of 4 GiB, of that with 100 MiB
REFETCH = 8 * MiB   # fetched again after kill -9
DELTA = 64 << 10    # of a delta beside its new blobs, and
DELTA_META = 0.01   # this share of the metadata

KILL_SIZE = 400 * MB
KILL_RATE = 40 * MB


class Bench:
    def __init__(self, args):
        self.work, self.dm, self.quick = args.work, args.darkmirror, args.quick
        self.upstream_program = os.path.join(args.work, "upstream")
        python = os.path.join(args.work, "venv", "bin", "python")
        self.python = python if os.path.exists(python) else None
        self.aptly = bool(shutil.which("aptly") and shutil.which("gpg"))
        self.nginx = shutil.which("nginx") if os.getuid() == 0 else None
        self.rep = report.Report()
        self.reps = 1 if self.quick else 5
        self.n = 0
        # Tables that are made before it is their turn: after the peers, and
        # at the end.
        self.later, self.last = [], []

    def path(self, name):
        self.n += 1
        return os.path.join(self.work, f"{self.n:03d}-{name}")

    def upstream(self, *flags):
        return proc.Upstream(self.upstream_program, self.path("upstream"), *flags)

    def head(self):
        r = self.rep
        r.say(f"darkmirror bench, {time.strftime('%Y-%m-%d')}{', quick: one repetition, no 4 GiB' if self.quick else ''}")
        r.say("machine   " + report.machine(self.work) + f", load {os.getloadavg()[0]:.1f}")
        versions = [("darkmirror", report.first([self.dm, "version"], r"(?<=darkmirror )\S+")), ("Go", report.first(["go", "env", "GOVERSION"], r"[\d.]+")),
                    ("Python", report.first([sys.executable, "--version"])),
                    ("pip", self.python and report.first([self.python, "-m", "pip", "--version"])),
                    ("aptly", self.aptly and report.first(["aptly", "version"])),
                    ("nginx", self.nginx and report.first([self.nginx, "-v"], r"[\d.]+"))]
        r.say("versions  " + ", ".join(f"{n} {v or 'missing, left out'}" for n, v in versions))

    # ------------------------------------------------ 1, 2, 4: written, memory, speed

    def sizes(self):
        big = [("one of 100 MiB", 100 * MiB, self.reps), ("one of 1 GiB", GiB, self.reps)]
        if not self.quick:
            big.append(("one of 4 GiB", 4 * GiB, 1))
        rows = [["set", "export", "export warm", "import", "verify", "written/payload: cold", "warm", "import"]]
        peaks = {}
        speeds = [["set", "export", "export warm", "import", "verify", "CPU s/GB: export", "export warm", "import", "verify"]]
        many, few = (1000, 1) if self.quick else (3000, 3)
        for label, flags, reps in [(f"{many} of 16 KiB", f"many:{many}:16384", few), ("400 of 512 KiB", "mid:400:524288", few),
                                   *[(n, f"big:1:{s}", k) for n, s, k in big]]:
            name = flags.split(":")[0]
            with self.upstream("-wheels", flags) as up:
                out = Outside(self.dm, self.path("outside"), up, wheels=[name])
                cold, warm, imp, ver = self.rounds(out, reps, label == "one of 1 GiB")
            payload = cold[0].payload
            peaks[label] = {"export": max(u.rss for u in cold + warm), "import": max(u.rss for u in imp), "verify": max(u.rss for u in ver),
                            "median export": median(cold, "rss"), "median export warm": median(warm, "rss"), "median import": median(imp, "rss")}
            ratio = {k: median(v, "written") / payload for k, v in (("cold", cold), ("warm", warm), ("import", imp))}
            if ratio["warm"] < 0.5:
                raise proc.Failed("the kernel counts no writes on this file system; set BENCH_DIR to a folder on a disk")
            rows.append([label] + [f"{median(v, 'rss') / MB:.1f} MB" for v in (cold, warm, imp, ver)] + [f"{ratio[k]:.3f}" for k in ("cold", "warm", "import")])
            all4 = (cold, warm, imp, ver)
            speeds.append([label] + [f"{payload / median(v, 'wall') / MB:.0f}" for v in all4] + [f"{median(v, 'cpu') / payload * 1e9:.2f}" for v in all4])
            for side in ("export", "import"):
                self.rep.bound(f"peak memory, {side}, {label}", peaks[label][side], MEMORY, f"{peaks[label][side] / MB:.1f} MB of {MEMORY / MB:.0f}")
            self.rep.bound(f"written for a bundle from a warm store, {label}", ratio["warm"], WRITTEN, f"{ratio['warm']:.3f} of {WRITTEN}")
            shutil.rmtree(out.dir)
        self.rep.section("1, 2. Peak memory (median), and bytes written of the payload")
        self.rep.table(rows)
        self.later.append(("4. Throughput of whole commands, MB/s (median)", speeds))
        if not self.quick:
            small, large = peaks["one of 100 MiB"], peaks["one of 4 GiB"]
            for side in ("export", "export warm", "import"):
                v = large["median " + side] / small["median " + side]
                self.rep.bound(f"memory flat, {side}, 4 GiB of 100 MiB", v, FLAT, f"{v:.3f} of {FLAT}")

    def rounds(self, out, reps, speed):
        """Exports from nothing and from a warm store, imports and verifies, reps times each."""
        cold, warm, imp, ver, seals = [], [], [], [], []
        for i in range(reps):
            if i > 0:
                shutil.rmtree(os.path.join(out.dir, "state"))
                out.drop_bundles()
            out.next_stream()
            cold.append(self.export(out))
            ins = Inside(self.dm, self.path("inside"), out)
            warm_up(out.bundle())
            ver.append(ins.run("verify", out.bundle()))
            warm_up(out.bundle())
            imp.append(ins.run("import", out.bundle()))
            if speed and i == reps - 1:
                self.serving(ins, cold[0].payload)
            ins.remove()
            out.drop_bundles()
            out.next_stream()
            warm.append(self.export(out))
            if speed:
                out.drop_bundles()
                out.next_stream()
                out.run("fetch")
                out.run("scan")
                seals.append(out.run("seal"))
        if speed:
            self.speed(out, cold[0].payload, seals, ver, imp)
        return cold, warm, imp, ver

    def export(self, out):
        u = out.run("export")
        doc = json.loads(u.out)
        if doc["bundle"] is None or doc["missing"]:
            raise proc.Failed("export left something out:\n" + u.out)
        u.payload = doc["bundle"]["payload_bytes"]
        return u

    def speed(self, out, payload, seals, ver, imp):
        floor = [self.floor(out, payload) for _ in range(self.reps)]
        base = statistics.median(floor)
        rows = [["step", "of the floor", "MB/s", "CPU s/GB"]]
        rows.append(["floor: read, sha256, write, fsync in Python", "1.00", f"{payload / base / MB:.0f}", ""])
        for step, runs in (("seal", seals), ("import (stage, prove, publish)", imp), ("verify (reads only)", ver)):
            w = median(runs, "wall")
            rows.append([step, f"{base / w:.2f}", f"{payload / w / MB:.0f}", f"{median(runs, 'cpu') / payload * 1e9:.2f}"])
        self.later.append((f"4. Throughput on one blob of 1 GiB, warm cache, median of {self.reps}", rows))

    def floor(self, out, payload):
        """Copies the blob with a hash and an fsync, as plainly as it can be done."""
        (blob,) = [p for p in glob.glob(os.path.join(out.dir, "state/store/blobs/sha256/**"), recursive=True)
                   if os.path.isfile(p) and os.path.getsize(p) >= GiB]
        name = self.path("floor")
        code = ("import hashlib, os, sys\nh = hashlib.sha256()\nb = bytearray(1 << 20)\n"
                "with open(sys.argv[1], 'rb', buffering=0) as r, open(sys.argv[2], 'wb', buffering=0) as w:\n"
                "    while n := r.readinto(b):\n        h.update(memoryview(b)[:n]); w.write(memoryview(b)[:n])\n"
                "    os.fsync(w.fileno())\n")
        u = proc.run([sys.executable, "-c", code, blob, name], self.work)
        os.remove(name)
        return u.wall

    # ------------------------------------------------ 6: serving

    def serving(self, ins, payload):
        log = os.path.join(ins.dir, "darkmirror.log")
        servers = []
        try:
            servers.append(proc.Server([self.dm, "serve", "--listen", "127.0.0.1:0"], ins.dir, lambda: "ready" in open(log).read()))
            url = urlsplit(next(w for w in open(log).read().split() if w.startswith("http")))
            current = json.load(open(glob.glob(os.path.join(ins.dir, "state/published/pypi/main/current.json"))[0]))
            file = current["projects"][0]["files"][0]["file"]
            targets = {"darkmirror serve": (url.port, f"/pypi/main/files/{file['sha256'].removeprefix('sha256:')}/{file['filename']}")}
            if self.nginx:
                targets["nginx"] = self.start_nginx(ins, servers)
            for port, path in targets.values():
                get(port, path, file["size"])  # darkmirror hashes a file before it serves it first
            took = {name: [] for name in targets}
            for _ in range(self.reps):
                for name, (port, path) in targets.items():
                    took[name].append(get(port, path, file["size"]))
        finally:
            for s in servers:
                s.close()
        ours = statistics.median(took["darkmirror serve"])
        self.last.append((f"6. GET of one wheel of 1 GiB on loopback, one connection, median of {self.reps}",
                          [["server", "of darkmirror", "MB/s"]] +
                          [[n, f"{ours / statistics.median(t):.2f}", f"{payload / statistics.median(t) / MB:.0f}"] for n, t in took.items()]))

    def start_nginx(self, ins, servers):
        (blob,) = [p for p in glob.glob(os.path.join(ins.dir, "state/store/blobs/sha256/**"), recursive=True)
                   if os.path.isfile(p) and os.path.getsize(p) >= GiB]
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        conf = os.path.join(ins.dir, "nginx.conf")
        with open(conf, "w") as f:
            f.write(f"user root; daemon off; worker_processes auto; pid {ins.dir}/nginx.pid; error_log stderr;\nevents {{}}\n"
                    f"http {{ access_log off; sendfile on; tcp_nopush on; server {{ listen 127.0.0.1:{port}; root {os.path.dirname(blob)}; }} }}\n")
        servers.append(proc.Server([self.nginx, "-c", conf, "-p", ins.dir], ins.dir, lambda: listening(port)))
        return port, "/" + os.path.basename(blob)

    # ------------------------------------------------ 3: peers

    def peers(self):
        count, size = 400, 512 << 10
        gnupg = os.environ["GNUPGHOME"]
        if self.aptly:
            Aptly.make_key(gnupg, self.work)
        runs, asked = {}, {}

        def measure(name, f):
            up.reset()
            runs.setdefault(name, []).append(f())
            asked[name] = up.counters()

        with self.upstream("-wheels", f"wheel:{count}:{size}", "-debs", f"deb:{count}:{size}", "-other", "20000") as up:
            for _ in range(self.reps):
                dirs = []

                def fresh(kind):
                    dirs.append(self.path(kind))
                    return dirs[-1]

                out = Outside(self.dm, fresh("outside"), up, wheels=["wheel"])
                measure("darkmirror export, wheels", lambda: self.export(out))
                if self.python:
                    pip = Pip(self.python, fresh("pip"), up, "wheel")
                    measure("pip download", pip.run)
                    if len(os.listdir(os.path.join(pip.dir, "got"))) != count:
                        raise proc.Failed("pip downloaded another number of files")
                out = Outside(self.dm, fresh("outside"), up, debs=["deb"])
                measure("darkmirror export, debs", lambda: self.export(out))
                if self.aptly:
                    aptly = Aptly(fresh("aptly"), up, "deb", gnupg)
                    measure("aptly mirror create, update", aptly.mirror)
                ins = Inside(self.dm, fresh("inside"), out)
                measure("darkmirror import, debs", lambda: ins.run("import"))
                if self.aptly:
                    measure("aptly snapshot, publish", aptly.publish)
                    if len(glob.glob(os.path.join(aptly.dir, "root/public/pool/**/*.deb"), recursive=True)) != count:
                        raise proc.Failed("aptly published another number of packages")
                for d in dirs:
                    shutil.rmtree(d)
        self.rep.section(f"3. The same work: {count} files of {size >> 10} KiB from one upstream, median of {self.reps}")
        rows = [["program", "wall", "CPU", "memory", "written", "wall s", "CPU s", "peak MB", "written MB", "requests", "fetched MB"]]
        groups = [["darkmirror export, wheels", "pip download"], ["darkmirror export, debs", "aptly mirror create, update"]]
        if self.aptly:
            both = "darkmirror export and import, debs"
            runs[both] = [a + b for a, b in zip(runs["darkmirror export, debs"], runs["darkmirror import, debs"])]
            whole = "aptly mirror, snapshot, publish"
            runs[whole] = [a + b for a, b in zip(runs["aptly mirror create, update"], runs["aptly snapshot, publish"])]
            asked[both], asked[whole] = asked["darkmirror export, debs"], asked["aptly mirror create, update"]
            groups.append([both, whole])
        for group in groups:
            base = runs[group[0]]
            for name in (n for n in group if n in runs):
                v = [median(runs[name], f) for f in ("wall", "cpu", "rss", "written")]
                b = [median(base, f) for f in ("wall", "cpu", "rss", "written")]
                rows.append([name] + [f"{x / max(y, 1e-9):.2f}x" for x, y in zip(v, b)] +
                            [f"{v[0]:.2f}", f"{v[1]:.2f}", f"{v[2] / MB:.1f}", f"{v[3] / MB:.0f}",
                             asked[name]["requests"], f"{asked[name]['bytes'] / MB:.1f}"])
        self.rep.table(rows)

    # ------------------------------------------------ 3: kill -9

    def kills(self):
        rows = [["program", "fetched again", "of the half", "requests", "with Range"]]
        with self.upstream("-wheels", f"wheel:1:{KILL_SIZE}", "-debs", f"deb:1:{KILL_SIZE}") as up:
            wheel, deb = "/files/wheel-1.0-py3-none-any.whl", "/debian/pool/main/deb-00000_1.0_amd64.deb"

            def refetched(name, path, cwd, argv, env=None, again=None):
                up.rate(KILL_RATE)
                up.reset()
                proc.kill_at(argv, cwd, lambda: up.bytes_of(path) >= KILL_SIZE // 2, env)
                up.rate(0)
                proc.run(again or argv, cwd, env)
                c = up.counters()["paths"][path]
                extra = c["bytes"] - up.size[path]
                rows.append([name, f"{extra / MiB:.2f} MiB", f"{extra / (KILL_SIZE / 2):.3f}", c["requests"], c["ranges"]])
                return extra, c["ranges"]

            up.size = {p: length(up, p) for p in (wheel, deb)}
            for name, path, what in (("darkmirror export, a wheel", wheel, {"wheels": ["wheel"]}), ("darkmirror export, a deb", deb, {"debs": ["deb"]})):
                out = Outside(self.dm, self.path("outside"), up, **what)
                extra, ranges = refetched(name, path, out.dir, out.command("export"))
                self.rep.bound(f"fetched again after kill -9, {name.split()[-1]}", extra if ranges else KILL_SIZE, REFETCH, f"{extra / MiB:.2f} MiB of 8, {ranges} with Range")
                shutil.rmtree(out.dir)
            if self.python:
                pip = Pip(self.python, self.path("pip"), up, "wheel")
                refetched("pip download", wheel, pip.dir, pip.argv, pip.env)
                shutil.rmtree(pip.dir)
            if self.aptly:
                aptly = Aptly(self.path("aptly"), up, "deb", os.environ["GNUPGHOME"])
                aptly.create()
                refetched("aptly mirror update", deb, aptly.dir, aptly.update(), aptly.env, aptly.update("-force"))
                shutil.rmtree(aptly.dir)
        self.rep.section(f"3. Fetched again after kill -9 at half of a file of {KILL_SIZE // MB} MB, at {KILL_RATE // MB} MB/s")
        self.rep.table(rows)

    # ------------------------------------------------ 5: delta

    def delta(self):
        with self.upstream("-wheels", "small:1001:16384") as up:
            out = Outside(self.dm, self.path("outside"), up, wheels=["small"])
            lock = os.path.join(up.out, "requirements-small.txt")
            pins = open(lock).readlines()
            # Not the last one: a new package is anywhere in the order.
            new = pins.pop(500)
            open(lock, "w").writelines(pins)
            self.export(out)
            out.drop_bundles()
            open(lock, "w").writelines([*pins, new])
            doc = json.loads(out.run("export").out)["bundle"]
            digest = new.split("sha256:")[1].strip()
            manifest, envelope = payload(os.path.join(doc["dir"], "bundle.dsse.json"))
            blob = next(b for b in manifest["blobs"] if b["digest"].endswith(digest))
            meta = [b for b in manifest["blobs"] if b is not blob]
        total = proc.tree_bytes(doc["dir"])
        over = total - blob["stored_size"]
        whole, stored = sum(b["size"] for b in meta), sum(b["stored_size"] for b in meta)
        limit = DELTA + DELTA_META * whole
        self.rep.section("5. A delta after one new package in 1,000 wheels of 16 KiB")
        self.rep.table([["", "bytes"],
                        ["all files of the bundle", f"{total:,}"],
                        ["the new package", f"{blob['stored_size']:,}"],
                        ["beside it", f"{over:,}"],
                        ["  metadata in the volumes, as stored", f"{stored:,}"],
                        ["  envelope", f"{envelope:,}"],
                        ["    of it what the bundle requires, as JSON", f"{len(json.dumps(manifest['requires'], separators=(',', ':'))):,}"],
                        ["  tar headers, padding, volumes.json", f"{over - stored - envelope:,}"],
                        ["metadata, as it is", f"{whole:,}"]])
        self.rep.bound("delta beside the new package", over, limit, f"{over:,} of {limit:,.0f} bytes")

    def show(self, tables):
        for title, rows in tables:
            self.rep.section(title)
            self.rep.table(rows)

    def all(self):
        start = time.monotonic()
        self.head()
        for step in (self.sizes, self.peers, self.kills, lambda: self.show(self.later), self.delta, lambda: self.show(self.last)):
            step()
        self.rep.verdict()
        self.rep.say(f"took {time.monotonic() - start:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
        return self.rep.missed()


def payload(envelope):
    """A bundle's manifest, and the length of the envelope."""
    import base64
    text = open(envelope, "rb").read()
    return json.loads(base64.b64decode(json.loads(text)["payload"])), len(text)


def warm_up(top):
    """Reads all files below top, which sealing has told the kernel to forget."""
    for folder, _, files in os.walk(top):
        for name in files:
            with open(os.path.join(folder, name), "rb", buffering=0) as f:
                while f.read(MiB):
                    pass


def listening(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def length(up, path):
    """A file's length, as HEAD tells it."""
    with socket.create_connection(("127.0.0.1", urlsplit(up.url).port)) as s:
        s.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        head = s.makefile("rb").read().decode().lower()
    return int(head.split("content-length:")[1].split()[0])


def get(port, path, size):
    """Seconds of a GET whose body is thrown away."""
    buf = bytearray(1 << 20)
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        got, head = 0, b""
        while n := s.recv_into(buf):
            if got == 0:
                head = bytes(buf[:min(n, 4096)])
            got += n
    if not head.split(b"\r\n")[0].endswith(b"200 OK") or got < size:
        raise proc.Failed(f"GET {path}: {head[:60]!r}, {got} bytes")
    return time.monotonic() - start


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--quick", action="store_true")
    for name in ("work", "darkmirror", "results"):
        p.add_argument("--" + name, required=True)
    args = p.parse_args()
    need = (4 if args.quick else 16) * GiB
    free = shutil.disk_usage(args.work).free
    if free < need:
        sys.exit(f"bench: {need / GiB:.0f} GiB are needed below BENCH_DIR, {free / GiB:.1f} are free")
    b = Bench(args)
    try:
        missed = b.all()
    except proc.Failed as e:
        sys.exit(f"bench: {e}")
    name = b.rep.save(args.results, "-quick" if args.quick else "")
    print(f"\nwritten to bench/results/{os.path.basename(name)}")
    if missed:
        sys.exit(f"bench: {len(missed)} of {len(b.rep.bounds)} bounds missed")


if __name__ == "__main__":
    main()
