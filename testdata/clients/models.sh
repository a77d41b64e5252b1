#!/usr/bin/env bash
# The client matrix for models: huggingface_hub (newest with hf_xet, and old
# ones), hf, @huggingface/hub, transformers and sentence-transformers against
# the inside hub, and offline over the cache folders that it writes. make
# clients-models runs it. As root the inside runs in a network namespace whose
# only interface is the loopback, and what tries to leave it is counted.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
checks=$here/testdata/clients/models
fail() { echo "clients-models: $*" >&2; exit 1; }
ok() { printf 'ok    %s\n' "$*"; }

# ------------------------------------------------------------ inside, alone
if [ "${1:-}" = inside ]; then
	work=$2
	[ "$3" = no ] || ip link set lo up
	cd "$work/inside"
	"$dm" serve >serve.log 2>&1 &
	serve_pid=$!
	trap 'kill $serve_pid 2>/dev/null || :; wait 2>/dev/null || :' EXIT
	for _ in $(seq 100); do grep -q ^ready serve.log && break; sleep 0.1; done
	grep -q ^ready serve.log || fail "serve did not start: $(cat serve.log)"
	# The environment is the one that users are told to set, and nothing else.
	"$dm" clients huggingface -o json >settings.json 2>/dev/null
	python3 -c 'import json; print("".join(t["content"] for t in json.load(open("settings.json"))["tools"] if t["file"].endswith(".sh")))' >env.sh
	clean() { env -i TQDM_DISABLE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 PATH="$PATH" HOME="$work/home" TMPDIR="$work/tmp" PYTHONPATH="$checks" MATRIX_ROOT="$work/hub" MATRIX_COMMITS="$work/commits.json" MATRIX_TOKEN="$work/team.token" "$@"; }
	online() { clean bash -c '. "$1"; shift; exec "$@"' - "$work/inside/env.sh" "$@"; }
	offline() { clean HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 "$@"; }
	mkdir -p "$work/home" "$work/tmp"
	for v in new 0.36.0 1.29.0; do
		online "$work/venv-$v/bin/python" "$checks/hub.py"
	done
	hf=$work/venv-new/bin/hf
	version=$(online "$hf" version 2>/dev/null | grep -Eo '[0-9]+\.[0-9]+\.[0-9]+' | head -1)
	online "$hf" download team/embedder --quiet --local-dir "$work/tmp/embedder" >/dev/null
	online "$work/venv-new/bin/python" -c 'import sys; from common import *; same("model", "team/embedder", sys.argv[1])' "$work/tmp/embedder"
	ok "hf $version: download, files equal"
	online "$hf" download team/embedder >/dev/null
	online "$hf" cache verify team/embedder >"$work/verify.log" 2>&1 || fail "hf cache verify: $(cat "$work/verify.log")"
	online "$hf" cache verify team/embedder --local-dir "$work/tmp/embedder" >"$work/verify.log" 2>&1 || fail "hf cache verify --local-dir: $(cat "$work/verify.log")"
	ok "hf $version: cache verify of a cache and of a folder"
	(cd "$work/npm" && online node hub.mjs "$(node -p 'require("@huggingface/hub/package.json").version')")
	online "$work/venv-new/bin/python" "$checks/engines.py" "from the hub"

	kill $serve_pid
	wait $serve_pid || :
	if [ "$3" != no ]; then # nobody may write there, root neither
		mkdir -p "$work/readonly"
		mount --bind "$work/inside/cache" "$work/readonly"
		mount -o remount,ro,bind "$work/readonly"
	fi
	for v in new 0.36.0 1.29.0; do
		offline "$work/venv-$v/bin/python" "$checks/offline.py" "$work/inside/cache" "links"
		offline "$work/venv-$v/bin/python" "$checks/offline.py" "$work/inside/plain" "plain files"
		[ "$3" = no ] || offline "$work/venv-$v/bin/python" "$checks/offline.py" "$work/readonly" "read-only mount"
	done
	for c in cache plain; do
		offline HF_HUB_CACHE="$work/inside/$c" "$work/venv-new/bin/python" "$checks/engines.py" "offline, $c"
	done
	if [ "$3" != no ]; then
		umount "$work/readonly"
		tried=$(awk '/^Ip: [0-9]/ { print $13 }' /proc/net/snmp)
		[ "$tried" = 0 ] || fail "something tried to leave: $tried packets had no route"
		ok "nothing tried to leave the loopback"
	fi
	exit 0
fi

# ------------------------------------------------------------------ outside
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-models.XXXXXX")
hub_pid=
cleanup() {
	status=$?
	[ -z "$hub_pid" ] || kill "$hub_pid" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
bash testdata/clients/models/venvs.sh "$here/.cache/models" || fail "the clients could not be installed"
for v in new 0.36.0 1.29.0; do ln -s "$here/.cache/models/venv-$v" "$work/venv-$v"; done
cp -r "$here/.cache/models/npm" "$work/npm"
cp "$checks/hub.mjs" "$work/npm/"
python=$work/venv-new/bin/python
mkdir -p "$work/hub" "$work/outside" "$work/inside"
HF_HUB_OFFLINE=1 "$python" "$checks/make.py" "$work/hub" "$here/.cache/models/embedder" 2>"$work/make.log" || fail "$(tail -3 "$work/make.log")"
mkdir -p "$work/hub/models/team/closed"
echo '{"model_type": "bert"}' >"$work/hub/models/team/closed/config.json"
CGO_ENABLED=0 go build -o "$work/fakehub" ./bench/hub
"$work/fakehub" -dir "$work/hub" -tag team/tiny-llama=v1.0 -xet >"$work/hub.log" 2>&1 &
hub_pid=$!
for _ in $(seq 100); do grep -q ^hub "$work/hub.log" && break; sleep 0.1; done
read -r _ hub _ cdn <"$work/hub.log" || fail "the hub did not start: $(cat "$work/hub.log")"
cd "$work/outside"
cat >darkmirror.yaml <<YAML
version: 1
role: outside
state_dir: state
signing_key: signing.key
models:
  - name: llm
    hub: $hub
    allow_http: true
    allow_hosts: ["${cdn#http://}"]
    repositories: [team/tiny-llama, team/tiny-llama@v1.0, team/embedder, team/closed, datasets/team/questions]
YAML
"$dm" key generate --name exporter-models >/dev/null
"$dm" export
kill "$hub_pid"
wait "$hub_pid" || :
hub_pid=
cd "$work/inside"
echo a-token-of-the-team >"$work/team.token"
cat >darkmirror.yaml <<YAML
version: 1
role: inside
state_dir: state
inbox: [$work/outside/state/outbox]
models:
  - name: llm
    cache: {dir: cache}
    access:
      - repositories: [team/closed]
        tokens: [{name: team, file: $work/team.token}]
        ask: platform@site.example
serve:
  listen: 127.0.0.1:18090
YAML
"$dm" key trust ../outside/*.pub >/dev/null
"$dm" import
sed -e 's/{dir: cache}/{dir: plain, links: none}/' -e 's/^state_dir: state/state_dir: state-plain/' darkmirror.yaml >plain.yaml
"$dm" --config plain.yaml key trust ../outside/*.pub >/dev/null
"$dm" --config plain.yaml import -q
"$dm" models list -o json >models.json
python3 -c 'import json; print(json.dumps({r["repo"].removeprefix("datasets/"): r["commit"] for r in json.load(open("models.json"))["revisions"]}))' >"$work/commits.json"
cd "$here"
if [ "$(id -u)" = 0 ]; then
	unshare --net --mount bash "$0" inside "$work" yes | tee "$work/log"
else
	echo "not root: no namespace, so that nothing calls out is not proven by this run"
	bash "$0" inside "$work" no | tee "$work/log"
fi
printf '%s passed, 0 failed\n' "$(grep -c '^ok' "$work/log")"
