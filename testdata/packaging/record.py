"""A pytest plugin that writes down what the tests of pypa/packaging ask.

    python -m pytest -p record --record FILE

Inputs only: each once, by kind. What the library answers is asked later, by
answer.py, in a process where nothing is patched. Calls that depend on the
interpreter or the machine that runs the tests are counted by name.
"""

import collections
import functools
import json
import sys

import packaging.markers
import packaging.metadata
import packaging.pylock  # noqa: F401 - so that its names are replaced as well
import packaging.requirements
import packaging.specifiers
import packaging.tags
import packaging.utils
import packaging.version
from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import Version

# The random tests make many thousands of inputs of one kind; more teach nothing.
MOST_RANDOM = 5_000

seen = collections.defaultdict(dict)
random_inputs = collections.Counter()
running = [""]  # the test
hosts = collections.Counter()
tests = collections.Counter()


def put(kind, value):
    key = json.dumps(value, sort_keys=True)
    if key in seen[kind]:
        return
    if running[0].startswith("tests/property"):
        random_inputs[kind] += 1
        if random_inputs[kind] > MOST_RANDOM:
            return
    seen[kind][key] = value


def plain(value):
    """A marker environment as JSON; a set becomes a list."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return value


def watch(owner, name, note):
    """Calls note(*args) before owner.name(*args)."""
    old = getattr(owner, name)

    @functools.wraps(old)
    def call(*args, **kwargs):
        try:
            args, kwargs = note(*args, **kwargs) or (args, kwargs)
        except (TypeError, AttributeError, ValueError):
            pass  # the tests also call with what is no input at all
        return old(*args, **kwargs)

    setattr(owner, name, call)
    if not isinstance(owner, type):  # modules hold each other's functions
        for module in [m for n, m in sys.modules.items() if n.startswith("packaging")]:
            if getattr(module, name, None) is old:
                setattr(module, name, call)


def text(kind):
    def note(self, value="", *_, **__):
        if isinstance(value, str):
            put(kind, value)

    return note


def note_set(self, specifiers="", prereleases=None):
    if isinstance(specifiers, str):
        put("sets", specifiers)
        return None
    specifiers = list(specifiers)
    put("sets", ",".join(map(str, specifiers)))
    return (self, specifiers, prereleases), {}


def note_filter(self, iterable, prereleases=None, key=None):
    items = list(iterable)
    if prereleases is None:
        prereleases = self._prereleases
    kind = "filters" if isinstance(self, SpecifierSet) else "specifier_filters"
    spec = ",".join(map(str, self._specs)) if isinstance(self, SpecifierSet) else str(self)
    put(kind, [spec, [str(i if key is None else key(i)) for i in items], prereleases])
    return (self, items, prereleases, key), {}


def note_contains(self, item, prereleases=None, installed=None):
    if not isinstance(item, (str, Version)):
        return
    if prereleases is None:
        prereleases = self._prereleases
    if isinstance(self, SpecifierSet):
        if installed and packaging.version.Version(str(item)).is_prerelease:
            prereleases = True
        put("filters", [",".join(map(str, self._specs)), [str(item)], prereleases])
    else:
        put("specifier_filters", [str(self), [str(item)], prereleases])


def note_evaluate(self, environment=None, context="metadata"):
    put("markers", str(self))
    if environment is None:
        hosts["Marker.evaluate of the running interpreter alone"] += 1
    else:
        put("evaluations", [str(self), plain(dict(environment)), context])


def note_name(name, *, validate=False):
    if isinstance(name, str):
        put("names", name)


def first(kind):
    def note(value, *_, **__):
        if isinstance(value, str):
            put(kind, value)

    return note


def note_tags(function, explicit):
    """The tag generators, where nothing is left to the running interpreter."""

    def note(*args, **kwargs):
        named = dict(zip(explicit, args), **kwargs)
        named.pop("warn", None)
        for k in ("abis", "platforms"):
            if named.get(k) is not None:
                named[k] = list(named[k])
        needed = [k for k in explicit if k != "interpreter" or function == "generic_tags"]
        if all(named.get(k) is not None and (named[k] or k == "abis") for k in needed):
            put("tags", [function, [plain_list(named.get(k)) for k in explicit]])
        else:
            hosts[function + " with something left to the running interpreter"] += 1
        return (), dict(named, **({"warn": kwargs["warn"]} if "warn" in kwargs else {}))

    return note


def plain_list(value):
    return list(value) if isinstance(value, (tuple, list)) else value


def note_metadata(kind):
    def note(data, *_, **__):
        if isinstance(data, str):
            data = data.encode()
        put(kind, data.decode("latin-1"))

    return note


def note_raw(data, *_, **__):
    """Fields that were not read from a file: as the inputs of their kinds."""
    for field, kind in {"name": "names", "version": "versions", "requires_python": "sets"}.items():
        if isinstance(data.get(field), str):
            put(kind, data[field])
    for value in data.get("requires_dist") or []:
        put("requirements", value)
    for value in data.get("provides_extra") or []:
        put("names", value)


def count(name):
    def note(*_, **__):
        hosts[name] += 1

    return note


watch(Version, "__init__", text("versions"))
watch(Specifier, "__init__", text("specifiers"))
watch(SpecifierSet, "__init__", note_set)
for c in (Specifier, SpecifierSet):
    watch(c, "filter", note_filter)
    watch(c, "contains", note_contains)
watch(packaging.markers.Marker, "__init__", text("markers"))
watch(packaging.markers.Marker, "evaluate", note_evaluate)
watch(packaging.requirements.Requirement, "__init__", text("requirements"))
watch(packaging.utils, "canonicalize_name", note_name)
watch(packaging.utils, "is_normalized_name", first("names"))
watch(packaging.utils, "canonicalize_version", first("versions"))
watch(packaging.utils, "parse_wheel_filename", first("wheels"))
watch(packaging.utils, "parse_sdist_filename", first("sdists"))
watch(packaging.tags, "parse_tag", first("tag_sets"))
watch(packaging.tags, "cpython_tags", note_tags("cpython_tags", ["python_version", "abis", "platforms"]))
watch(packaging.tags, "generic_tags", note_tags("generic_tags", ["interpreter", "abis", "platforms"]))
watch(packaging.tags, "compatible_tags", note_tags("compatible_tags", ["python_version", "interpreter", "platforms"]))
watch(packaging.tags, "mac_platforms", note_tags("mac_platforms", ["version", "arch"]))
for f in ("sys_tags", "platform_tags", "interpreter_name", "interpreter_version", "_generic_abi", "_cpython_abis", "_linux_platforms"):
    watch(packaging.tags, f, count(f + ", which asks the running interpreter"))
for f in ("ios_platforms", "android_platforms"):
    watch(packaging.tags, f, count(f + ": no target of a mirror of wheels for servers"))
watch(packaging.metadata, "parse_email", note_metadata("metadata"))
raw = packaging.metadata.Metadata.__dict__["from_raw"].__func__


def from_raw(cls, data, **kwargs):
    if isinstance(data, dict):
        note_raw(data)
    return raw(cls, data, **kwargs)


packaging.metadata.Metadata.from_raw = classmethod(from_raw)


def pytest_addoption(parser):
    parser.addoption("--record", required=True, help="the file to write")


def pytest_runtest_setup(item):
    running[0] = item.nodeid


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        tests[report.nodeid.split("::")[0]] += 1


def pytest_sessionfinish(session):
    with open(session.config.getoption("--record"), "w", encoding="utf-8") as f:
        inputs = {kind: list(values.values()) for kind, values in sorted(seen.items())}
        json.dump({"inputs": inputs, "hosts": hosts, "tests": tests}, f)


# What of the library is not compared, by file of tests. All of it is still
# run, and the versions, specifiers, markers and names in it are recorded.
LEFT_OUT = {
    "tests/test_dependency_groups.py": "groups of pyproject.toml are read by package pypi",
    "tests/test_direct_url.py": "direct_url.json records an installation",
    "tests/test_elffile.py": "looks into the running interpreter",
    "tests/test_errors.py": "Python's own exceptions",
    "tests/test_licenses.py": "licence expressions are not read",
    "tests/test_manylinux.py": "asks the running libc; platform lists for a given glibc are compared as targets",
    "tests/test_musllinux.py": "asks the running libc; platform lists for a given musl are compared as targets",
    "tests/test_pylock.py": "lock files are read by package pypi",
    "tests/test_pylock_select.py": "lock files are read by package pypi; its markers and names are compared",
    "tests/test_ranges.py": "VersionRange, the algebra of ranges, has no counterpart; its specifiers are compared",
}


def report(path):
    """Prints what was run and recorded, and what is left out; fails if that is too little."""
    with open(path, encoding="utf-8") as f:
        found = json.load(f)
    for name, n in sorted(found["tests"].items()):
        known = "tests/test_ranges.py" if name.startswith("tests/property/test_ranges") else name
        print(f"{n:7} tests passed in {name}" + (f"  (left out: {LEFT_OUT[known]})" if known in LEFT_OUT else ""))
    for kind, values in found["inputs"].items():
        print(f"{len(values):7} inputs recorded: {kind}")
    for name, n in sorted(found["hosts"].items()):
        print(f"{n:7} calls left out: {name}")
    least = {"versions": 1500, "specifiers": 1000, "sets": 500, "markers": 2000, "requirements": 5000, "names": 80, "wheels": 25, "sdists": 8, "tags": 30, "metadata": 80, "filters": 3000, "specifier_filters": 6000, "evaluations": 90, "tag_sets": 25}
    few = [k for k, n in least.items() if len(found["inputs"].get(k, [])) < n]
    if few or sum(found["tests"].values()) < 62_000:
        sys.exit(f"suspiciously few: {sum(found['tests'].values())} tests; {', '.join(few)}")


if __name__ == "__main__":
    report(sys.argv[1])
