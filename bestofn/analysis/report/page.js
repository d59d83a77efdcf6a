"use strict";
// Everything that came from a model or a file enters the page as text (textContent), never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const LONG = 700; // characters of a response that are shown unfolded
const one = (selector) => document.querySelector(selector);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

async function load() {
  const packed = Uint8Array.from(atob(one("#data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value.toFixed(digits ?? (Number.isInteger(value) || size >= 1000 ? 0 : size >= 10 ? 1 : 3));
}
const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
function spread(interval, place, sign) {
  const [mean, low, high] = ["mean", "low", "high"].map((key) => (place === undefined ? interval[key] : interval[key][place]));
  if (mean === null) return "–";
  const digits = Math.abs(mean) >= 1000 ? 0 : Math.abs(mean) >= 10 ? 1 : 3;
  const show = (x) => (sign && x >= 0 ? "+" : "") + number(x, digits).replace(/^-(0\.?0*)$/, "$1");
  return `${show(mean)} [${show(low)}, ${show(high)}]`;
}

// --- charts --------------------------------------------------------------------------------------

const PLAIN = { random: "var(--muted)", oracle: "var(--text)" };
const colours = new Map();
function colour(name) {
  if (PLAIN[name]) return PLAIN[name];
  if (!colours.has(name)) colours.set(name, `var(--c${colours.size % 8})`);
  return colours.get(name);
}

const tip = html("div", { id: "tip", role: "status", hidden: true });
function showTip(lines, x, y) {
  tip.replaceChildren(...lines.map((line, i) => html(i ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const width = tip.offsetWidth;
  tip.style.left = `${Math.max(4, Math.min(x + 14, document.documentElement.clientWidth - width - 8))}px`;
  tip.style.top = `${y + 14}px`;
}
const hideTip = () => { tip.hidden = true; };

const W = 440, H = 300, LEFT = 60, RIGHT = 12, TOP = 12, BOTTOM = 42;

function niceTicks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 4));
  const size = [1, 2, 5, 10].map((k) => k * step).find((s) => (high - low) / s <= 5);
  const ticks = [];
  for (let t = Math.ceil(low / size) * size; t <= high + size * 1e-6; t += size) ticks.push(t);
  return ticks;
}

function decades(low, high) {
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
    for (const k of [1, 2, 5]) if (k * 10 ** e >= low * 0.999 && k * 10 ** e <= high * 1.001) ticks.push(k * 10 ** e);
  }
  return ticks.length > 6 ? ticks.filter((t) => Number.isInteger(Math.log10(t))) : ticks;
}

// series: [{ name, points: [{ x, y, low, high }], level }]; x on a log axis unless `names` are given.
function chart({ title, x, y, series, ticks, names, whiskers, zero }) {
  for (const s of series) s.points = s.points.filter((p) => p.y !== null && p.y !== undefined);
  const points = series.flatMap((s) => s.points);
  const figure = html("figure", {}, html("figcaption", {}, title));
  if (!points.length) return fill(figure, {}, [html("p", { class: "note" }, "No value.")]);
  const axis = names ? (v) => v : Math.log2;
  const xs = points.map((p) => axis(p.x));
  const ys = [...points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]), ...series.map((s) => s.level ?? points[0].y), ...(zero === undefined ? [] : [zero])];
  let [x0, x1] = names ? [-0.5, names.length - 0.5] : [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const pad = 0.04 * (y1 - y0);
  [y0, y1] = [y0 - pad, y1 + pad];
  const px = (v) => LEFT + ((axis(v) - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const py = (v) => H - BOTTOM - ((v - y0) / (y1 - y0)) * (H - TOP - BOTTOM);
  const xticks = names ? names.map((_, i) => i) : ticks ?? decades(2 ** x0, 2 ** x1);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "img", "aria-label": `${title}; arrow keys read the values` });
  for (const t of niceTicks(y0, y1)) {
    root.append(svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: py(t), y2: py(t) }), svg("text", { class: "tick", x: LEFT - 6, y: py(t) + 4, "text-anchor": "end" }, number(t, y1 - y0 < 0.1 ? 3 : y1 - y0 < 2 ? 2 : 0)));
  }
  for (const t of xticks) root.append(svg("text", { class: "tick", x: px(t), y: H - BOTTOM + 16, "text-anchor": "middle" }, names ? names[t] : String(t)));
  if (zero !== undefined) root.append(svg("line", { class: "zero", x1: LEFT, x2: W - RIGHT, y1: py(zero), y2: py(zero) }));
  root.append(svg("text", { class: "label", x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, x), svg("text", { class: "label", x: -(H - BOTTOM + TOP) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle" }, y));
  for (const s of series) root.append(lineOf(s, px, py, whiskers));
  figure.append(root);
  readable(root, series, px, py, x, names);
  return figure;
}

function lineOf(s, px, py, whiskers) {
  const group = svg("g", { class: "series", "data-series": s.name });
  group.style.color = colour(s.name);
  const path = (points) => points.map((p, i) => `${i ? "L" : "M"}${px(p.x).toFixed(1)} ${py(p.y).toFixed(1)}`).join("");
  const banded = s.points.filter((p) => p.low !== null && p.low !== undefined);
  if (whiskers) {
    for (const p of banded) group.append(svg("line", { class: "whisker", x1: px(p.x), x2: px(p.x), y1: py(p.low), y2: py(p.high) }));
  } else {
    if (banded.length > 1) {
      const up = banded.map((p) => `${px(p.x).toFixed(1)} ${py(p.high).toFixed(1)}`);
      const down = banded.map((p) => `${px(p.x).toFixed(1)} ${py(p.low).toFixed(1)}`).reverse();
      group.append(svg("path", { class: "band", d: `M${[...up, ...down].join("L")}Z` }));
    }
    group.append(svg("path", { class: PLAIN[s.name] ? "line dashed" : "line", d: path(s.points) }));
  }
  if (s.level !== undefined && s.level !== null) group.append(svg("line", { class: "level", x1: LEFT, x2: W - RIGHT, y1: py(s.level), y2: py(s.level) }));
  for (const p of s.points) group.append(svg("circle", { cx: px(p.x), cy: py(p.y), r: 3 }));
  return group;
}

// The nearest point is shown under the pointer; with the arrow keys points are walked through.
function readable(root, series, px, py, x, names) {
  const ring = svg("circle", { class: "ring", r: 6, visibility: "hidden" });
  root.append(ring);
  let at = null;
  const visible = () => series.filter((s) => !hidden.has(s.name) && s.points.length);
  const show = (s, i) => {
    const p = s.points[i];
    at = { s, i };
    fill(ring, { cx: px(p.x), cy: py(p.y), visibility: "visible" }, []);
    ring.style.color = colour(s.name);
    const box = root.getBoundingClientRect();
    const value = p.low === null || p.low === undefined ? number(p.y) : `${number(p.y)} [${number(p.low)}, ${number(p.high)}]`;
    showTip([s.name, value, `${x}: ${names ? names[Math.round(p.x)] : number(p.x)}`], box.left + (px(p.x) / W) * box.width, box.top + (py(p.y) / H) * box.height);
  };
  const leave = () => { ring.setAttribute("visibility", "hidden"); hideTip(); };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const [cx, cy] = [((event.clientX - box.left) / box.width) * W, ((event.clientY - box.top) / box.height) * H];
    let best = null;
    for (const s of visible()) s.points.forEach((p, i) => {
      const d = (px(p.x) - cx) ** 2 + (py(p.y) - cy) ** 2;
      if (!best || d < best.d) best = { d, s, i };
    });
    if (best) show(best.s, best.i);
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", (event) => {
    const shown = visible();
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !shown.length) return;
    event.preventDefault();
    let row = at ? shown.indexOf(at.s) : 0;
    row = (Math.max(row, 0) + step[0] + shown.length) % shown.length;
    const last = shown[row].points.length - 1;
    show(shown[row], Math.max(0, Math.min(last, (at ? at.i : -1) + step[1])));
  });
}

function heat({ title, limits, ns, rows }) {
  const known = rows.flat().filter((v) => v !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const table = html("table", { class: "heat" });
  const names = [...limits, "all"];
  rows.map((row, i) => [names[i], row]).reverse().forEach(([name, row]) => {
    table.append(html("tr", {}, html("th", { scope: "row" }, String(name)), row.map((value) => {
      const cell = html("td", {}, number(value));
      const share = high > low ? (value - low) / (high - low) : 0.5;
      cell.style.setProperty("--share", `${Math.round(12 + 70 * share)}%`);
      return cell;
    })));
  });
  table.append(html("tr", {}, html("th", {}, "tokens / N"), ns.map((n) => html("th", { scope: "col" }, String(n)))));
  return html("figure", {}, html("figcaption", {}, title), table);
}

// --- curves, lengths, tables ---------------------------------------------------------------------

const hidden = new Set();
function legend(names) {
  const box = one("#curves .legend");
  for (const name of names) {
    const swatch = html("span", { class: "swatch" });
    swatch.style.background = colour(name);
    const button = html("button", { type: "button", "aria-pressed": "true", "data-name": name }, swatch, name);
    button.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      for (const group of document.querySelectorAll("g.series")) group.toggleAttribute("hidden", hidden.has(group.dataset.series));
      hideTip();
    });
    box.append(button);
  }
}

const along = (xs, interval) => xs.map((x, i) => ({ x, y: interval.mean[i], low: interval.low[i], high: interval.high[i] }));

function curves({ ns, proxies, gold }) {
  const all = Object.entries(proxies);
  legend(all.map(([name]) => name));
  const charts = [
    chart({ title: `${gold} of the selected candidate`, x: "N", y: gold, ticks: ns, series: all.map(([name, p]) => ({ name, points: along(ns, p.gold) })) }),
    chart({ title: `${gold} by tokens spent on a prompt`, x: "tokens drawn and scored", y: gold, series: all.filter(([, p]) => p.generated_tokens).map(([name, p]) => ({ name, points: along(ns.map((_, i) => p.generated_tokens[i] + p.scored_tokens[i]), p.gold) })) }),
    ...all.filter(([name, p]) => p.proxy && name !== "oracle").map(([name, p]) => chart({ title: `${name} itself`, x: "N", y: name, ticks: ns, series: [{ name, points: along(ns, p.proxy) }] })),
  ];
  one("#curves .charts").append(...charts);
}

function lengthCharts({ lengths, ns, gold }) {
  if (!lengths) {
    one("#lengths").hidden = one("#to-lengths").hidden = true;
    return;
  }
  const last = (interval) => along(lengths.limits, { mean: interval.mean.map((r) => r.at(-1)), low: interval.low.map((r) => r.at(-1)), high: interval.high.map((r) => r.at(-1)) });
  const rewards = Object.entries(lengths.rewards);
  const n = ns.at(-1);
  const charts = [];
  if (lengths.limits.length && rewards.length) {
    charts.push(chart({ title: `${gold} of the full candidate chosen by its first tokens, N=${n}; dotted: by the whole response`, x: "first tokens", y: gold, ticks: lengths.limits, series: rewards.map(([name, c]) => ({ name, points: last(c.full), level: c.whole.mean.at(-1) })) }));
    const cut = rewards.filter(([, c]) => c.cut);
    if (cut.length) charts.push(chart({ title: `${gold} of the cut candidate itself, N=${n}`, x: "first tokens", y: gold, ticks: lengths.limits, series: cut.map(([name, c]) => ({ name, points: last(c.cut) })) }));
    charts.push(...rewards.map(([name, c]) => heat({ title: `${gold} by ${name} over first tokens and N`, limits: lengths.limits, ns, rows: [...c.full.mean, c.whole.mean] })));
  }
  const bins = lengths.bins;
  const unit = lengths.unit ?? "tokens";
  for (const [what, title, zero] of [["gain", `${gold} over a random candidate, by length of responses`, 0], ["concordance", "pairs of candidates in the right order, by length", 0.5]]) {
    if (!bins.length || !bins[0][what]) continue;
    const names = Object.keys(bins[0][what]);
    const series = names.map((name, k) => ({ name, points: bins.map((b, i) => ({ x: i + ((k - (names.length - 1) / 2) * 0.7) / names.length, y: b[what][name].mean, low: b[what][name].low, high: b[what][name].high })) }));
    charts.push(chart({ title, x: `mean ${unit} of a prompt's candidates`, y: what, names: bins.map((b) => `${number(b.low, 0)}–${number(b.high, 0)}`), whiskers: true, zero, series }));
  }
  one("#lengths .charts").append(...charts);
}

function table(caption, head, rows) {
  const body = rows.map((row) => html("tr", {}, row.map((cell, i) => html(i ? "td" : "th", i ? {} : { scope: "row" }, String(cell)))));
  return html("details", { open: rows.length <= 40 }, html("summary", {}, caption), html("div", { class: "scroll" }, html("table", {}, html("thead", {}, html("tr", {}, head.map((h) => html("th", { scope: "col" }, h)))), html("tbody", {}, body))));
}

function tables({ ns, proxies, gold, differences, lengths, kl_bound: kl }) {
  const at = (list, i) => (list ? list[i] : null);
  const rows = Object.entries(proxies).flatMap(([name, p]) => ns.map((n, i) => [name, n, spread(p.gold, i), spread(p.gain, i, true), p.proxy ? number(p.proxy.mean[i]) : "–", percent(p.failures[i]), percent(p.ties[i]), number(at(p.generated_tokens, i)), number(p.scored_tokens[i]), number(at(p.seconds, i)), number(at(kl, i)), number(at(p.monte_carlo_error, i), 4)]));
  const found = [table(`Every proxy and N (tokens and seconds for a prompt)`, ["proxy", "N", gold, "over one candidate", "proxy's value", "all failed", "ties", "tokens drawn", "tokens scored", "seconds", "KL bound", "simulation error"], rows)];
  const end = ns.length - 1;
  if (differences.length) found.push(table(`Differences at N=${ns[end]}, paired by prompt`, ["a", "b", `${gold}: a minus b`, "a higher", "equal", "b higher"], differences.map((d) => [d.a, d.b, spread(d.gold, end, true), ...[d.win, d.tie, d.lose].map((s) => `${percent(s.mean[end])} [${percent(s.low[end])}, ${percent(s.high[end])}]`)])));
  if (lengths) {
    found.push(table("Length and rewards", ["score", "rank correlation with length", "length selected", "right order: longer half minus shorter half", "over choosing by length"], Object.entries(lengths.spearman).map(([name, s]) => [name, spread(s), lengths.selected_length[name] ? number(lengths.selected_length[name].mean[end]) : "–", lengths.longer?.[name] ? spread(lengths.longer[name], undefined, true) : "–", lengths.beyond_length?.[name] ? spread(lengths.beyond_length[name], undefined, true) : "–"])));
    const cuts = Object.entries(lengths.rewards).flatMap(([name, c]) => lengths.limits.map((limit, i) => [name, limit, percent(at(lengths.cut_share, i)), number(c.full.mean[i][end]), spread(c.difference, i, true), c.cut ? number(c.cut.mean[i][end]) : "–", number(c.computed_tokens[i]), number(c.separate_tokens[i])]));
    if (cuts.length) found.push(table(`First tokens, at N=${ns[end]} (tokens for a prompt)`, ["reward", "first tokens", "candidates longer", `${gold} of the full candidate`, "minus by whole responses", `${gold} of the cut`, "tokens computed", "without a cache"], cuts));
  }
  one("#tables").append(...found);
}

// --- prompts -------------------------------------------------------------------------------------

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
    const facts = [`#${index}`, scores.length ? `rank ${rank}` : null, c.tokens === undefined ? null : `${c.tokens} tokens`, c.finish === "stop" ? null : c.finish].filter(Boolean).join(" · ");
    return html("section", { class: chosen ? "candidate chosen" : "candidate" },
      html("div", { class: "head" }, badge(c.gold, c.unknown), html("span", {}, facts), chosen ? html("strong", {}, "selected") : null),
      c.error ? html("p", { class: "failure" }, `not drawn: ${c.error}`) : folded(c.text),
      c.reasoning ? html("details", {}, html("summary", {}, "reasoning"), html("div", { class: "text", dir: "auto" }, c.reasoning)) : null,
      html("dl", {}, scores.flatMap((name, i) => score(name, c.scores[i]))));
  }

  function score(name, s) {
    if (!s) return [];
    const flags = (s.flags ?? []).map((flag) => html("span", { class: "flag" }, flag));
    const inferred = (s.inferred ?? []).map((pieces) => html("div", { class: "inferred", dir: "auto" }, pieces.flatMap(([text, shared], i) => [i ? " " : "", shared ? html("mark", {}, text) : text])));
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

// --- the page ------------------------------------------------------------------------------------

function facts(r) {
  const sizes = r.candidates.least === r.candidates.most ? r.candidates.most : `${r.candidates.least} to ${r.candidates.most}`;
  one("#facts").textContent = `${r.prompts} prompts × ${sizes} candidates${r.seeds > 1 ? ` × ${r.seeds} draws` : ""} · gold: ${r.gold} · ${Math.round(100 * r.level)} % intervals over prompts${r.iid ? "" : " · candidates are no independent draws of one model"}`;
  if (r.left_out.length) {
    const box = one("#left-out");
    box.hidden = false;
    box.querySelector("summary").textContent = `${r.left_out.length} left out`;
    box.querySelector("ul").append(...r.left_out.map((entry) => html("li", {}, `${entry.id}: ${entry.reason}`)));
  }
}

function theme() {
  const button = one("#theme"), root = document.documentElement;
  const set = (dark) => { root.dataset.theme = dark ? "dark" : "light"; button.textContent = dark ? "Light" : "Dark"; };
  set(matchMedia("(prefers-color-scheme: dark)").matches);
  button.addEventListener("click", () => set(root.dataset.theme !== "dark"));
}

async function main() {
  theme();
  document.body.append(tip);
  const { result, browser } = await load();
  facts(result);
  curves(result);
  lengthCharts(result);
  tables(result);
  browse(browser);
  document.body.dataset.ready = "true";
}
main();
