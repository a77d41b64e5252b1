#!/usr/bin/env bash
# The conformance program of the OCI distribution specification, unchanged,
# against bin/darkmirror serve: every API, and every kind of data but sparse
# manifests, which darkmirror refuses. Once where everybody may pull, once
# where pulling needs a token. The script fails if one check failed or was
# skipped. The reports of the last run are left in .cache/conformance.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
version=v0.0.0-20260831232431-97274622c111
tool=$here/.cache/tools/conformance-$version
fail() { echo "conformance: $*" >&2; exit 1; }

if [ ! -x "$tool" ]; then
	mkdir -p "$here/.cache/tools"
	bin=$(mktemp -d)
	GOFLAGS=-mod=mod GOBIN=$bin go install "github.com/opencontainers/distribution-spec/conformance@$version"
	mv "$bin/conformance" "$tool"
	rmdir "$bin"
fi
[ -x bin/darkmirror ] || fail "bin/darkmirror is missing: make build"

work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-conformance.XXXXXX")
serve_pid=
cleanup() {
	status=$?
	[ -z "$serve_pid" ] || kill "$serve_pid" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT

# check NAME EXTRA-LINES-OF-SERVE
check() {
	mkdir -p "$work/$1/inbox" "$here/.cache/conformance/$1"
	cd "$work/$1"
	(umask 077 && echo push-token-of-this-test >push.token && echo pull-token-of-this-test >pull.token)
	cat >darkmirror.yaml <<-YAML
		version: 1
		role: inside
		state_dir: state
		inbox: [inbox]
		oci:
		  - name: conformance
		serve:
		  push_token_file: push.token
		$2
	YAML
	"$here/bin/darkmirror" serve --config darkmirror.yaml --listen 127.0.0.1:0 >serve.log 2>&1 &
	serve_pid=$!
	for _ in $(seq 100); do grep -q ^ready serve.log 2>/dev/null && break; sleep 0.1; done
	at=$(sed -n 's,^serving on http://,,p' serve.log)
	[ -n "$at" ] || fail "serve did not start: $(cat serve.log)"
	results=$here/.cache/conformance/$1
	env OCI_REGISTRY="$at" OCI_TLS=disabled OCI_VERSION=1.1 OCI_LOG=error OCI_RESULTS_DIR="$results" \
		OCI_REPO1=conformance/repo1 OCI_REPO2=conformance/repo2 OCI_USERNAME=anybody OCI_PASSWORD=push-token-of-this-test \
		OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_BLOBS_UPLOAD_CANCEL=true \
		OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_API_MANIFESTS_TAG_PARAM=true \
		"$tool" >conformance.log 2>&1 || { cat conformance.log >&2; fail "$1: the program failed"; }
	count() { sed -n "s/^  $1\.*: *\([0-9]*\)\$/\1/p" conformance.log | head -1; }
	[ "$(count FAIL)" = 0 ] && [ "$(count Error)" = 0 ] && [ "$(count Skip)" = 0 ] || { cat conformance.log >&2; fail "$1: not everything passed"; }
	[ "$(count Pass)" -ge 980 ] || { cat conformance.log >&2; fail "$1: only $(count Pass) checks ran"; }
	rss=$(awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$serve_pid/status" 2>/dev/null || echo '?')
	printf 'ok    %-8s %s passed, none failed, none skipped; server at most %s MiB\n' "$1" "$(count Pass)" "$rss"
	kill "$serve_pid"
	wait "$serve_pid" || fail "$1: serve ended with an error: $(tail -3 serve.log)"
	serve_pid=
	cd "$here"
}

check open ""
check closed "  pull_token_file: pull.token"
