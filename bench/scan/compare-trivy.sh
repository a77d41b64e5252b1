#!/bin/bash
# compare-trivy.sh TRIVY DATABASE WHEELS ROOT
#
# Compares the findings of scan/trivy with those of Trivy's full engine, the
# program TRIVY of the same version, on the wheels of a folder and on a Debian
# root. Trivy gets what an installer makes of them: it reads neither
# a wheel nor a .deb. Each differing line is printed, with < for Trivy's and
# > for ours. The exit status is 1 if there is one.
#
# OURS may name the built program of bench/scan/ours.
set -euo pipefail
trivy=$1 database=$2 wheels=$3 root=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/cache/db" "$work/tree"
cp "$database/trivy.db" "$database/metadata.json" "$work/cache/db/"
pip install -q --no-deps --no-index --disable-pip-version-check --target "$work/tree" --upgrade "$wheels"/*.whl

full() { # DIR: package, version and id of each finding
	"$trivy" rootfs --quiet --scanners vuln --offline-scan --skip-db-update --skip-java-db-update --skip-version-check \
		--disable-telemetry --skip-vex-repo-update --cache-dir "$work/cache" --format json "$1" |
		python3 -c '
import json, sys
for r in json.load(sys.stdin).get("Results") or []:
    for v in r.get("Vulnerabilities") or []:
        print(v["PkgName"], v["InstalledVersion"], v["VulnerabilityID"])' | sort -u
}
ours=${OURS:-$work/ours}
[ -x "$ours" ] || (cd "$here" && go build -o "$ours" ./ours)

status=0
compare() { # NAME
	echo "$1: Trivy $(wc -l <"$work/$1.full"), ours $(wc -l <"$work/$1.ours")"
	diff "$work/$1.full" "$work/$1.ours" || status=1
}
LC_ALL=C full "$work/tree" | LC_ALL=C sort -u >"$work/wheels.full"
"$ours" -db "$database" "$wheels"/*.whl | LC_ALL=C sort -u >"$work/wheels.ours"
compare wheels
full "$root" | LC_ALL=C sort -u >"$work/root.full"
tar -C "$root" --one-file-system --exclude=./proc --exclude=./sys --exclude=./dev -cf "$work/root.tar" .
"$ours" -db "$database" -root "$work/root.tar" | LC_ALL=C sort -u >"$work/root.ours"
compare root
exit $status
