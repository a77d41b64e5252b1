#!/bin/sh
# Holds pypi/packaging to the library of that name, on the vectors of the
# library's own tests and on many made from them:
#
#   sh testdata/packaging/run.sh          compare; exit 1 on a difference
#   sh testdata/packaging/run.sh write    also write the sample that go test reads
#
# The library and its tests come from this host's own package index, by hash.
# The tests run with every call of the library written down (record.py), the
# library is asked for the answers (answer.py), and the tests TestVectors* of
# pypi/packaging compare. What may differ stands in docs/packaging.md, and is
# counted here by rule.
set -eu
cd "$(dirname "$0")/../.."
here=$PWD
case ${1:-} in
'' | write) ;;
*)
	echo "usage: run.sh [write]" >&2
	exit 2
	;;
esac
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-packaging.XXXXXX")
trap 'rm -rf "$work"' EXIT
python=$work/venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

python3 -m venv "$work/venv"
"$python" -m pip install -q --no-deps --only-binary :all: -r testdata/packaging/requirements.txt
"$python" -m pip install -q --no-deps --only-binary :all: --require-hashes -r testdata/packaging/library.txt
"$python" -m pip download -q --no-deps --no-binary :all: --no-build-isolation --require-hashes -d "$work" -r testdata/packaging/library.txt
tar -xzf "$work"/packaging-26.3.tar.gz -C "$work"

echo "running the library's tests"
(
	cd "$work/packaging-26.3"
	PYTHONPATH=$here/testdata/packaging "$python" -m pytest -q -p no:cacheprovider -m "property or not property" \
		--hypothesis-seed=26 -p record --record "$work/recorded.json" >"$work/pytest.log" 2>&1
) || {
	tail -40 "$work/pytest.log" >&2
	echo "packaging: the library's own tests fail" >&2
	exit 1
}
tail -1 "$work/pytest.log"
"$python" testdata/packaging/record.py "$work/recorded.json"

"$python" -W ignore testdata/packaging/answer.py "$work/recorded.json" full >"$work/vectors.json"
if [ "${1:-}" = write ]; then
	"$python" -W ignore testdata/packaging/answer.py "$work/recorded.json" small >"$work/small.json"
	mv "$work/small.json" pypi/packaging/testdata/vectors.json
	chmod 644 pypi/packaging/testdata/vectors.json
fi

status=0
PACKAGING_VECTORS=$work/vectors.json ${GO:-go} test -count=1 -v -run '^TestVectors' ./pypi/packaging >"$work/compare.log" 2>&1 || status=1
sed -n 's/^ *vectors[a-z_]*_test.go:[0-9]*: VECTORS //p' "$work/compare.log"
areas=$(grep -c 'VECTORS .*, 0 differences' "$work/compare.log" || :)
if [ $status != 0 ] || [ "$areas" -lt 18 ]; then
	grep -v VECTORS "$work/compare.log" | cut -c1-400 | head -60 >&2
	echo "packaging: pypi/packaging and the library differ, or an area is missing ($areas of 18 agree)" >&2
	exit 1
fi
echo "pypi/packaging agrees with packaging 26.3 in $areas areas: 0 differences beside the rules of docs/packaging.md"
