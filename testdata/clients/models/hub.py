"""huggingface_hub against the inside hub; also old versions of it."""
import os
import tempfile

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download

from common import COMMITS, ok, raises, same

tool = f"huggingface_hub {huggingface_hub.__version__}"
try:
    import hf_xet  # noqa: F401
    from importlib.metadata import version
    tool += f" with hf_xet {version('hf_xet')}"
except ImportError:
    pass
model, commit = "team/tiny-llama", COMMITS["team/tiny-llama"]
cache = tempfile.mkdtemp()

n = same("model", model, snapshot_download(model, cache_dir=cache))
ok(f"{tool}: snapshot_download, {n} files equal")
for revision in ("main", "v1.0", commit):
    path = snapshot_download(model, revision=revision, cache_dir=tempfile.mkdtemp())
    same("model", model, path)
    assert path.endswith(commit), path
ok(f"{tool}: by branch, tag and commit")
same("model", "team/embedder", snapshot_download("team/embedder", local_dir=tempfile.mkdtemp()))
ok(f"{tool}: into a local folder, with folders in it")
same("dataset", "team/questions", snapshot_download("team/questions", repo_type="dataset", cache_dir=cache))
ok(f"{tool}: a dataset")
assert open(hf_hub_download(model, "a folder/notes+more.txt", cache_dir=cache)).read().startswith("a name")
raises("EntryNotFoundError", lambda: hf_hub_download(model, "adapter_config.json", cache_dir=cache))
raises("RepositoryNotFoundError", lambda: snapshot_download("team/nothing", cache_dir=cache))
raises("RevisionNotFoundError", lambda: snapshot_download(model, revision="nothing", cache_dir=cache))
raises("GatedRepoError", lambda: hf_hub_download("team/closed", "config.json", cache_dir=cache))
token = open(os.environ["MATRIX_TOKEN"]).read().strip()
hf_hub_download("team/closed", "config.json", cache_dir=cache, token=token)
ok(f"{tool}: errors are those of the hub; a token opens what is closed")
api = HfApi()
info = api.model_info(model, files_metadata=True)
assert info.sha == commit and all(s.size is not None for s in info.siblings), info
tree = {e.path: e for e in api.list_repo_tree(model, recursive=True)}
assert "a folder" in tree and "a folder/notes+more.txt" in tree, sorted(tree)
assert [e.path for e in api.get_paths_info(model, ["config.json", "nothing"])] == ["config.json"]
assert {b.name for b in api.list_repo_refs(model).branches} == {"main"}
assert {t.name for t in api.list_repo_refs(model).tags} | {b.name for b in api.list_repo_refs(model).branches} >= {"main"}
assert api.list_repo_commits(model)[0].commit_id == commit
assert {m.id for m in api.list_models(author="team")} >= {model, "team/embedder"}
meta = api.get_safetensors_metadata(model)
assert meta.sharded and len(meta.files_metadata) > 1, meta
ok(f"{tool}: info, tree, paths, refs, commits, list, safetensors metadata of {len(meta.files_metadata)} shards")
fs = HfFileSystem()
assert any(p.endswith("config.json") for p in fs.ls(model, detail=False))
with fs.open(f"{model}/README.md") as f:
    assert b"Random weights" in f.read()
with fs.open(f"{model}/{next(iter(meta.files_metadata))}") as f:
    f.seek(8)
    assert f.read(2) == b'{"'
ok(f"{tool}: HfFileSystem lists, reads, seeks")
