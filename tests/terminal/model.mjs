// Stands in for a language model, so that coding agents can be recorded without one: `node model.mjs` listens on 127.0.0.1:4141.
//
// It speaks as much of the three common protocols as the agents need. The first answer of a conversation asks to run a command, so that
// the agent has something to ask permission for; the later ones are text with a list, code and wide characters.
import { createServer } from "node:http";

const TEXT = `I looked at **src/main.rs**. It counts words:

1. reads each line from standard input
2. splits it at white space
3. sorts by count — 世界 counts as one word 🎉

\`\`\`rust
let words = count(io::stdin().lock())?;
println!("{times:>6}  {word}");
\`\`\`

| file | lines |
|---|---|
| src/main.rs | 27 |
| README.md | 10 |

Shall I go on?`;

const COMMAND = "ls -la src docs";

/** Says `events` one after the other, slowly enough that a spinner turns. */
async function stream(response, events) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const event of events) {
    const name = event?.type === undefined ? "" : `event: ${event.type}\n`;
    response.write(`${name}data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  response.end();
}

const words = () => TEXT.match(/[\s\S]{1,24}/gu);

/** OpenAI's Responses. */
function responses(request) {
  const tools = (request.tools ?? []).map((tool) => tool.name);
  const tool = ["shell", "shell_command", "exec_command"].find((name) => tools.includes(name));
  const answered = request.input.some((item) => item.type === "function_call_output");
  const id = "resp_1";
  const usage = { input_tokens: 1200, input_tokens_details: null, output_tokens: 90, output_tokens_details: null, total_tokens: 1290 };
  const created = { type: "response.created", response: { id } };
  const completed = { type: "response.completed", response: { id, usage } };
  if (tool && !answered) {
    const given = { shell: { command: ["bash", "-lc", COMMAND] }, shell_command: { command: COMMAND }, exec_command: { cmd: COMMAND } }[tool];
    const escalate = { sandbox_permissions: "require_escalated", justification: "Look at the files of the project?" };
    const item = { type: "function_call", id: "fc_1", call_id: "call_1", name: tool, arguments: JSON.stringify({ ...given, ...escalate }) };
    return [created, { type: "response.output_item.done", output_index: 0, item }, completed];
  }
  const item = { type: "message", id: "msg_1", role: "assistant", content: [{ type: "output_text", text: TEXT, annotations: [] }] };
  const added = { type: "response.output_item.added", output_index: 0, item: { ...item, content: [] } };
  const deltas = words().map((delta) => ({ type: "response.output_text.delta", item_id: "msg_1", output_index: 0, content_index: 0, delta }));
  return [created, added, ...deltas, { type: "response.output_item.done", output_index: 0, item }, completed];
}

/** OpenAI's Chat Completions. */
function completions(request) {
  const chunk = (delta, finish_reason = null) => ({ id: "c1", object: "chat.completion.chunk", created: 0, model: "stand-in", choices: [{ index: 0, delta, finish_reason }] });
  const tool = (request.tools ?? []).find((tool) => tool.function.name === "bash");
  const answered = request.messages.some((message) => message.role === "tool");
  if (tool && !answered) {
    const call = { name: "bash", arguments: JSON.stringify({ command: COMMAND, description: "Lists the files" }) };
    return [chunk({ role: "assistant", tool_calls: [{ index: 0, id: "call_1", type: "function", function: call }] }), chunk({}, "tool_calls"), "[DONE]"];
  }
  return [chunk({ role: "assistant" }), ...words().map((content) => chunk({ content })), chunk({}, "stop"), "[DONE]"];
}

/** Google's generateContent. */
function gemini(request) {
  const chunk = (part, finishReason) => ({ candidates: [{ index: 0, content: { role: "model", parts: [part] }, finishReason }], usageMetadata: { promptTokenCount: 1200, candidatesTokenCount: 90, totalTokenCount: 1290 } });
  const asked = JSON.stringify(request.tools ?? []).includes("run_shell_command");
  const answered = JSON.stringify(request.contents).includes("functionResponse");
  if (asked && !answered) return [chunk({ functionCall: { name: "run_shell_command", args: { command: COMMAND, description: "Lists the files" } } }, "STOP")];
  const parts = words();
  return parts.map((text, index) => chunk({ text }, index + 1 === parts.length ? "STOP" : undefined));
}

createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  const asked = body === "" ? {} : JSON.parse(body);
  if (request.url.endsWith("/responses")) return stream(response, responses(asked));
  if (request.url.endsWith("/chat/completions")) return stream(response, completions(asked));
  if (request.url.includes(":streamGenerateContent")) return stream(response, gemini(asked));
  response.writeHead(request.method === "GET" ? 200 : 404, { "content-type": "application/json" });
  response.end(JSON.stringify({ object: "list", data: [{ id: "stand-in", object: "model" }], models: [] }));
}).listen(4141, "127.0.0.1");
