"""What the checks share: the files as they were outside, and a comparison."""
import hashlib
import json
import os
import pathlib

ROOT = pathlib.Path(os.environ["MATRIX_ROOT"])  # the repositories outside
COMMITS = json.load(open(os.environ["MATRIX_COMMITS"]))  # "team/model" -> commit


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(f.read()).hexdigest()


def want(kind, name):
    top = ROOT / f"{kind}s" / name
    return {str(p.relative_to(top)): digest(p) for p in top.rglob("*") if p.is_file()}


def have(folder):
    top = pathlib.Path(folder)
    return {str(p.relative_to(top)): digest(p) for p in top.rglob("*") if p.is_file() and ".cache" not in p.relative_to(top).parts}


def same(kind, name, folder):
    a, b = want(kind, name), have(folder)
    assert a, f"{name}: nothing to compare with"
    assert a == b, f"{name}: {sorted(set(a.items()) ^ set(b.items()))[:6]}"
    return len(a)


def ok(text):
    print("ok   ", text, flush=True)


def raises(kind, call):
    """The name of the error that call raises; it must be of that kind."""
    try:
        call()
    except Exception as e:
        names = [c.__name__ for c in type(e).__mro__]
        assert kind in names, f"{names} instead of {kind}: {e}"
        return
    raise AssertionError(f"no {kind}")
