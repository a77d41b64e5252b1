// @huggingface/hub against the inside hub. Usage: node hub.mjs VERSION
import assert from "node:assert";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { downloadFile, fileDownloadInfo, fileExists, listFiles, listModels, modelInfo, pathsInfo, snapshotDownload } from "@huggingface/hub";

const hubUrl = process.env.HF_ENDPOINT;
const repo = "team/tiny-llama";
const root = path.join(process.env.MATRIX_ROOT, "models", repo);
const commit = JSON.parse(fs.readFileSync(process.env.MATRIX_COMMITS))[repo];
const sha = (bytes) => crypto.createHash("sha256").update(bytes).digest("hex");
const tool = `@huggingface/hub ${process.argv[2]}`;

let n = 0;
for await (const f of listFiles({ repo, hubUrl, recursive: true })) {
	if (f.type !== "file") continue;
	const blob = await downloadFile({ repo, path: f.path, hubUrl });
	assert.ok(blob, f.path);
	assert.equal(sha(Buffer.from(await blob.arrayBuffer())), sha(fs.readFileSync(path.join(root, f.path))), f.path);
	n++;
}
assert.ok(n > 5);
console.log(`ok    ${tool}: listFiles, downloadFile, ${n} files equal`);
assert.equal((await modelInfo({ name: repo, hubUrl, additionalFields: ["sha"] })).sha, commit);
assert.equal(await fileExists({ repo, path: "adapter_config.json", hubUrl }), false);
const info = await fileDownloadInfo({ repo, path: "config.json", hubUrl });
assert.equal(info.size, fs.statSync(path.join(root, "config.json")).size);
const [one] = await pathsInfo({ repo, paths: ["config.json"], hubUrl });
assert.equal(one.path, "config.json");
const names = [];
for await (const m of listModels({ search: { owner: "team" }, hubUrl })) names.push(m.name);
assert.ok(names.includes(repo), names.join());
console.log(`ok    ${tool}: modelInfo, fileExists, fileDownloadInfo, pathsInfo, listModels`);
const dir = await snapshotDownload({ repo, hubUrl, cacheDir: fs.mkdtempSync("/tmp/darkmirror-npm-") });
assert.equal(sha(fs.readFileSync(path.join(dir, "config.json"))), sha(fs.readFileSync(path.join(root, "config.json"))));
fs.rmSync(path.resolve(dir, "../../.."), { recursive: true });
console.log(`ok    ${tool}: snapshotDownload`);
