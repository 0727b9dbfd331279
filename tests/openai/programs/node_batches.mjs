// `node node_batches.mjs URL KEY MODEL`: what programs do with the official package for Node.
import assert from "node:assert/strict";
import { createReadStream, openAsBlob, writeFileSync } from "node:fs";
import OpenAI from "openai";

const [url, key, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
const ended = ["completed", "failed", "expired", "cancelled"];

const body = { model, messages: [{ role: "user", content: "Hi" }], max_tokens: 4 };
const rows = ["a", "b"].map((custom_id) =>
  JSON.stringify({ custom_id, method: "POST", url: "/v1/chat/completions", body }),
);
writeFileSync("in.jsonl", rows.join("\n"));

// A stream goes out in chunks, which Functions does not hand on: it is told what to do instead.
await assert.rejects(
  client.files.create({ file: createReadStream("in.jsonl"), purpose: "batch" }),
  (error) => error.status === 411 && /openAsBlob/.test(error.message),
);
const content = new File([await openAsBlob("in.jsonl")], "in.jsonl");
const file = await client.files.create({ file: content, purpose: "batch" });
assert.equal(file.filename, "in.jsonl");
let batch = await client.batches.create({
  input_file_id: file.id,
  endpoint: "/v1/chat/completions",
  completion_window: "24h",
});
for (const deadline = Date.now() + 120_000; !ended.includes(batch.status); ) {
  assert.ok(Date.now() < deadline, batch.status);
  await new Promise((resolve) => setTimeout(resolve, 200));
  batch = await client.batches.retrieve(batch.id);
}
assert.equal(batch.status, "completed");
const answers = (await (await client.files.content(batch.output_file_id)).text()).trim();
assert.deepEqual(
  answers.split("\n").map((line) => JSON.parse(line).custom_id),
  ["a", "b"],
);

const upload = await client.uploads.create({
  bytes: 4, filename: "b.jsonl", mime_type: "text/plain", purpose: "batch",
});
const part = await client.uploads.parts.create(upload.id, { data: new File(["abcd"], "part") });
const whole = await client.uploads.complete(upload.id, { part_ids: [part.id] });
const found = [];
for await (const each of client.files.list({ limit: 1 })) found.push(each.id);
assert.deepEqual(found, [whole.file.id, file.id]);
await client.files.delete(file.id);
await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
await assert.rejects(client.batches.cancel(batch.id), OpenAI.ConflictError);
console.log("ok");
