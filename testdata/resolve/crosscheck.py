#!/usr/bin/env python3
"""Resolves sets of requirements with darkmirror and with uv, for targets that
are not this host, and says where and why they differ.

usage: crosscheck.py OURS UV PIP_PYTHON STORE [SET...]

INDEX and FILE_HOSTS are as for OURS; BEFORE is the date at which both look at
the index. A difference counts as explained only if the rule that explains it
was seen to do so in this run; see docs/pypi.md. Every answer of ours must then
be enough by itself: uv, and pip, resolve the set once more from the chosen
wheels alone, for the same target.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SETS = HERE / "sets"
# Four targets a set; the Python versions go round.
PLATFORMS = [
    ("manylinux_2_28_x86_64", "x86_64-manylinux_2_28"),
    ("manylinux_2_28_aarch64", "aarch64-manylinux_2_28"),
    ("macosx_14_0_arm64", "aarch64-apple-darwin"),
    ("win_amd64", "x86_64-pc-windows-msvc"),
]
MINORS = [10, 11, 12, 13, 14]
# Sets whose versions belong to one Python.
FIXED = {"airflow": 12}


def targets(name, number):
    for i, (tag, platform) in enumerate(PLATFORMS):
        minor = FIXED.get(name) or MINORS[(number + i) % len(MINORS)]
        yield f"cp3{minor}-{tag}", platform, f"3.{minor}.0", tag, minor


def run(args, env=None, timeout=300):
    start = time.monotonic()
    try:
        p = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})})
        code, out, err = p.returncode, p.stdout, p.stderr
    except subprocess.TimeoutExpired:
        code, out, err = -1, "", "no answer in time"
    return code, out, err, time.monotonic() - start


def pins(text):
    """name==version lines, markers off: a set of pairs, or None where there are none."""
    found = {}
    for line in text.splitlines():
        m = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", line.strip())
        if m:
            found[re.sub(r"[-_.]+", "-", m[1]).lower()] = m[2]
    return found


class Check:
    def __init__(self, ours, uv, python, store, work):
        self.ours, self.uv, self.python, self.store, self.work = ours, uv, python, store, work
        self.before = os.environ["BEFORE"]

    def by_ours(self, path, target, constraints, wheels=None):
        env = {"STORE": str(self.store)}
        if wheels:
            env["WHEELS"] = str(wheels)
        code, out, err, took = run([self.ours, path, target, *constraints], env)
        return (pins(out) if code == 0 else None), err, took

    def by_uv(self, path, platform, version, constraints, *more, index=True):
        env = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
        args = [self.uv, "pip", "compile", "-q", "--no-config", "--only-binary", ":all:", "--no-header", "--no-annotate",
                "--python-platform", platform, "--python-version", version, *more]
        if index:
            args += ["--default-index", os.environ["INDEX"], "--exclude-newer", self.before + "T00:00:00Z"]
        for c in constraints:
            args += ["-c", c]
        code, out, err, took = run(args + [path], env)
        return (pins(out) if code == 0 else None), err, took

    def as_constraints(self, answer):
        f = self.work / "answer.txt"
        f.write_text("".join(f"{n}=={v}\n" for n, v in sorted(answer.items())))
        return f

    def explain(self, path, target, platform, version, constraints, ours, theirs):
        """The rule that was seen to explain the difference, or nothing."""
        if ours is not None and theirs is not None:
            # Each takes the other's answer where it is told to: both are right.
            again, _, _ = self.by_ours(path, target, [*constraints, self.as_constraints(theirs)])
            back, _, _ = self.by_uv(path, platform, version, [*constraints, self.as_constraints(ours)])
            if again == theirs and back == ours:
                return "order"
        if ours is not None:
            for rule, flag in (("pre-releases", "--prerelease=if-necessary-or-explicit"), ("pre-releases", "--prerelease=allow")):
                got, _, _ = self.by_uv(path, platform, version, [*constraints, self.as_constraints(ours)], flag)
                if got == ours:
                    return rule
        return None

    def enough_for_uv(self, path, platform, version, constraints, wheels, want):
        got, err, _ = self.by_uv(path, platform, version, constraints, "--no-index", "--find-links", str(wheels), "--prerelease=allow", index=False)
        return None if got == want else f"uv, of the chosen wheels alone: {err.strip()[:400] or sorted(set(want.items()) ^ set((got or {}).items()))}"

    def enough_for_pip(self, path, target, tag, minor, constraints, wheels, want):
        report = self.work / "report.json"
        args = [self.python, HERE / "foreign_pip.py", target, "install", "--quiet", "--isolated", "--disable-pip-version-check", "--dry-run", "--ignore-installed", "--no-index",
                "--find-links", wheels, "--only-binary", ":all:", "--pre", "--report", report, "--target", self.work / "none", "--implementation", "cp",
                "--python-version", f"3.{minor}.0", "--abi", f"cp3{minor}", "--abi", "abi3", "--abi", "none", *platforms(tag)]
        for c in constraints:
            args += ["-c", c]
        report.unlink(missing_ok=True)
        code, _, err, _ = run(args + ["-r", path])
        if code != 0:
            return f"pip, of the chosen wheels alone: {err.strip()[-400:]}"
        got = {re.sub(r"[-_.]+", "-", i["metadata"]["name"]).lower(): i["metadata"]["version"] for i in json.loads(report.read_text())["install"]}
        return None if same(got, want) else f"pip, of the chosen wheels alone: {sorted(set(want.items()) ^ set(got.items()))}"


def same(a, b):
    """Versions as METADATA spells them may differ from the normal form."""
    from packaging.version import Version
    return a.keys() == b.keys() and all(Version(a[k]) == Version(b[k]) for k in a)


def platforms(tag):
    if m := re.match(r"manylinux_2_(\d+)_(.*)", tag):
        tags = [f"manylinux_2_{n}_{m[2]}" for n in range(int(m[1]), 4, -1)]
        tags += [f"manylinux2014_{m[2]}"] + ([f"manylinux2010_{m[2]}", f"manylinux1_{m[2]}"] if m[2] == "x86_64" else []) + [f"linux_{m[2]}"]
    elif m := re.match(r"macosx_(\d+)_0_arm64", tag):
        tags = [f"macosx_{n}_0_{a}" for n in range(int(m[1]), 10, -1) for a in ("arm64", "universal2")] + [f"macosx_10_{n}_universal2" for n in range(16, 3, -1)]
    else:
        tags = [tag]
    return [x for t in tags for x in ("--platform", t)]


def main():
    ours, uv, python, store = sys.argv[1:5]
    order = sorted(p.stem for p in SETS.glob("*.txt") if not p.stem.endswith(".constraints"))
    names = sys.argv[5:] or order
    if unknown := [n for n in names if n not in order]:
        sys.exit(f"crosscheck: no set {unknown[0]}: want one of {', '.join(order)}")
    counts, bad, took_ours, took_uv = {}, 0, 0.0, 0.0
    for name in names:
        path = SETS / f"{name}.txt"
        constraints = [c for c in [SETS / f"{name}.constraints.txt"] if c.exists()]
        for target, platform, version, tag, minor in targets(name, order.index(name)):
            with tempfile.TemporaryDirectory() as work:
                work = pathlib.Path(work)
                wheels = work / "wheels"
                wheels.mkdir()
                c = Check(ours, uv, python, store, work)
                a, err, ta = c.by_ours(path, target, constraints, wheels)
                b, uverr, tb = c.by_uv(path, platform, version, constraints)
                took_ours, took_uv = took_ours + ta, took_uv + tb
                detail = ""
                if a is None and b is None:
                    verdict = "both refuse"
                    detail = "" if "PYPI-CONFLICT" in err else "\n  ours: " + err.strip()[:600]
                    if detail:
                        verdict = "DIFFERENT"
                elif a == b:
                    verdict = "same"
                else:
                    rule = c.explain(path, target, platform, version, constraints, a, b)
                    verdict = f"explained: {rule}" if rule else "DIFFERENT"
                    only = sorted(set((a or {}).items()) ^ set((b or {}).items()))
                    detail = "\n  " + (f"ours: {err.strip()[:600]}" if a is None else f"uv: {uverr.strip()[:600]}" if b is None else f"{len(only)} lines: {only[:8]}")
                if a is not None:
                    for problem in (c.enough_for_uv(path, platform, version, constraints, wheels, a), c.enough_for_pip(path, target, tag, minor, constraints, wheels, a)):
                        if problem:
                            bad += 1
                            detail += "\n  NOT ENOUGH: " + problem
                bad += verdict == "DIFFERENT"
                counts[verdict] = counts.get(verdict, 0) + 1
                print(f"{verdict:22} {name:20} {target:30} {len(a or {}):4} packages  ours {ta:5.1f} s  uv {tb:5.1f} s{detail}", flush=True)
    print("\n" + ", ".join(f"{n} {v}" for v, n in sorted(counts.items())) + f"; ours {took_ours:.0f} s, uv {took_uv:.0f} s; {bad} to explain")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
