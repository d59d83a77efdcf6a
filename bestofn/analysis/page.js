"use strict";
// The browser of prompts. What came from a model or a file enters the page as text (textContent),
// never as HTML.

const LONG = 700; // characters of a response that are shown unfolded
const one = (selector) => document.querySelector(selector);

function html(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

async function load() {
  const packed = Uint8Array.from(atob(one("#data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const number = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(3));

function selected(prompt, score) {
  let best = -1;
  prompt.candidates.forEach((c, i) => {
    const value = c.scores[score]?.value ?? null;
    if (value !== null && (best < 0 || value > prompt.candidates[best].scores[score].value)) best = i;
  });
  return Math.max(best, 0);
}
const goldOf = (prompt, score) => prompt.candidates[selected(prompt, score)].gold;
const failed = (prompt) => prompt.candidates.some((c) => c.error || c.gold === null || c.scores.some((s) => s && s.value === null));
const missed = (prompt, score) => Math.max(...prompt.candidates.map((c) => c.gold ?? -Infinity)) > (goldOf(prompt, score) ?? -Infinity);

function browse({ scores, columns, prompts, binary: isBinary }) {
  binary = isBinary;
  const form = one("#filters"), list = one("#list"), detail = one("#detail");
  let shown = [], at = 0;
  const option = (value, text) => html("option", { value }, text ?? value);
  const choice = (name, label, options) => html("label", {}, label, html("select", { name }, options));
  const check = (name, label) => html("label", { class: "check" }, html("input", { type: "checkbox", name }), label);
  const byScore = () => scores.map((name, i) => option(i, name));
  form.append(html("label", {}, "Search", html("input", { type: "search", name: "query" })));
  for (const name of columns) {
    const values = [...new Set(prompts.map((p) => p.columns[name]).filter((v) => v !== null))].sort();
    form.append(choice(`column:${name}`, name, [option("", "all"), ...values.map((v) => option(v))]));
  }
  if (scores.length) form.append(choice("by", "Ranked by", byScore()));
  if (scores.length > 1) form.append(choice("other", "Compared with", byScore()));
  if (scores.length > 1) form.append(check("differ", "the two select differently"));
  if (scores.length) form.append(check("missed", "a better candidate was missed"));
  form.append(check("failed", "something failed"));
  const get = (name) => form.elements.namedItem(name);
  if (get("other")) get("other").value = "1";
  const on = (name) => Boolean(get(name)?.checked);
  const by = () => Number(get("by")?.value ?? 0), other = () => Number(get("other")?.value ?? 0);
  const gap = (p) => (goldOf(p, by()) ?? 0) - (goldOf(p, other()) ?? 0);

  function matches(p) {
    const query = get("query").value.trim().toLowerCase();
    if (query && ![p.id, ...p.messages.map((m) => m[1]), ...p.candidates.map((c) => c.text)].some((text) => text.toLowerCase().includes(query))) return false;
    if (columns.some((name) => get(`column:${name}`).value && get(`column:${name}`).value !== p.columns[name])) return false;
    if (on("failed") && !failed(p)) return false;
    if (on("missed") && !missed(p, by())) return false;
    return !on("differ") || selected(p, by()) !== selected(p, other());
  }

  function filter() {
    const current = shown[at];
    shown = prompts.filter(matches);
    if (on("differ")) shown.sort((a, b) => Math.abs(gap(b)) - Math.abs(gap(a)));
    one("#count").textContent = `${shown.length} of ${prompts.length} prompts`;
    list.replaceChildren(...shown.map((p, i) => {
      const right = scores.length ? goldOf(p, by()) : p.candidates[0].gold;
      const text = p.messages.at(-1)[1];
      return html("li", { onclick: () => select(i) }, badge(right), html("span", { dir: "auto" }, text.slice(0, 160)));
    }));
    select(Math.max(0, shown.indexOf(current)));
  }

  function select(place, scroll) {
    at = place;
    [...list.children].forEach((item, i) => item.toggleAttribute("aria-current", i === at));
    if (scroll) list.children[at]?.scrollIntoView({ block: "nearest" });
    detail.replaceChildren(...(shown[at] ? prompt(shown[at]) : [html("p", { class: "note" }, "No prompt matches.")]));
  }

  function prompt(p) {
    const order = p.candidates.map((_, i) => i);
    const value = (i) => p.candidates[i].scores[by()]?.value ?? -Infinity;
    if (scores.length) order.sort((a, b) => (value(a) === value(b) ? a - b : value(b) - value(a)));
    const chosen = scores.length ? selected(p, by()) : 0;
    const about = Object.entries(p.columns).filter(([, v]) => v !== null).map(([name, v]) => `${name}: ${v}`);
    return [
      html("p", { class: "note" }, [p.id, ...about].join(" · ")),
      ...p.messages.map(([role, text]) => html("div", { class: "message" }, html("span", { class: "role" }, role), html("div", { class: "text", dir: "auto" }, text))),
      ...order.map((i, rank) => candidate(p.candidates[i], i, rank + 1, i === chosen)),
    ];
  }

  function candidate(c, index, rank, chosen) {
    const facts = [`#${index}`, scores.length ? `rank ${rank}` : null, c.tokens === null ? null : `${c.tokens} tokens`, c.finish === "stop" ? null : c.finish].filter(Boolean).join(" · ");
    return html("section", { class: chosen ? "candidate chosen" : "candidate" },
      html("div", { class: "head" }, badge(c.gold, c.unknown), html("span", {}, facts), chosen ? html("strong", {}, "selected") : null),
      c.error ? html("p", { class: "failure" }, `not drawn: ${c.error}`) : folded(c.text),
      c.reasoning ? html("details", {}, html("summary", {}, "reasoning"), html("div", { class: "text", dir: "auto" }, c.reasoning)) : null,
      html("dl", {}, scores.flatMap((name, i) => score(name, c.scores[i]))));
  }

  function score(name, s) {
    if (!s) return [];
    const flags = s.flags.map((flag) => html("span", { class: "flag" }, flag));
    const inferred = s.inferred.map((pieces) => html("div", { class: "inferred", dir: "auto" }, pieces.flatMap(([text, shared], i) => [i ? " " : "", shared ? html("mark", {}, text) : text])));
    const value = s.value === null ? html("span", { class: "failure" }, s.reason ?? "failed") : html("span", { class: "value" }, number(s.value));
    return [html("dt", {}, name), html("dd", {}, value, flags, inferred)];
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const inList = event.target === list;
    if (event.key === "/") { event.preventDefault(); get("query").focus(); }
    else if (event.key === "j" || (inList && event.key === "ArrowDown")) { event.preventDefault(); select(Math.min(shown.length - 1, at + 1), true); }
    else if (event.key === "k" || (inList && event.key === "ArrowUp")) { event.preventDefault(); select(Math.max(0, at - 1), true); }
  });
  filter();
}

let binary = true;
function badge(gold, reason) {
  if (gold === null) return html("span", { class: "badge unknown", title: reason ?? "no verdict" }, "?");
  const kind = binary ? (gold > 0 ? "right" : "wrong") : "graded";
  return html("span", { class: `badge ${kind}` }, binary ? kind : number(gold, 2));
}

function folded(text) {
  const body = html("div", { class: "text", dir: "auto" }, text.length > LONG ? `${text.slice(0, LONG)}…` : text || "(empty)");
  if (text.length <= LONG) return body;
  const more = html("button", { type: "button", class: "more" }, `all ${text.length} characters`);
  more.addEventListener("click", () => { body.textContent = text; more.remove(); });
  return html("div", {}, body, more);
}

load().then((data) => {
  browse(data);
  document.body.dataset.ready = "true";
});
