// A readable page from /openapi.json.

const element = (name, text = "", ...children) => {
  const made = document.createElement(name);
  made.append(text, ...children);
  return made;
};

/** Text in which `code` stands between backquotes, as Markdown has it. */
const prose = (name, text = "") => element(name, "", ...text.split("`").map((part, i) => (i % 2 ? element("code", part) : part)));

/** A schema in a few words. */
function words(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const options = schema.oneOf ?? schema.anyOf;
  if (options) return options.map(words).filter((word) => word !== "null").join(" or ");
  const type = [schema.type].flat().filter((name) => name && name !== "null").join(" or ");
  if (type === "array") return `list of ${words(schema.items)}`;
  if (schema.enum) return schema.enum.join(" | ");
  return type || "anything";
}

function table(rows) {
  const list = document.createElement("dl");
  for (const [name, kind, text] of rows) {
    const term = element("dt", "", element("code", name));
    term.append(" ", element("small", kind));
    list.append(term, prose("dd", text ?? ""));
  }
  return list;
}

const api = await (await fetch("/openapi.json")).json();
document.getElementById("about").textContent = api.info.description;
const tags = api.tags.map(({ name }) => name);
const place = ({ operation }) => tags.indexOf(operation.tags?.[0]);
const operations = Object.entries(api.paths)
  .flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation })))
  .sort((a, b) => place(a) - place(b));
for (const { path, method, operation } of operations) {
  const section = element("section", "", element("h3", "", element("code", `${method.toUpperCase()} ${path}`)));
  section.append(prose("p", operation.summary ?? ""));
  if (operation.description) section.append(prose("p", operation.description));
  const content = Object.values(operation.requestBody?.content ?? {})[0];
  const rows = (operation.parameters ?? []).map(({ name, schema, description, in: where }) => [name, `${where}, ${words(schema)}`, description]);
  if (content) rows.push(["body", words(content.schema), operation.requestBody.description]);
  for (const [status, { content: answer, description }] of Object.entries(operation.responses ?? {})) {
    rows.push([status, words(Object.values(answer ?? {})[0]?.schema), description]);
  }
  section.append(table(rows));
  document.getElementById("operations").append(section);
}
for (const [name, schema] of Object.entries(api.components?.schemas ?? {})) {
  const section = element("section", "", element("h3", name));
  if (schema.description) section.append(prose("p", schema.description));
  const parts = schema.properties ? [schema] : (schema.allOf ?? schema.oneOf ?? []);
  for (const part of parts) {
    const rows = Object.entries(part.properties ?? {}).map(([field, inner]) => [field, words(inner), inner.description]);
    if (rows.length) section.append(table(rows));
  }
  if (schema.enum) section.append(element("p", schema.enum.join(" | ")));
  document.getElementById("schemas").append(section);
}
