"""huggingface_hub with HF_HUB_OFFLINE=1 over a cache folder. Usage: offline.py CACHE WHAT"""
import sys

import huggingface_hub
from huggingface_hub import hf_hub_download, snapshot_download

from common import COMMITS, ok, raises, same

cache, what = sys.argv[1:]
tool = f"huggingface_hub {huggingface_hub.__version__} offline, {what}"
model, commit = "team/tiny-llama", COMMITS["team/tiny-llama"]
for revision in (None, "main", "v1.0", commit):
    n = same("model", model, snapshot_download(model, revision=revision, cache_dir=cache))
    assert hf_hub_download(model, "config.json", revision=revision, cache_dir=cache).endswith(f"{commit}/config.json")
ok(f"{tool}: by name, branch, tag, commit and single file, {n} files equal")
assert snapshot_download(model, cache_dir=cache, local_files_only=True, ignore_patterns="*").endswith(commit)
same("dataset", "team/questions", snapshot_download("team/questions", repo_type="dataset", cache_dir=cache))
raises("LocalEntryNotFoundError", lambda: hf_hub_download(model, "adapter_config.json", cache_dir=cache))
ok(f"{tool}: vLLM's look-up of a path; a dataset; what is missing is missing")
