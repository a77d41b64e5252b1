"""Makes small valid wheels, the same in every run: python3 wheels.py FOLDER [PART]

1,000 wheels as a mirror of an ordinary set of packages has them, 560 projects:
400 of one pure wheel, 100 of one version for three platforms, 50 of four pure
versions, 10 of five versions for two platforms. PART makes one of so many, of
each kind. A module of random bytes makes sizes of 1 to 30 KiB.
"""

import base64
import hashlib
import os
import random
import sys
import zipfile

PLATFORMS = ("cp312-cp312-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_28_aarch64", "cp312-cp312-win_amd64")
KINDS = ((400, 1, ("py3-none-any",)), (100, 1, PLATFORMS), (50, 4, ("py3-none-any",)), (10, 5, PLATFORMS[:2]))


def wheel(folder, name, version, tag, rnd):
    info = f"{name}-{version}.dist-info"
    pure = "true" if tag.endswith("any") else "false"
    files = {
        f"{name}/__init__.py": b"__version__ = %r\n" % version,
        f"{name}/data.bin": rnd.randbytes(rnd.randrange(1 << 10, 30 << 10)),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: a small package\nLicense: MIT\n"
            "Classifier: Programming Language :: Python :: 3\nRequires-Python: >=3.9\nRequires-Dist: typing-extensions>=4\n\n"
            + "A description of some lines.\n" * 40).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode(),
    }
    record = "".join("%s,sha256=%s,%d\n" % (
        n, base64.urlsafe_b64encode(hashlib.sha256(b).digest()).rstrip(b"=").decode(), len(b)) for n, b in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(os.path.join(folder, f"{name}-{version}-{tag}.whl"), "w") as z:
        for n, b in files.items():
            entry = zipfile.ZipInfo(n, (2020, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            z.writestr(entry, b)


def make(folder, part=1):
    """Makes them and returns the projects."""
    os.makedirs(folder)
    rnd = random.Random(1)
    projects = []
    for kind, (count, versions, tags) in enumerate(KINDS):
        for i in range(max(1, count // part)):
            name = f"bench_{'abcd'[kind]}{i:03d}"
            projects.append(name.replace("_", "-"))
            for v in range(versions):
                for tag in tags:
                    wheel(folder, name, f"1.{v}.0", tag, rnd)
    return projects


if __name__ == "__main__":
    print(len(make(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)), "projects")
