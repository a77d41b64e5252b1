#!/usr/bin/env python3
"""Writes what the pip of this interpreter reads in requirements files of every
odd shape. pypi/testdata/requirements.json was made by it, with pip 26.3.

usage: req_files.py > requirements.json
"""
import base64
import codecs
import json
import os
import pathlib
import sys
import tempfile

import pip
from pip._internal.index.collector import LinkCollector
from pip._internal.index.package_finder import PackageFinder
from pip._internal.models.release_control import ReleaseControl
from pip._internal.models.search_scope import SearchScope
from pip._internal.models.selection_prefs import SelectionPreferences
from pip._internal.network.session import PipSession
from pip._internal.req.req_file import parse_requirements
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

A, B = "a" * 64, "b" * 64
# name: text, or a dictionary of files of which r.txt is the first
CASES = {
    "plain": "foo\nBar_Baz[x,Y]>=1,<2\n\n  spam == 1.0 ; os_name == 'nt'  \n",
    "no final newline": "foo\nbar",
    "hash without a space": "bar#three\n",
    "comments": "# one\nfoo # two\n   # four\n\t#five\nspam\t# six\n",
    "comment after bar#": "bar #three\nfoo ; os_name == 'a#b'\n",
    "continuation": "foo==1 \\\n  --hash=sha256:%s \\\n  --hash=sha256:%s\nbar\n" % (A, B),
    "continued to the end": "foo==1 \\\n",
    "continued by a comment": "foo==1 \\\n# why\n --hash=sha256:%s\nbar\n" % A,
    "comment that is continued": "foo==1 # why \\\nbar==2\nspam\n",
    "whole comment that is continued": "# why \\\nbar==2\n",
    "two backslashes": "foo\\\\\n==1\nbar\n",
    "blank in a continuation": "foo \\\n\n==1\nbar\n",
    "space after the backslash": "foo==1 \\ \nbar\n",
    "crlf": "foo\r\nbar==1 \\\r\n  --hash=sha256:%s\r\nspam\r\n" % A,
    "carriage return alone": "foo\rbar\r# c\rspam",
    "form feed and vertical tab": "foo\x0cbar\x0bspam",
    "separators": "foo\x1cbar\x1dspam\x1eegg",
    "next line": "# c\u0085foo\u2028bar\u2029spam",
    "no-break space": "\u00a0foo\u00a0\nbar\u00a0# c\n",
    "bom": codecs.BOM_UTF8 + b"foo\nbar\n",
    "utf-16 le": codecs.BOM_UTF16_LE + "foo # ü\nbar\n".encode("utf-16-le"),
    "utf-16 be": codecs.BOM_UTF16_BE + "foo # ü\nbar\n".encode("utf-16-be"),
    "utf-32 le": codecs.BOM_UTF32_LE + "foo # ü\nbar\n".encode("utf-32-le"),
    "utf-32 be": codecs.BOM_UTF32_BE + "foo # ü\nbar\n".encode("utf-32-be"),
    "utf-16 cut": codecs.BOM_UTF16_LE + b"f\x00o",
    "latin-1": b"# -*- coding: latin-1 -*-\nfoo # \xfc\nbar\n",
    "latin-1 on line two": b"# c\n# coding=iso-8859-1\nfoo # \xfc\n",
    "latin-1 on line three": b"# c\n# c\n# coding=iso-8859-1\nfoo # u\n",
    "coding not in a comment": b"foo\n  # coding: utf-16\nbar\n",
    "coding unknown": b"# coding: klingon\nfoo\n",
    "options": "--index-url https://index.example/simple\n-ihttps://index.example/simple\n--extra-index-url=https://index.example/x --pre\n-f wheels\n--trusted-host index.example\nfoo\n",
    "two options on a line": "--pre --no-index\nfoo\n",
    "quoted value": "--index-url 'https://index.example/a b'\n-r \"more.txt\"\n",
    "unclosed quote": "-r 'more.txt\n",
    "formats": "--no-binary foo,Bar_x\n--only-binary :all:\n--only-binary foo\n--no-binary egg\nfoo\n",
    "formats all none": "--only-binary foo\n--no-binary :all:\n--no-binary :none:,egg\nfoo\n",
    "formats all then name": "--no-binary :all:,egg\nfoo\n",
    "formats all none name": "--no-binary x,:all:,:none:,egg\nfoo\n",
    "all releases": "--all-releases foo,Bar\nfoo\n",
    "pre": "--pre\nfoo\n",
    "require hashes": "--require-hashes\nfoo==1 --hash=sha256:%s\n" % A,
    "hash alone": "--hash=sha256:%s\nfoo\n" % A,
    "hash with a space": "foo==1 --hash sha256:%s\n" % A,
    "hash quoted": "foo==1 --hash='sha256:%s'\n" % A,
    "upper case hash": "foo==1 --hash=sha256:%s\n" % A.upper(),
    "config settings": "foo==1 --config-settings=x=y -C z=1\nbar\n",
    "global option": "foo==1 --global-option=x\n",
    "unknown option": "--install-magic\nfoo\n",
    "flag with a value": "--pre=1\nfoo\n",
    "option without a value": "foo\n--index-url\n",
    "include": {"r.txt": "-r sub/more.txt\nfoo\n-c c.txt\n", "sub/more.txt": "bar\n-r deep.txt\n", "sub/deep.txt": "deep\n", "c.txt": "foo<2\n-r d.txt\n-c e.txt\n", "d.txt": "d\n", "e.txt": "e==1\n"},
    "include twice": {"r.txt": "-r a.txt\n-r b.txt\n", "a.txt": "-r c.txt\n", "b.txt": "-r c.txt\n", "c.txt": "foo\n"},
    "include itself": {"r.txt": "foo\n-r r.txt\n"},
    "include in a ring": {"r.txt": "-r a.txt\n", "a.txt": "-c b.txt\n", "b.txt": "-r a.txt\n"},
    "include missing": "-r none.txt\n",
    "include without a space": {"r.txt": "-ra.txt\n-rb.txt\n", "a.txt": "a\n", "b.txt": "b\n"},
    "include with equals": {"r.txt": "--requirement=a.txt\n--constraint=b.txt\n", "a.txt": "a\n", "b.txt": "b\n"},
    "empty": "",
    "extras with blanks": "foo[ a , b ] >= 1 , < 2\n",
    "parentheses": "foo (>=1,<2)\n",
    "arbitrary": "foo===1.0+x\n",
    "no space before the marker": "foo>=1;python_version>='3'\n",
    # what pip takes and this reader must not
    "variable": "foo==${VERSION}\n",
    "variable in a path": "-r ${HOME}/x.txt\n",
    "url": "foo @ https://files.example/foo-1.zip\n",
    "bare url": "https://files.example/foo-1.zip\n",
    "path": "./foo-1.0-py3-none-any.whl\n",
    "editable": "-e .\n",
}
# why this reader refuses what pip takes
STRICTER = {
    "variable": "-VARIABLE",
    "variable in a path": "-VARIABLE",
    "url": "-URL",
    "bare url": "-SYNTAX",
    "path": "-SYNTAX",
    "editable": "-EDITABLE",
}


def read(root):
    session = PipSession()
    scope = SearchScope.create(find_links=[], index_urls=[], no_index=False)
    finder = PackageFinder.create(link_collector=LinkCollector(session=session, search_scope=scope), selection_prefs=SelectionPreferences(allow_yanked=True, release_control=ReleaseControl()))
    lines = []
    for r in parse_requirements(str(root / "r.txt"), session=session, finder=finder):
        place = r.comes_from.split(" ", 1)[1]  # "-r FILE (line N)"
        file, line = place.rsplit(" (line ", 1)
        req = Requirement(r.requirement)
        hashes = sorted(f"{alg}:{h}".lower() for alg, hs in (r.options or {}).get("hashes", {}).items() for h in hs)
        lines.append(
            {
                "where": f"{os.path.relpath(file, root)}:{line.rstrip(')')}",
                "name": canonicalize_name(req.name),
                "extras": sorted(canonicalize_name(e) for e in req.extras),
                "marker": req.marker is not None,
                "constraint": bool(r.constraint),
                "hashes": hashes,
            }
        )
    fc = finder.format_control
    allowed = {}
    for project in ("foo", "bar-x", "egg", "other"):
        kinds = fc.get_allowed_formats(project)
        allowed[project] = sorted(kinds)
    return {"lines": lines, "allowed": allowed, "prereleases": sorted(finder.release_control.all_releases)}


def main():
    out = {"made-by": f"pip {pip.__version__}", "cases": []}
    for name, files in CASES.items():
        if not isinstance(files, dict):
            files = {"r.txt": files}
        files = {n: t if isinstance(t, bytes) else t.encode() for n, t in files.items()}
        if name == "quoted value":
            files["more.txt"] = b"more\n"
        case = {"name": name, "files": {n: base64.b64encode(t).decode() for n, t in files.items()}}
        with tempfile.TemporaryDirectory() as tmp:
            root = pathlib.Path(tmp).resolve()
            for n, t in files.items():
                (root / n).parent.mkdir(parents=True, exist_ok=True)
                (root / n).write_bytes(t)
            if name in STRICTER:
                case["refused"] = STRICTER[name]
            else:
                try:
                    case["want"] = read(root)
                except Exception as e:
                    print(f"{name}: {type(e).__name__}: {e}".splitlines()[0], file=sys.stderr)
                    case["refused"] = ""
        out["cases"].append(case)
    json.dump(out, sys.stdout, indent=1, ensure_ascii=True)
    print()


main()
