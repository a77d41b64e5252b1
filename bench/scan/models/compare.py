"""Runs scanners of model files over a labelled corpus and prints a table.

Each scanner is run once a file, as a gate would run it, and its exit status
counts. "held" is what the gate would stop: a finding, or an error. "skipped"
is what the scanner says it does not judge (modelscan: status 3).
"""

import argparse
import collections
import csv
import os
import subprocess
import sys
import time

HELD = ("malicious", "malformed", "dos", "unscannable", "untrusted-type")
PASS = ("benign",)


def run(command, cwd):
    env = dict(os.environ, HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    try:
        done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return None, b""
    return done.returncode, done.stdout


def by_status(held, skipped=()):
    def judge(status, _):
        if status is None:
            return "error"
        if status in held:
            return "held"
        if status in skipped:
            return "skipped"
        return "passes" if status == 0 else "error"

    return judge


def ours(status, output):
    if status != 0:
        return "error"
    return "held" if b"\theld\t" in output else "passes"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--corpus", required=True)
    p.add_argument("--bin", required=True, help="folder of the peers' programs")
    p.add_argument("--darkmirror", required=True)
    p.add_argument("--work", required=True)
    p.add_argument("--verbose", action="store_true", help="name each file that a scanner gets wrong")
    a = p.parse_args()
    tool = lambda name: os.path.join(a.bin, name)
    scanners = {
        "darkmirror": (lambda f: [a.darkmirror, f], ours),
        "picklescan": (lambda f: [tool("picklescan"), "-p", f], by_status((1,))),
        "picklescan --strict": (lambda f: [tool("picklescan"), "--strict", "-p", f], by_status((1,))),
        "modelscan": (lambda f: [tool("modelscan"), "-p", f], by_status((1,), (3,))),
        "fickling": (lambda f: [tool("fickling"), "--check-safety", "--json-output", os.path.join(a.work, "fickling.json"), f], by_status((1,))),
    }
    with open(os.path.join(a.corpus, "LABELS.tsv"), newline="", encoding="utf-8") as f:
        rows = [(r["path"], r["label"]) for r in csv.DictReader(f, delimiter="\t")]
    if not rows:
        sys.exit("the corpus has no labels")
    labels = sorted({label for _, label in rows}, key=lambda l: (l not in HELD, l not in PASS, l))
    counts, seconds, wrong = collections.Counter(), {}, []
    for name, (command, judge) in scanners.items():
        start = time.monotonic()
        for path, label in rows:
            verdict = judge(*run(command(os.path.join(a.corpus, path)), a.work))
            counts[name, label, verdict] += 1
            stopped = verdict in ("held", "error")
            if label in HELD and not stopped or label in PASS and stopped:
                wrong.append((name, label, verdict, path))
        seconds[name] = time.monotonic() - start
    table(scanners, labels, counts, seconds)
    if a.verbose:
        for row in wrong:
            print(*row, sep="\t")


def table(scanners, labels, counts, seconds):
    """Each cell: held + errors / passes + skipped."""
    print("%-16s" % "label" + "".join("%22s" % s for s in scanners))
    for label in labels:
        line = "%-16s" % label
        for s in scanners:
            c = {v: counts[s, label, v] for v in ("held", "error", "passes", "skipped")}
            held = str(c["held"]) + ("+%de" % c["error"] if c["error"] else "")
            passes = str(c["passes"]) + ("+%ds" % c["skipped"] if c["skipped"] else "")
            line += "%22s" % (held + " / " + passes)
        print(line)
    print("%-16s" % "seconds" + "".join("%22.1f" % seconds[s] for s in scanners))
    print("held / passes; e: the scanner failed, which a gate stops too; s: it says that it skips the file.")


if __name__ == "__main__":
    main()
