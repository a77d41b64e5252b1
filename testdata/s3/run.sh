#!/bin/sh
# A real S3 server as a target of models. versitygw runs on loopback, over a
# folder; another client, boto3, reads what there is.
#
#   tests    the Go tests with the tag s3server: two sets, damage below the
#            server, refusals, and a file of 256 MiB whose upload is killed -9 in
#            its middle and goes on
#   program  a model goes out of a folder, through a bundle, and into the
#            bucket; then it changes
set -eu
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
versitygw_version=v1.8.0
versitygw=$here/.cache/tools/versitygw-$versitygw_version
venv=$here/.cache/s3
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-s3.XXXXXX")
pid=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	status=$?
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM
fail() { echo "s3: $*" >&2; exit 1; }

[ -x "$dm" ] || fail "bin/darkmirror is missing: make build"
sh testdata/need.sh clients >/dev/null
mkdir -p "$here/.cache/tools"
if [ ! -x "$versitygw" ]; then
	mkdir "$work/gobin"
	GOFLAGS=-mod=mod GOBIN=$work/gobin CGO_ENABLED=0 go install "github.com/versity/versitygw/cmd/versitygw@$versitygw_version"
	mv "$work/gobin/versitygw" "$versitygw"
fi
wanted=$(sha256sum <testdata/s3/requirements.txt)
if [ "$(cat "$venv.made" 2>/dev/null)" != "$wanted" ]; then
	rm -rf "$venv" "$venv.made"
	python3 -m venv "$venv"
	"$venv/bin/python" -m pip install -q --disable-pip-version-check -r testdata/s3/requirements.txt
	printf '%s' "$wanted" >"$venv.made"
fi

# ------------------------------------------------------------ the server
export S3_ACCESS=access-key-of-the-test S3_SECRET=secret-key-of-the-test
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export S3="http://127.0.0.1:$port"
mkdir "$work/data"
env -i PATH="$PATH" HOME="$work" ROOT_ACCESS_KEY=$S3_ACCESS ROOT_SECRET_KEY=$S3_SECRET \
	"$versitygw" --quiet --port "127.0.0.1:$port" posix "$work/data" >"$work/server.log" 2>&1 &
pid=$!
n=0
until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null; do
	n=$((n + 1))
	[ $n -lt 100 ] || { cat "$work/server.log" >&2; fail "the server does not listen"; }
	sleep 0.1
done
boto3() { env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY HOME="$work" AWS_EC2_METADATA_DISABLED=true "$venv/bin/python" testdata/s3/read.py "$@"; }
boto3 bucket

# ------------------------------------------------------------ tests
CGO_ENABLED=0 go test -c -tags s3server -o "$work/s3.test" ./models/s3
DARKMIRROR_S3=$S3 DARKMIRROR_S3_DATA=$work/data DARKMIRROR_S3_WANT=$work/want.json \
	"$work/s3.test" -test.run '^TestServer' -test.v -test.timeout 5m >"$work/tests.log" 2>&1 || { cat "$work/tests.log" >&2; fail "the Go tests"; }
grep -hE '^--- PASS|killed at' "$work/tests.log" | sed -E 's/^ *server_test.go:[0-9]+: /         /; s/^--- PASS: /tests    /'
[ "$(grep -c '^--- PASS: TestServer' "$work/tests.log")" = 3 ] || fail "not every test has run"
boto3 want "$work/want.json"

# ------------------------------------------------------------ program
model=$work/hub/team/model
mkdir -p "$model/sub folder" "$work/outside" "$work/inside" "$work/box"
head -c 40000000 /dev/urandom >"$model/model-00001-of-00002.safetensors"
head -c 3000000 /dev/urandom >"$model/model-00002-of-00002.safetensors"
printf '{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}' >"$model/model.safetensors.index.json"
echo '{"model_type":"bert"}' >"$model/config.json"
echo odd >"$model/sub folder/ü+%20.txt"
: >"$model/__init__.py"
cat >"$work/outside/darkmirror.yaml" <<YML
version: 1
role: outside
state_dir: state
outbox: ../box
signing_key: signing.key
scan: {models: {hold: [critical]}, unscanned: warn} # the weights are noise
models:
  - name: llm
    folder: $work/hub
    repositories: [team/model]
YML
cat >"$work/inside/darkmirror.yaml" <<YML
version: 1
role: inside
state_dir: state
inbox: [../box]
models:
  - name: llm
    s3:
      endpoint: $S3
      allow_http: true
      bucket: bucket
      prefix: imported/llm
      access_key_file: access
      secret_key_file: secret
YML
(umask 077 && printf '%s\n' "$S3_ACCESS" >"$work/inside/access" && printf '%s\n' "$S3_SECRET" >"$work/inside/secret")
(cd "$work/outside" && "$dm" key generate --name exporter-test >/dev/null)
(cd "$work/inside" && "$dm" key trust "$work/outside/signing.key.pub" >/dev/null)
carry() {
	(cd "$work/outside" && "$dm" export >export.log 2>&1) || { cat "$work/outside/export.log" >&2; fail export; }
	(cd "$work/inside" && "$dm" import >>import.log 2>&1) || { cat "$work/inside/import.log" >&2; fail import; }
	boto3 folder imported/llm team/model "$model" 2>"$work/commit"
	commit=$(tail -1 "$work/commit")
}
commits() { boto3 commits imported/llm team/model; }
carry
first=$commit
[ "$(commits)" = "$first" ] || fail "there is more than $first: $(commits)"
echo '{"model_type":"roberta"}' >"$model/config.json"
carry
[ "$commit" != "$first" ] || fail "refs/main still names $first"
echo '{"model_type":"deberta"}' >"$model/config.json"
second=$commit
carry # keep_revisions is 1: the first goes
[ "$(commits)" = "$(printf '%s\n' "$second" "$commit" | LC_ALL=C sort | xargs)" ] || fail "the commits are $(commits)"
! grep -rqF -e "$S3_SECRET" "$work/inside/state" "$work/inside/import.log" || fail "the secret key is in the state or the log"
echo "s3: all as it went out"
