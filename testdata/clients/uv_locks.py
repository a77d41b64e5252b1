#!/usr/bin/env python3
"""Locks the projects of pypi/testdata/uv with a real uv, and writes beside
each lock what that uv would install for a number of targets.

usage: uv_locks.py UV IN OUT

IN and OUT are folders of txtar files; hosts are replaced on the way, so that
OUT can be committed. It uses the interpreters that this host has.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PLATFORMS = {
    "manylinux_2_28_x86_64": "x86_64-manylinux_2_28",
    "manylinux_2_28_aarch64": "aarch64-manylinux_2_28",
    "macosx_13_0_arm64": "macos",
    "win_amd64": "windows",
}
MINORS = (9, 10, 11, 12, 13)


def read(path):
    """The comment and the files of a txtar."""
    parts = re.split(r"^-- (.+) --\n", path.read_text(), flags=re.M)
    return parts[0], dict(zip(parts[1::2], parts[2::2]))


def run(*args, cwd, check=True):
    p = subprocess.run([str(a) for a in args], cwd=cwd, capture_output=True, text=True)
    if check and p.returncode != 0:
        sys.exit(f"uv_locks: {' '.join(map(str, args))}: {p.stderr}")
    return p


def interpreters():
    """The interpreters on the path, and those that pyenv keeps beside it."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    out = {}
    for minor in MINORS:
        found = [shutil.which(f"python3.{minor}"), *map(str, pyenv.glob(f"3.{minor}.*/bin/python"))]
        for python in filter(None, found):
            p = run(python, "-c", "import platform; print(platform.python_version())", cwd=".", check=False)
            if p.returncode == 0 and p.stdout.startswith(f"3.{minor}."):
                out[minor] = (python, p.stdout.strip())
                break
    return out


def plan(uv, dir, script, python, platform, flags):
    """What uv would install, or None if it refuses the target."""
    what = ["--script", script] if script else ["--no-install-workspace", "--no-default-groups", *flags]
    p = run(uv, "sync", "--frozen", "--dry-run", "--python", python, "--python-platform", platform, *what, cwd=dir, check=False)
    if p.returncode != 0:
        return None, p.stderr
    return set(re.findall(r"^ \+ (\S+==\S+)$", p.stderr, flags=re.M)), ""


def anonymous(text):
    def host(m):
        return m[1] + ("files" if "/packages/" in m[3] else "index") + ".example" + m[3]

    return re.sub(r'(https?://)([^/"]+)(/[^"]*)', host, text)


def main():
    uv, source, dest = pathlib.Path(sys.argv[1]).absolute(), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    dest.mkdir(parents=True, exist_ok=True)
    total = 0
    pythons = interpreters()
    for path in sorted(source.glob("*.txtar")):
        comment, files = read(path)
        files = {n: t for n, t in files.items() if not n.endswith(".lock") and not n.startswith("want ")}
        dir = pathlib.Path(tempfile.mkdtemp(prefix="uv-locks."))
        for name, text in files.items():
            (dir / name).parent.mkdir(parents=True, exist_ok=True)
            (dir / name).write_text(text)
        script = next((n for n in files if n == "tool.py"), None)
        run(uv, "lock", *(["--script", script] if script else []), cwd=dir)
        lock = (f"{script}.lock" if script else "uv.lock")
        out = dict(files)
        out[lock] = anonymous((dir / lock).read_text())
        for line in files["runs"].splitlines():
            case, runs = line.split(":", 1)
            for minor, (python, full) in pythons.items():
                for tag, platform in PLATFORMS.items():
                    union, refused = set(), 0
                    for flags in runs.split("|"):
                        got, why = plan(uv, dir, script, python, platform, flags.split())
                        if got is None and "--all-extras" in flags and "incompatible" in why:
                            continue
                        if got is None:
                            refused += 1
                            continue
                        union |= got
                    text = "".join(f"{p}\n" for p in sorted(union))
                    if refused:
                        text = "refused\n"
                    out[f"want cp3{minor}-{tag}@{full} {case}"] = text
                    total += 1
        shutil.rmtree(dir)
        body = comment + "".join(f"-- {n} --\n{t if t.endswith(chr(10)) or not t else t + chr(10)}" for n, t in out.items())
        (dest / path.name).write_text(body)
        print(f"uv_locks: {path.name}: {len(pythons)} interpreters")
    print(f"uv_locks: {total} answers of {run(uv, '--version', cwd='.').stdout.strip()}")


main()
