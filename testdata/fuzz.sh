#!/bin/sh
# Runs every fuzz test of the project for a time each; fails at the first
# finding, which go test leaves in testdata/fuzz of the package.
set -eu
time=${1:-10s}
cd "$(dirname "$0")/.."
n=0
for file in $(git ls-files -co --exclude-standard '*_test.go' | xargs grep -lE '^func Fuzz' | sort); do
	for name in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$file"); do
		echo "== ./$(dirname "$file") $name"
		go test -run '^$' -fuzz "^$name\$" -fuzzminimizetime 10x -fuzztime "$time" "./$(dirname "$file")"
		n=$((n + 1))
	done
done
[ "$n" -gt 0 ] || { echo "no fuzz test found" >&2; exit 1; }
echo "$n fuzz tests, $time each"
