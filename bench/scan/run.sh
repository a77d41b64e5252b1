#!/usr/bin/env bash
# Figures of the scanners. make bench-scan runs it; the machine should be quiet.
#
# The set is wheels, .debs and one layer, from this host's own index and archive;
# BENCH_SET names a folder to use instead. ROUNDS is 5. TRIVY may name a program of
# Trivy 0.74.0, TRIVY_DB a folder with trivy.db; without them the rows that need
# them are left out, and the table says so.
#
#   whole     every engine over the packed set, as export does it
#   again     the same with the verdicts that the first run has kept
#   clamd     clamdscan --multiscan over the unpacked set, with the same clamd
#   clamscan  clamscan -r over the packed set, with the same signatures; it does
#             not open the .debs
#   unpacked  clamscan -r over the unpacked set: what "whole" looks at
#   trivy     one run of Trivy a file of the set, over what is in it
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
rounds=${ROUNDS:-5}
work=$here/.cache/bench-scan
set=${BENCH_SET:-$work/set}
mkdir -p "$work"
pid=
cleanup() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || :
	rm -rf "$work/run"
}
trap cleanup EXIT
rm -rf "$work/run"
mkdir -p "$work/run/scratch" "$work/run/tree"
for p in clamdscan clamscan; do
	command -v $p >/dev/null || { echo "bench: $p is missing (Debian: clamdscan, clamav)" >&2; exit 1; }
done

if [ -z "${BENCH_SET:-}" ] && [ ! -e "$set/made" ]; then
	rm -rf "$set"
	mkdir -p "$set/wheels" "$set/debs" "$set/layers"
	python3 -m venv "$work/venv"
	"$work/venv/bin/pip" download -q --no-deps --disable-pip-version-check --only-binary=:all: -d "$set/wheels" \
		numpy scipy pandas scikit-learn pillow sympy django flask requests urllib3 cryptography lxml sqlalchemy babel boto3 botocore transformers onnxruntime
	(cd "$set/debs" && for p in perl-base coreutils bash libc6 openssl python3.11-minimal libpython3.11-stdlib git gcc-12 cpp-12 postgresql-15 openjdk-17-jre-headless cmake nodejs; do
		apt-get -q -o APT::Sandbox::User= download "$p" >/dev/null
	done)
	tar -czf "$set/layers/python.tar.gz" -C / usr/lib/python3 usr/share/doc usr/share/perl 2>/dev/null || :
	touch "$set/made"
fi
go build -o "$work/run/whole" ./bench/scan/whole
for f in "$set"/wheels/*.whl; do
	python3 -m zipfile -e "$f" "$work/run/tree/$(basename "$f")"
done
for f in "$set"/debs/*.deb; do
	dpkg-deb -R "$f" "$work/run/tree/$(basename "$f")"
done
for f in "$set"/layers/*.tar.*; do
	mkdir "$work/run/tree/$(basename "$f")"
	tar -xf "$f" -C "$work/run/tree/$(basename "$f")" --no-same-owner --exclude='dev/*'
done
chmod -R u+rwX "$work/run/tree"
chmod 711 "$work" "$work/run"
echo "set: $(find "$set" -type f ! -name made | wc -l) files, $(du -sm "$set" | cut -f1) MiB packed; $(find "$work/run/tree" -type f | wc -l) files, $(du -sm --apparent-size "$work/run/tree" | cut -f1) MiB unpacked"

clam=$work/run/clamd
mkdir -p "$clam"
echo "MaxThreads 4" >"$clam/extra.conf"
sh testdata/scan/clamd.sh "$clam" &
pid=$!
until [ -e "$clam/ready" ]; do sleep 0.1; done
daemon() { awk '{ print ($14 + $15) / 100 }' "/proc/$(cat "$clam/clamd.pid")/stat"; }
trivydb=()
[ -z "${TRIVY_DB:-}" ] || trivydb=(-db "$TRIVY_DB")

: >"$work/run/results"
note() { # note ROW SECONDS CPU
	echo "$1 $2 $3" >>"$work/run/results"
}
timed() { # timed ROW COMMAND...: wall seconds, CPU seconds of it and of clamd
	local row=$1 before after
	shift
	before=$(daemon)
	TIMEFORMAT='%R %U %S'
	{ time "$@" >"$work/run/out" 2>"$work/run/err" || :; } 2>"$work/run/time"
	after=$(daemon)
	read -r wall user sys <"$work/run/time"
	note "$row" "$wall" "$(awk -v u="$user" -v s="$sys" -v a="$after" -v b="$before" 'BEGIN { print u + s + a - b }')"
}
trivy_each() {
	for d in "$work/run/tree"/*; do
		"$TRIVY" rootfs --quiet --scanners vuln,secret --offline-scan --skip-db-update --skip-java-db-update --skip-version-check \
			--disable-telemetry --skip-vex-repo-update --cache-dir "$work/run/trivy" --format json "$d"
	done
}
if [ -n "${TRIVY:-}" ] && [ -n "${TRIVY_DB:-}" ]; then
	mkdir -p "$work/run/trivy/db"
	cp "$TRIVY_DB"/trivy.db "$TRIVY_DB"/metadata.json "$work/run/trivy/db/"
fi
for round in $(seq "$rounds"); do
	kill -USR2 "$(cat "$clam/clamd.pid")" # reload: its memory of clean files goes
	sleep 2
	rm -f "$work/run/verdicts.db"
	timed whole "$work/run/whole" -clamd "$clam/clamd.sock" -signatures "$clam/db" "${trivydb[@]}" -cache "$work/run/verdicts.db" -scratch "$work/run/scratch" "$set"
	grep -q '"artifacts"' "$work/run/out" || { cat "$work/run/err" >&2; exit 1; }
	cp "$work/run/out" "$work/run/whole.json"
	timed again "$work/run/whole" -clamd "$clam/clamd.sock" -signatures "$clam/db" "${trivydb[@]}" -cache "$work/run/verdicts.db" -scratch "$work/run/scratch" "$set"
	kill -USR2 "$(cat "$clam/clamd.pid")"
	sleep 2
	timed clamd clamdscan --config-file="$clam/clamd.conf" --multiscan --fdpass --no-summary "$work/run/tree"
	timed clamscan clamscan -r --no-summary --database="$clam/db" --alert-exceeds-max=yes --max-filesize=2000M --max-scansize=4000M --max-files=200000 "$set"
	timed unpacked clamscan -r --no-summary --database="$clam/db" --alert-exceeds-max=yes --max-filesize=2000M --max-scansize=4000M --max-files=200000 "$work/run/tree"
	[ -z "${TRIVY:-}" ] || [ -z "${TRIVY_DB:-}" ] || timed trivy trivy_each
	echo "round $round: $(tail -6 "$work/run/results" | tr '\n' ';')" >&2
done
python3 - "$work/run/results" "$work/run/whole.json" "$rounds" <<'PY'
import json, statistics, sys
rows = {}
for line in open(sys.argv[1]):
    name, wall, cpu = line.split()
    rows.setdefault(name, []).append((float(wall), float(cpu)))
whole = json.load(open(sys.argv[2]))
m = {k: (statistics.median(w for w, _ in v), statistics.median(c for _, c in v)) for k, v in rows.items()}
print(f"medians of {sys.argv[3]}; CPU is that of the program and of clamd")
print(f"{'':10} {'seconds':>8} {'CPU s':>8}")
for k, (w, c) in m.items():
    print(f"{k:10} {w:8.1f} {c:8.1f}")
print(f"whole: {whole['files']} files, {whole['rss_mb']} MB of memory")
print(f"again / whole: {100 * m['again'][1] / m['whole'][1]:.2f} % of the CPU")
print(f"whole / clamd alone: {m['whole'][0] / m['clamd'][0]:.2f}")
if "trivy" in m:
    print(f"(clamscan + Trivy) / whole: {(m['clamscan'][0] + m['trivy'][0]) / m['whole'][0]:.2f}")
    print(f"(clamscan of the unpacked set + Trivy) / whole: {(m['unpacked'][0] + m['trivy'][0]) / m['whole'][0]:.2f}")
else:
    print("Trivy: NOT RUN, set TRIVY and TRIVY_DB")
PY
