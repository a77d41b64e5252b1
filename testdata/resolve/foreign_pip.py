"""Runs pip with the marker environment of another target: pip's own --platform
changes tags and leaves markers to the running interpreter.

usage: foreign_pip.py TARGET PIP-ARGS...
"""
import re
import sys

target, sys.argv = sys.argv[1], ["pip", *sys.argv[2:]]
minor, tag = re.match(r"cp3(\d+)-(.*)", target).groups()
if m := re.match(r"manylinux_\d+_\d+_(.*)", tag):
    os_name, platform, system, machine = "posix", "linux", "Linux", m[1]
elif tag.startswith("macosx"):
    os_name, platform, system, machine = "posix", "darwin", "Darwin", tag.rsplit("_", 1)[1]
else:
    os_name, platform, system, machine = "nt", "win32", "Windows", "AMD64"
environment = {
    "implementation_name": "cpython", "implementation_version": f"3.{minor}.0", "os_name": os_name,
    "platform_machine": machine, "platform_release": "", "platform_system": system, "platform_version": "",
    "python_full_version": f"3.{minor}.0", "platform_python_implementation": "CPython",
    "python_version": f"3.{minor}", "sys_platform": platform,
}

from pip._vendor.packaging import markers  # noqa: E402

markers.default_environment = lambda: dict(environment)

from pip._internal.cli.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
