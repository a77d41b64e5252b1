#!/bin/sh
# No upstream host may be built in. The names that this host's own clients are
# configured with must not occur in any file of the project.
set -eu
cd "$(dirname "$0")/.."
hosts=$(
	{
		go env GOPROXY GOSUMDB | tr ',|' '\n\n'
		cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -oE 'https?://[^ ]+' || :
		python3 -c 'from pip._internal.models.index import PyPI as p; print(p.simple_url); print(p.file_storage_domain)' 2>/dev/null || :
		npm config get registry 2>/dev/null || :
	} | sed -E 's#^[a-z+]+://##; s#^[^@/]*@##; s#[/:].*$##' | grep -E '^[a-z0-9.-]+\.[a-z]{2,}$' | grep -vE '^(localhost|127\.)' | sort -u
)
found=0
for h in $hosts; do
	if git grep -nIF --untracked -e "$h" -- . ':!*.sum'; then
		echo "no-upstreams: $h is built in" >&2
		found=1
	fi
done
exit $found
