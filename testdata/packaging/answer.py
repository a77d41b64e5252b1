"""Asks pypa/packaging about what record.py wrote down, and about more of the
same: every specifier against every version, every marker in every
environment, presets of targets, and texts that differ from the recorded ones
in a character or two.

    python answer.py RECORDED FULL      all of it
    python answer.py RECORDED small     a sample, for the tests of the package
"""

import hashlib
import itertools
import json
import random
import re
import sys

from packaging import _manylinux, _musllinux, tags
from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name, canonicalize_version, is_normalized_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
import packaging

rng = random.Random(26.3)
recorded = json.load(open(sys.argv[1], encoding="utf-8"))["inputs"]
small = sys.argv[2] == "small"


def sample(values, most):
    """At most so many of them, spread evenly; all of them in the full run."""
    values = list(values)
    if not small or len(values) <= most:
        return values
    return [values[i * len(values) // most] for i in range(most)]


def unique(values):
    return list(dict.fromkeys(v for v in values if clean(v)))


def clean(value):
    """Lone surrogates are no text that a file could hold."""
    return not re.search("[\ud800-\udfff]", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def mutated(values, times):
    """Texts with a character or two taken out, put in or doubled."""
    alphabet = " \t\n\r\v\x1c\x85\xa0\u2003,;()[]<>=!~@.*+-_'\"\\/%:abcdrvop0159AZn\x00\u00e9\u0662\u200b\u017f\u212a"
    out = []
    for value in values:
        for _ in range(times):
            chars = list(value)
            for _ in range(rng.choice((1, 1, 1, 2))):
                i = rng.randrange(len(chars) + 1)
                kind = rng.randrange(3)
                if kind == 0 and i < len(chars):
                    del chars[i]
                elif kind == 1 and i < len(chars):
                    chars.insert(i, chars[i])
                else:
                    chars.insert(i, rng.choice(alphabet))
            out.append("".join(chars))
    return out


def digest(lines):
    return [len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()]


def bits(flags):
    """Flags as hexadecimal, four a digit, the first the highest."""
    flags = "".join("1" if f else "0" for f in flags)
    return "".join("%x" % int(flags[i : i + 4].ljust(4, "0"), 2) for i in range(0, len(flags), 4))


def attempt(answer, *args):
    """The answer, or None if the library refuses: all its errors are these,
    and so is Python's limit on the digits of a number. An assertion fails in
    what it reads as a specifier and then not as a version (a long s, say)."""
    try:
        return answer(*args)
    except (ValueError, AssertionError):
        return None


# ---- versions

EPOCHS = ["", "0!", "1!", "02!"]
RELEASES = ["0", "1", "1.0", "1.0.0", "1.0.1", "1.02", "1.1", "1.10", "2026.11.22", "20260101000000000000000000001", "0.0.1"]
PRES = ["", "a1", "-alpha.1", "b2", ".beta", "rc1", "c", "_preview_3", "pre0"]
POSTS = ["", "-1", ".post1", "post", ".rev-4", "-r3"]
DEVS = ["", ".dev1", "dev", "-dev.3", "_dev2"]
LOCALS = ["", "+abc", "+1", "+a_b.05", "+cu130", "+FOO-1"]


def spelled():
    every = ["".join(p) for p in itertools.product(EPOCHS, RELEASES, PRES, POSTS, DEVS, LOCALS)]
    return rng.sample(every, 1500)


def version(s):
    v = Version(s)
    return [str(v), canonicalize_version(s), v.is_prerelease]


def rank(texts):
    ordered = sorted((Version(t), t) for t in texts)
    out, n = [], 0
    for i, (v, t) in enumerate(ordered):
        if i and ordered[i - 1][0] != v:
            n += 1
        out.append([t, n])
    return out


# ---- specifiers


def specifier(s):
    c = Specifier(s)
    return [str(c), bool(c.prereleases)]


def specifier_set(s):
    c = SpecifierSet(s)
    return [str(c), bool(c.prereleases)]


def grid(specs, items):
    """Which of the items each specifier contains, pre-releases counting."""
    parsed = [Version(i) for i in items]
    out = []
    for s in specs:
        c = Specifier(s)
        # === compares what was written, the others compare versions.
        values = items if c.operator == "===" else parsed
        out.append([s, bits(c.contains(v, prereleases=True) for v in values)])
    return out


def choices(sets, items):
    """What each set filters from the items, for the three policies."""
    out = []
    for s in sets:
        chosen = []
        for pre in (None, True, False):
            kept = set(SpecifierSet(s).filter(items, prereleases=pre))
            chosen.append(bits(i in kept for i in items))
        out.append([s, *chosen])
    return out


def calls(kind, make):
    """Recorded calls of filter and contains: the places of what came out."""
    out = []
    for spec, items, pre in recorded[kind]:
        if not clean(items) or not clean(spec) or small and len(items) > 8:
            continue
        places = attempt(lambda: list(make(spec).filter(range(len(items)), prereleases=pre, key=lambda i: items[i])))
        if places is not None:
            out.append([spec, items, pre, places])
    return out


# ---- markers

TARGETS = [
    ("cp312-manylinux_2_28_x86_64", "3.12.0", "linux", "x86_64"),
    ("cp38-manylinux_2_5_i686@3.8.20", "3.8.20", "linux", "i686"),
    ("cp313t-musllinux_1_2_aarch64@3.13.1", "3.13.1", "linux", "aarch64"),
    ("cp314-macosx_14_0_arm64@3.14.0rc2", "3.14.0rc2", "darwin", "arm64"),
    ("cp310-macosx_10_15_x86_64", "3.10.0", "darwin", "x86_64"),
    ("cp39-win_amd64@3.9.13", "3.9.13", "win32", "AMD64"),
    ("cp311-win32", "3.11.0", "win32", "x86"),
    ("cp313-win_arm64", "3.13.0", "win32", "ARM64"),
    ("cp310-manylinux_2_17_armv7l", "3.10.0", "linux", "armv7l"),
    ("cp312-manylinux_2_40_ppc64le", "3.12.0", "linux", "ppc64le"),
    ("cp312-manylinux_2_34_armv8l", "3.12.0", "linux", "armv8l"),
    ("cp314t-manylinux_2_39_riscv64", "3.14.0", "linux", "riscv64"),
    ("cp315t-win_amd64", "3.15.0", "win32", "AMD64"),
    ("cp311-macosx_26_0_arm64", "3.11.0", "darwin", "arm64"),
    ("cp312-macosx_12_3_x86_64", "3.12.0", "darwin", "x86_64"),
]
NAMES = {"linux": ("posix", "Linux"), "darwin": ("posix", "Darwin"), "win32": ("nt", "Windows")}
RELEASE = {"linux": ("6.1.0-18-amd64", "#1 SMP Debian 6.1.76-1"), "darwin": ("23.4.0", "Darwin Kernel 23.4.0"), "win32": ("10", "10.0.20348")}


def environment(full, system, machine):
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": NAMES[system][0],
        "platform_machine": machine,
        "platform_release": RELEASE[system][0],
        "platform_system": NAMES[system][1],
        "platform_version": RELEASE[system][1],
        "python_full_version": full,
        "platform_python_implementation": "CPython",
        "python_version": ".".join(full.split(".")[:2]),
        "sys_platform": system,
    }


ENVIRONMENTS = [environment(*t[1:]) for t in TARGETS[:8]]
# What evaluate is told beside the environment: nothing, an extra, or what a
# lock file is installed with.
WITH = [({}, "metadata"), ({"extra": "Test"}, "metadata"), ({"extras": {"test", "Foo_Bar"}, "dependency_groups": {"dev"}}, "lock_file")]


def evaluate(marker, env, context):
    try:
        return "T" if marker.evaluate(env, context) else "F"
    except UndefinedComparison:
        return "U"
    except UndefinedEnvironmentName:
        return "M"


def marker(s):
    m = Marker(s)
    return [shown(m), "".join(evaluate(m, env | more, context) for more, context in WITH for env in ENVIRONMENTS)]


def shown(m):
    try:
        return str(m)
    except ValueError:  # a string with both kinds of quotes has no form there
        return None


def evaluations():
    out = []
    for text, env, context in recorded["evaluations"]:
        sets = {k: set(v) if isinstance(v, list) else v for k, v in env.items()}
        out.append([text, env, context, evaluate(Marker(text), ENVIRONMENTS[0] | sets, context)])
    return out


MARKER_PIECES = [
    "python_version >= '3.9'", "python_version < '3'", "python_full_version >= '3.12.0rc1'", "'3.1' in python_version", "python_version ~= '3.8'",
    "python_version == '3.*'", "'3.10' <= python_version", "python_full_version === '3.12.0'", "implementation_version != '3.9.13'",
    "sys_platform == 'linux'", "sys_platform == \"win32\"", "'lin' in sys_platform", "platform_system != 'Windows'", "os_name == 'nt'",
    "platform_machine in 'x86_64 AMD64'", "platform_machine not in 'aarch64 arm64'", "platform_python_implementation == 'CPython'",
    "python_implementation == 'PyPy'", "implementation_name == 'cpython'", "extra == 'Test'", "'test' == extra", "extra != \"dev\"", "'foo.bar' in extras",
    "'dev' in dependency_groups", "'dev' not in extras", "platform_release >= '6.1'", "'10' == platform_release", "platform_version == '10.0.20348'",
    "os.name == 'posix'", "sys.platform > 'a'", "os_name < sys_platform", "'x' != extras", "python_version in '3.12, 3.13'", "os_name == 'a\\x62'",
]


def composed():
    out = []
    for _ in range(1500):
        s = rng.choice(MARKER_PIECES)
        for _ in range(rng.randrange(5)):
            s = (rng.choice(["{} and {}", "{} or {}", "({}) and {}", "{} and ({})", "({} or {})", "(({}) or {})"])).format(s, rng.choice(MARKER_PIECES))
        out.append(s)
    return out


# ---- requirements, names, filenames


def requirement(s):
    r = Requirement(s)
    names = [canonicalize_name(r.name), sorted({canonicalize_name(e) for e in r.extras})]
    valid = all(attempt(lambda n: canonicalize_name(n, validate=True), n) for n in [r.name, *r.extras])
    marker = shown(r.marker) if r.marker else ""
    whole = None
    if marker is not None:
        r.name, r.extras = names[0], set(names[1])
        whole = str(r)
    return [*names, str(r.specifier), r.url or "", marker, whole, bool(valid)]


def name(s):
    return [attempt(lambda: canonicalize_name(s, validate=True)), canonicalize_name(s), is_normalized_name(s)]


def wheel(s):
    project, v, build, found = parse_wheel_filename(s)
    return [project, str(v), str(build[0]) if build else "", build[1] if build else "", sorted(map(str, found))]


def sdist(s):
    project, v = parse_sdist_filename(s)
    return [project, str(v)]


# ---- tags and targets


def linux(arch, glibc, musl):
    """Platform tags of a Linux, as the library lists them there."""
    _manylinux._get_glibc_version = lambda: _manylinux._GLibCVersion(*glibc)
    _manylinux._have_compatible_abi = lambda *_: True
    _manylinux._get_manylinux_module = lambda: None
    _musllinux._get_musl_version = lambda _: _musllinux._MuslVersion(*musl) if musl else None
    tags.sysconfig = type("sysconfig", (), {"get_platform": staticmethod(lambda: "linux-" + arch)})
    return list(tags._linux_platforms(is_32bit=False))


def platforms(preset):
    if m := re.fullmatch(r"manylinux_2_(\d+)_(\w+)", preset):
        return linux(m[2], (2, int(m[1])), None)
    if m := re.fullmatch(r"musllinux_1_(\d+)_(\w+)", preset):
        return linux(m[2], (-1, -1), (1, int(m[1])))
    if m := re.fullmatch(r"macosx_(\d+)_(\d+)_(x86_64|arm64)", preset):
        return list(tags.mac_platforms((int(m[1]), int(m[2])), m[3]))
    return [preset]


def target_tags(preset):
    m = re.fullmatch(r"cp3(\d+)(t?)-(\w+)(?:@.*)?", preset)
    python, plats = (3, int(m[1])), platforms(m[3])
    return [*tags.cpython_tags(python, [f"cp3{m[1]}{m[2]}"], plats), *tags.compatible_tags(python, f"cp3{m[1]}", plats)]


def pypy_tags(minor, preset):
    plats = platforms(preset)
    return [*tags.generic_tags(f"pp3{minor}", [f"pypy3{minor}_pp73"], plats), *tags.compatible_tags((3, minor), "pp3", plats)]


def generated(call):
    function, args = call
    if function == "mac_platforms":
        found = tags.mac_platforms(tuple(args[0]), args[1])
    else:
        args = [tuple(a) if isinstance(a, list) and a and isinstance(a[0], int) else a for a in args]
        found = getattr(tags, function)(*args)
    return [function, call[1], *digest(list(map(str, found)))]


WHEEL_TAGS = [
    "py3-none-any", "py2.py3-none-any", "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64", "cp39-abi3-manylinux_2_28_x86_64", "cp312-cp312-linux_x86_64",
    "cp313-cp313t-musllinux_1_1_aarch64", "cp313-abi3t-musllinux_1_2_aarch64", "cp310-cp310-macosx_10_9_universal2", "cp314-cp314-macosx_11_0_arm64", "cp39-cp39-win_amd64",
    "cp311-none-win32", "py3-none-win_arm64", "cp38-cp38-manylinux1_i686.manylinux_2_5_i686", "cp36-abi3-win_amd64.win32", "py2-none-any", "cp312-none-any", "py310-none-any",
    "cp312-cp312-manylinux_2_38_ppc64le", "cp310-cp310-manylinux2014_armv7l", "cp311-cp311-macosx_26_0_arm64", "cp311-cp311-macosx_27_0_arm64", "cp37-abi3-macosx_10_12_x86_64",
]


def targets():
    out = []
    for preset, full, system, machine in TARGETS:
        found = target_tags(preset)
        places = {}
        for i, t in enumerate(found):
            places.setdefault(t, i)
        ranks = []
        for w in WHEEL_TAGS:
            hits = [places[t] for t in tags.parse_tag(w) if t in places]
            ranks.append(min(hits) if hits else -1)
        env = environment(full, system, machine)
        del env["platform_release"], env["platform_version"]
        out.append([preset, env, *digest(list(map(str, found))), ranks])
    return out


def pypy():
    return [[minor, preset, *digest(list(map(str, pypy_tags(minor, preset))))] for minor, preset in [(10, "manylinux_2_28_x86_64"), (11, "macosx_14_0_arm64"), (9, "win_amd64")]]


# ---- metadata


def metadata(s):
    raw, unparsed = parse_email(s.encode("latin-1"))
    major, _, _ = raw.get("metadata_version", "").partition(".")
    project = attempt(lambda: canonicalize_name(raw.get("name", ""), validate=True))
    v = attempt(lambda: str(Version(raw.get("version", ""))))
    if major not in ("1", "2") or project is None or v is None or "requires-python" in unparsed:
        return None
    requires = [attempt(lambda t=t: requirement(t)[5]) for t in raw.get("requires_dist", [])]
    extras = [attempt(lambda t=t: canonicalize_name(t, validate=True)) for t in raw.get("provides_extra", [])]
    return {
        "not_utf8": "requires-dist" in unparsed,
        "metadata_version": raw["metadata_version"],
        "name": project,
        "version": v,
        "requires_python": raw.get("requires_python", ""),
        "requires": [r for r in requires if r is not None],
        "malformed": requires.count(None),
        "extras": [e for e in extras if e is not None],
        "dynamic": [d.lower() for d in raw.get("dynamic", [])],
    }


HEAD = "Metadata-Version: 2.4\nName: Some.Project\nVersion: 1.0.0\n"


def metadata_texts():
    out = list(recorded["metadata"])
    out += [HEAD + t for t in recorded["metadata"]]
    lines = [
        "Requires-Dist: b>=1", "Requires-Dist: c[x,Y_z] (<2) ; extra == 'A_b'", "Requires-Dist: d @ https://files.example/d.zip ; os_name == 'nt'", "Requires-Dist: not a requirement",
        "Requires-Python: >=3.8", "Provides-Extra: A_b", "Provides-Extra: :bad", "Dynamic: Requires-Dist", "Dynamic: license", "Summary: a\n  b", "X-Unknown: 1", "License: MIT",
        "Keywords: a,b", "requires-dist: e", "Metadata-Version: 2.1", "Name: other", "Version: 2", "Requires-Python: >2", "\nRequires-Dist: in-the-body", "no header at all",
        "Description: x\n        y\n        Requires-Dist: folded-away", "Author: J\xc3\xb6rg", "Requires-Dist: \xff", "Requires-Dist:f", "Requires-Dist : g", "Requires-Dist: h \t",
        "Requires-Dist: i>=1;\n os_name == 'nt'",
    ]
    for _ in range(1500):
        out.append(HEAD + "\n".join(rng.sample(lines, rng.randrange(1, 6))) + rng.choice(["", "\n", "\n\nbody\n", "\r\n"]))
    return out


def main():
    versions = unique(recorded["versions"] + spelled())
    versions += unique(mutated(sample(versions, 150), 4))
    valid = [v for v in unique(versions) if attempt(Version, v) and not re.search(r"\s", v)]
    specs = unique(recorded["specifiers"])
    specs += unique(op + v for op, v in zip(itertools.cycle(["==", "!=", "<", ">", "<=", ">=", "~=", "==="]), sample(valid, 300)))
    specs = unique(specs + mutated(sample(specs, 150), 3))
    good = [s for s in specs if attempt(lambda s=s: Specifier(s).contains("1")) is not None]
    sets = unique(recorded["sets"])
    sets = unique(sets + [",".join(rng.sample(good, rng.randrange(2, 5))) for _ in range(600)] + mutated(sample(sets, 60), 3))
    good_sets = [s for s in sets if attempt(lambda s=s: SpecifierSet(s).contains("1")) is not None]
    markers = unique(recorded["markers"] + composed())
    markers = unique(markers + mutated(sample(markers, 150), 4))
    requirements = unique(recorded["requirements"])
    requirements += unique(a + " ; " + b for a, b in zip(rng.sample(requirements, 500), rng.sample(markers, 500)) if ";" not in a)
    requirements = unique(requirements + mutated(sample(requirements, 250), 4))
    names = unique(recorded["names"])
    names = unique(names + mutated(names, 8))
    wheels = unique(recorded["wheels"] + ["x-1.0-" + t + ".whl" for t in WHEEL_TAGS])
    wheels = unique(wheels + mutated(wheels, 30 if not small else 8))
    sdists = unique(recorded["sdists"] + ["%s-%s.tar.gz" % p for p in zip(sample(names, 100), sample(valid, 100))])
    sdists = unique(sdists + mutated(sdists, 20 if not small else 1))
    short = [v for v in valid if len(v) <= 250]  # what our versions may have
    items = sample(short, 160)
    if not small:
        items = rng.sample(items, min(len(items), 1500))
        good = rng.sample(good, min(len(good), 2500))
        good_sets = rng.sample(good_sets, min(len(good_sets), 1200))

    def ask(answer, values, most):
        return [[v, attempt(answer, v)] for v in sample(values, most)]

    out = {
        "made_with": "packaging " + packaging.__version__,
        "versions": ask(version, versions, 500),
        "order": rank(sample(short, 500) if small else rng.sample(short, min(len(short), 3000))),
        "specifiers": ask(specifier, specs, 500),
        "sets": ask(specifier_set, sets, 200),
        "items": items,
        "contains": grid(sample(good, 300), items),
        "filters": choices(sample(good_sets, 130), items),
        "specifier_calls": sample(calls("specifier_filters", Specifier), 200),
        "set_calls": sample(calls("filters", SpecifierSet), 200),
        "environments": ENVIRONMENTS,
        "markers": ask(marker, markers, 250),
        "evaluations": sample(evaluations(), 60),
        "requirements": ask(requirement, requirements, 200),
        "names": ask(name, names, 150),
        "wheels": ask(wheel, wheels, 150),
        "sdists": ask(sdist, sdists, 80),
        "tag_sets": ask(lambda s: sorted(map(str, tags.parse_tag(s))), [t for t in unique(recorded["tag_sets"]) if t.count("-") == 2 and ".." not in t], 40),
        "tags": [generated(c) for c in recorded["tags"]],
        "wheel_tags": WHEEL_TAGS,
        "targets": targets(),
        "pypy": pypy(),
        "metadata": ask(metadata, metadata_texts(), 110),
    }
    json.dump(out, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main()
