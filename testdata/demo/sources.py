"""Print apt sources for the archives of the outside configuration.

usage: sources.py SETTINGS.json [BASE-URL KEYRING]

SETTINGS.json is what `darkmirror config show -o json` prints outside; each of
its archives becomes one line for each suite: as it stands outside, or, with
BASE-URL, for a client of the inside mirror there.
"""

import json
import re
import sys

settings, *inside = sys.argv[1:]
archives = {}
for s in json.load(open(settings))["settings"]:
    m = re.match(r"apt\[0\]\.archives\[(\d+)\]\.(name|url|suites|components|signed_by)", s["key"])
    if m:
        archives.setdefault(int(m[1]), {}).setdefault(m[2], []).extend(re.findall(r"[^\s,\[\]]+", s["value"]))
for _, a in sorted(archives.items()):
    url, keys = a["url"][0], ",".join(a["signed_by"])
    if inside:
        url, keys = f"{inside[0]}/{a['name'][0]}", inside[1]
    for suite in a["suites"]:
        print(f"deb [signed-by={keys}] {url} {suite} {' '.join(a['components'])}")
