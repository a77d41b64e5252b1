"""Print the apt sources of a client of the inside mirror.

usage: sources.py SETTINGS.json BASE-URL KEYRING

SETTINGS.json is what `darkmirror config show -o json` prints outside; each of
its archives becomes one line for each suite.
"""

import json
import re
import sys

settings, base, keyring = sys.argv[1:]
archives = {}
for s in json.load(open(settings))["settings"]:
    m = re.match(r"apt\[0\]\.archives\[(\d+)\]\.(name|suites|components)", s["key"])
    if m:
        archives.setdefault(int(m[1]), {}).setdefault(m[2], []).extend(re.findall(r"[^\s,\[\]]+", s["value"]))
for _, a in sorted(archives.items()):
    for suite in a["suites"]:
        print(f"deb [signed-by={keyring}] {base}/{a['name'][0]} {suite} {' '.join(a['components'])}")
