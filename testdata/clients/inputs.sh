#!/usr/bin/env bash
# Locks and requirements files against the programs that make and read them:
# what is read of a fresh uv.lock is what uv would install, what is read of a
# requirements file is what pip reads, and locks that were rewritten install
# from a server on loopback alone. The clients and the packages come from this
# host's own index. Each line says what was held against what.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-inputs.XXXXXX")
serve_pid=
cleanup() {
	status=$?
	[ -z "$serve_pid" ] || kill "$serve_pid" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
fail() { echo "inputs: $*" >&2; exit 1; }
ok() { printf 'ok    %s\n' "$*"; }

python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q "uv==${UV:-0.12.5}" "pip==${PIP:-26.3}"
uv=$work/venv/bin/uv
export UV_CACHE_DIR=$work/cache UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1

# 1. What is read of a lock.
"$work/venv/bin/python" "$here/testdata/clients/uv_locks.py" "$uv" "$here/pypi/testdata/uv" "$work/fresh" >"$work/log" || fail "$(cat "$work/log")"
DARKMIRROR_UV_LOCKS=$work/fresh go test -count=1 -run '^TestUVLocks$' ./pypi >"$work/test" || fail "$(cat "$work/test")"
ok "$(tail -1 "$work/log" | sed 's/^uv_locks: //'): the same pins are read"

# 2. What is read of a requirements file.
"$work/venv/bin/python" "$here/testdata/clients/req_files.py" >"$work/requirements.json" 2>/dev/null
cmp "$work/requirements.json" "$here/pypi/testdata/requirements.json" || fail "pip ${PIP:-26.3} reads requirements files in another way than was recorded"
go test -count=1 -run '^TestRequirementsAsPip$' ./pypi >"$work/test" || fail "$(cat "$work/test")"
ok "pip ${PIP:-26.3}: $(grep -c '"files": {' "$work/requirements.json") requirements files, as recorded and as read"

# 3. Locks that were rewritten.
mkdir "$work/app"
cd "$work/app"
cat >pyproject.toml <<'TOML'
[project]
name = "app"
version = "1"
requires-python = ">=3.9"
dependencies = ["anyio", "click>=8", "markupsafe"]
TOML
"$uv" lock -q
"$uv" export -q --frozen --no-emit-project --format pylock.toml -o pylock.toml
"$uv" export -q --frozen --no-emit-project --emit-index-url --format requirements-txt -o requirements.txt
cp uv.lock uv.lock.outside
# Where the lock was made: its index, and the host of its files.
registry=$(sed -nE 's/.*registry = "([^"]+)".*/\1/p' uv.lock | sort -u)
files=$(grep -oE 'url = "https?://[^/"]+/packages' uv.lock | sed 's/url = "//' | sort -u)
[ "$(echo "$registry" "$files" | wc -w)" = 2 ] || fail "want one index and one host of files in the lock, got $registry $files"
grep -oE "$files/[^\"]+" uv.lock | sort -u >urls
mkdir -p "$work/www"
while read -r url; do
	file=$work/www/packages/${url#"$files"/}
	mkdir -p "$(dirname "$file")"
	curl -fsS --retry 3 -o "$file" "$url"
done <urls
# A page a project, for pip.
python3 - "$work/www" <<'PY'
import hashlib, html, pathlib, re, sys
root = pathlib.Path(sys.argv[1])
pages = {}
for f in sorted((root / "packages").rglob("*")):
    if f.is_file():
        name = re.sub(r"[-_.]+", "-", re.split(r"-\d", f.name)[0]).lower()
        digest = hashlib.sha256(f.read_bytes()).hexdigest()
        pages.setdefault(name, []).append(f'<a href="/{f.relative_to(root)}#sha256={digest}">{html.escape(f.name)}</a>')
for name, links in pages.items():
    (root / "simple" / name).mkdir(parents=True)
    (root / "simple" / name / "index.html").write_text("<!DOCTYPE html>" + "\n".join(links))
PY
(cd "$work/www" && exec python3 -u -m http.server --bind 127.0.0.1 0) >"$work/www.log" 2>&1 &
serve_pid=$!
for _ in $(seq 100); do grep -q 'Serving HTTP' "$work/www.log" && break; sleep 0.1; done
port=$(sed -nE 's/.* port ([0-9]+) .*/\1/p' "$work/www.log")
[ -n "$port" ] || fail "no server: $(cat "$work/www.log")"
inside=http://127.0.0.1:$port
(cd "$here" && go build -o "$work/rewrite" ./pypi/testdata/rewrite)
for f in uv.lock pylock.toml requirements.txt; do
	"$work/rewrite" "$f" "$registry=$inside/simple" "$files=$inside/packages" >"$work/log" || fail "$f"
	grep -q '^[1-9]' "$work/log" || fail "$f: $(cat "$work/log")"
	cp "$f" "$f.once"
	"$work/rewrite" "$f" "$registry=$inside/simple" "$files=$inside/packages" >"$work/log"
	cmp "$f" "$f.once" || fail "$f: rewriting again changes it"
	if grep -q "$files\|$registry" "$f"; then fail "$f still names the outside"; fi
done
# Nothing but loopback: every other way leads to a proxy that is not there.
alone() {
	env -u PIP_INDEX_URL -u PIP_FIND_LINKS -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_INDEX UV_NO_CONFIG=1 PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 \
		HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 ALL_PROXY=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 \
		NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 UV_CACHE_DIR="$work/cache-$1" PIP_NO_CACHE_DIR=1 "${@:2}"
}
check() { "$1" -c 'import anyio, click, markupsafe'; }

cp uv.lock uv.lock.inside
cp uv.lock.outside uv.lock
if alone 0 "$uv" sync -q --frozen 2>/dev/null; then fail "the lock as it was installs too: the proxy does not hold"; fi
cp uv.lock.inside uv.lock
alone 1 "$uv" sync -q --frozen || fail "uv sync --frozen"
check .venv/bin/python
ok "uv ${UV:-0.12.5} sync --frozen: a rewritten uv.lock from loopback alone; the lock as it was does not"
python3 -m venv "$work/v2"
alone 2 "$uv" pip sync -q --python "$work/v2/bin/python" pylock.toml || fail "uv pip sync pylock.toml"
check "$work/v2/bin/python"
ok "uv pip sync: a rewritten pylock.toml"
alone 3 "$work/venv/bin/python" -m pip --python "$work/v2/bin/python" install -q --force-reinstall --require-hashes -r requirements.txt || fail "pip install -r requirements.txt"
check "$work/v2/bin/python"
ok "pip ${PIP:-26.3} install --require-hashes: a rewritten requirements file"
alone 4 "$work/venv/bin/python" -m pip --python "$work/v2/bin/python" install -q --force-reinstall -r pylock.toml 2>"$work/log" || fail "pip install -r pylock.toml: $(cat "$work/log")"
check "$work/v2/bin/python"
ok "pip ${PIP:-26.3} install -r: a rewritten pylock.toml"
