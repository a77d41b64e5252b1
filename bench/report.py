"""Rows of figures, bounds, and the text that they make."""

import datetime
import os
import platform
import re
import subprocess


class Report:
    """Gathers lines and bounds."""

    def __init__(self):
        self.lines = []
        self.bounds = []

    def say(self, text=""):
        print(text, flush=True)
        self.lines.append(text)

    def section(self, title):
        self.say()
        self.say(title)

    def table(self, rows):
        rows = [[str(c) for c in r] for r in rows]
        widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
        for r in rows:
            first = r[0].ljust(widths[0])
            self.say("  " + "  ".join([first] + [c.rjust(w) for c, w in zip(r[1:], widths[1:])]).rstrip())

    def bound(self, what, value, limit, shown=None):
        """value must not be above limit."""
        self.bounds.append((what, shown or f"{value:.3f}", value <= limit))

    def missed(self):
        return [b for b in self.bounds if not b[2]]

    def verdict(self):
        self.section("Bounds")
        self.table([[what, shown, "held" if ok else "MISSED"] for what, shown, ok in self.bounds])

    def save(self, folder, suffix):
        name = os.path.join(folder, datetime.date.today().isoformat() + suffix + ".txt")
        with open(name, "w") as f:
            f.write("\n".join(self.lines) + "\n")
        return name


def first(argv, pattern=r"\d[\w.+~-]*"):
    """The version that a program tells, or None."""
    try:
        r = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    except OSError:
        return None
    m = re.search(pattern, r.stdout + r.stderr)
    return m.group(0) if m else "?"


def machine(folder):
    """The class of this machine; not its name."""
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    mem = int(re.search(r"MemTotal:\s*(\d+)", open("/proc/meminfo").read()).group(1))
    folder = os.path.join(os.path.realpath(folder), "")
    mounts = [line.split()[1:3] for line in open("/proc/mounts")]
    _, kind = max((len(at), kind) for at, kind in mounts if folder.startswith(os.path.join(at, "")))
    return f"{os.cpu_count()} cores {platform.machine()} ({cpu.group(1) if cpu else 'unknown'}), {mem / 2**20:.0f} GiB, {kind}, Linux {platform.release().split('-')[0]}"
