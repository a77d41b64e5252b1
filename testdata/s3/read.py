"""What boto3 finds in the bucket after the tests and the imports.

read.py bucket                     makes it
read.py want FILE                  the objects that FILE lists with their SHA-256, and no other below their prefixes
read.py folder PREFIX NAME FOLDER  the model NAME, by its refs/main, has the files of FOLDER
read.py commits PREFIX NAME        prints the commits of the model that are there

S3 names the server, S3_ACCESS and S3_SECRET the keys.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import boto3

s3 = boto3.client(
    "s3",
    endpoint_url=os.environ["S3"],
    aws_access_key_id=os.environ["S3_ACCESS"],
    aws_secret_access_key=os.environ["S3_SECRET"],
    region_name="us-east-1",
)


def names(prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
    return {o["Key"] for p in pages for o in p.get("Contents", []) if "/.darkmirror/" not in o["Key"]}


def digest(key):
    h = hashlib.sha256()
    for chunk in s3.get_object(Bucket="bucket", Key=key)["Body"].iter_chunks(1 << 20):
        h.update(chunk)
    return h.hexdigest()


def same(prefix, want):
    got = {k: digest(k) for k in names(prefix)}
    assert want and got == want, f"{prefix}: want {sorted(want.items())}, got {sorted(got.items())}"
    for up in s3.list_multipart_uploads(Bucket="bucket", Prefix=prefix).get("Uploads", []):
        raise AssertionError(f"an upload of {up['Key']} is open")
    return len(got)


match sys.argv[1:]:
    case ["bucket"]:
        s3.create_bucket(Bucket="bucket")
    case ["want", file]:
        want = json.loads(Path(file).read_text())
        prefixes = {k.split("/", 1)[0] + "/" for k in want}
        n = sum(same(p, {k: d for k, d in want.items() if k.startswith(p)}) for p in prefixes)
        print(f"boto3    {n} objects of the Go tests, each with its SHA-256")
    case ["folder", prefix, name, folder]:
        base = f"{prefix}/{name}/"
        commit = s3.get_object(Bucket="bucket", Key=base + "refs/main")["Body"].read().decode()
        assert len(commit) == 40, commit
        files = [f for f in Path(folder).rglob("*") if f.is_file()]
        n = same(f"{base}{commit}/", {f"{base}{commit}/{f.relative_to(folder)}": hashlib.sha256(f.read_bytes()).hexdigest() for f in files})
        print(f"boto3    s3://bucket/{base}{commit}/  {n} files, as they went out")
        print(commit, file=sys.stderr)
    case ["commits", prefix, name]:
        base = f"{prefix}/{name}/"
        print(*sorted({k.removeprefix(base).split("/")[0] for k in names(base)} - {"refs"}))
    case _:
        sys.exit(__doc__)
