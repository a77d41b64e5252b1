"""Runs programs and measures them, on Linux, with the standard library.

CPU time and peak memory are the kernel's own figures (wait4). Bytes written
are /proc/PID/io, read when the program has ended and has not been reaped yet,
so that nothing is sampled and nothing is missed: write_bytes is what the
program sent towards a disk (pages that it dirtied; a page that is dirtied
again after it was written counts again), wchar is what it gave to write(2).
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

MB = 1_000_000
LAUNCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")


class Failed(Exception):
    """A program ended otherwise than it should."""


class Usage:
    """What one program, or several one after the other, used."""

    def __init__(self, wall=0.0, cpu=0.0, rss=0, written=0, wchar=0):
        self.wall, self.cpu, self.rss = wall, cpu, rss
        self.written, self.wchar = written, wchar
        self.out = ""

    def __add__(self, other):
        return Usage(self.wall + other.wall, self.cpu + other.cpu, max(self.rss, other.rss),
                     self.written + other.written, self.wchar + other.wchar)


def median(runs, field):
    return statistics.median(getattr(r, field) for r in runs)


def run(argv, cwd, env=None, log=None):
    """Runs a program to its end and returns its Usage; a failure is an error."""
    log = log or os.path.join(cwd, "run.log")
    r, w = os.pipe()
    with open(log, "wb") as out:
        p = subprocess.Popen([sys.executable, "-I", "-S", LAUNCH, str(w), *argv], cwd=cwd, env=env,
                             stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, pass_fds=[w])
        os.close(w)
        with open(r) as f:
            used = f.read()
        p.wait()
    if p.returncode != 0 or not used:
        raise Failed(f"{' '.join(argv)} could not be run\n{tail(log)}")
    used = json.loads(used)
    if code := used.pop("code"):
        raise Failed(f"{' '.join(argv)}: exit {code}\n{tail(log)}")
    u = Usage(**used)
    with open(log, errors="replace") as f:
        u.out = f.read()
    return u


def tail(name):
    with open(name, errors="replace") as f:
        return f.read()[-2000:]


class Server:
    """A program that runs until close."""

    def __init__(self, argv, cwd, ready, env=None, wait=120):
        self.log = open(os.path.join(cwd, os.path.basename(argv[0]) + ".log"), "wb")
        self.p = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + wait
        while not ready():
            if self.p.poll() is not None or time.monotonic() > end:
                self.close()
                raise Failed(f"{' '.join(argv)} did not start\n{tail(self.log.name)}")
            time.sleep(0.02)

    def close(self):
        if self.p.poll() is None:
            self.p.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.p.wait(10)
            self.p.kill()
        self.p.wait()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Upstream(Server):
    """bench/upstream with its counters."""

    def __init__(self, program, out, *flags):
        os.makedirs(out)
        url = os.path.join(out, "url")
        super().__init__([program, "-out", out, *flags], out, lambda: os.path.exists(url))
        self.out = out
        self.url = open(url).read()
        self.host = self.url.removeprefix("http://")

    def call(self, command, post=False):
        with urllib.request.urlopen(self.url + "/-/" + command, data=b"" if post else None) as r:
            return r.read()

    def reset(self):
        self.call("reset", post=True)

    def rate(self, n):
        self.call(f"rate?bytes={n}", post=True)

    def counters(self):
        return json.loads(self.call("counters"))

    def bytes_of(self, path):
        return self.counters()["paths"].get(path, {"bytes": 0})["bytes"]


def kill_at(argv, cwd, reached, env=None, wait=120):
    """Starts a program and kills it with SIGKILL as soon as reached() is true."""
    with open(os.path.join(cwd, "killed.log"), "wb") as out:
        p = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + wait
        while not reached():
            if p.poll() is not None or time.monotonic() > end:
                p.kill()
                p.wait()
                raise Failed(f"{' '.join(argv)} ended before it was to be killed\n{tail(out.name)}")
            time.sleep(0.02)
        p.send_signal(signal.SIGKILL)
        p.wait()


def tree_bytes(top):
    """The sizes of all files below top."""
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(top) for f in files)
