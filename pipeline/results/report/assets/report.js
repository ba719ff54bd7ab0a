"use strict";
// Everything that moves on the page. Data is text until it is put into an element as text: nothing of it is ever HTML.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

// --- theme: the system's unless somebody chose

const dark = matchMedia("(prefers-color-scheme: dark)");
const remembered = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                     set: (name) => { try { localStorage.setItem("theme", name); } catch { /* nowhere to keep it */ } } };
const theme = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");

function showTheme() {
  $("#theme").textContent = theme() === "dark" ? "Light theme" : "Dark theme";
  $("#theme").setAttribute("aria-pressed", String(theme() === "dark"));
}

if (["light", "dark"].includes(remembered.get())) document.documentElement.dataset.theme = remembered.get();
showTheme();
$("#theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
  remembered.set(theme());
  showTheme();
  redraw();
});
dark.addEventListener("change", () => { showTheme(); redraw(); });

const probe = make("span", { hidden: "" });
document.body.append(probe);

function colourOf(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/** A value with every colour variable of the style sheet replaced by what it is in this theme. */
function themed(value) {
  if (typeof value === "string") {
    if (value === "var(--heat)") return [[0, colourOf("--heat-0")], [1, colourOf("--heat-1")]];
    const match = /^var\((--[\w-]+)\)$/.exec(value);
    return match ? colourOf(match[1]) : value;
  }
  if (Array.isArray(value)) return value.some((each) => typeof each !== "number") ? value.map(themed) : value;
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, themed(each)]));
  }
  return value;
}

// --- figures: drawn by plotly when they come near, laid out for the width that there is

let plotly = null;

/** Plotly lies in the page as text, so that it is neither compiled nor run before the page is seen. */
function loadPlotly() {
  plotly = plotly || new Promise((resolve) => {
    const start = () => setTimeout(() => {
      const script = document.createElement("script");
      script.textContent = $("#plotly-source").textContent;
      document.head.append(script);
      resolve(window.Plotly);
    });
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start, { once: true });
    else start();
  });
  return plotly;
}

const named = (axis) => ({ ...axis, title: { text: axis.title || "", standoff: 6, font: { size: 12.5 } } });

/** Where panels stand: as many side by side as the width allows. */
function placesOf(figure, count, width, legendItems) {
  const lines = Math.ceil(count / Math.max(1, Math.min(count, Math.floor(width / figure.narrowest))));
  const columns = Math.ceil(count / lines); // as many in each line
  const legend = legendItems < 2 ? 0 : 14 + 20 * Math.ceil(legendItems / Math.max(1, Math.floor(width / 215)));
  const margin = { l: 10, r: 12, t: 8, b: 8 };
  const body = lines * figure.height;
  return { columns, lines, legend, margin, body, height: body + legend + margin.t + margin.b };
}

function layoutOf(figure, variant, width) {
  const items = variant.traces.filter((trace) => trace.showlegend !== false && trace.type !== "heatmap").length;
  const places = placesOf(figure, variant.panels.length, width, items);
  const text = colourOf("--text"), muted = colourOf("--muted"), line = colourOf("--line");
  const layout = {
    width, height: places.height, margin: { ...places.margin, pad: 3 },
    paper_bgcolor: colourOf("--card"), plot_bgcolor: colourOf("--card"),
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: text },
    hoverlabel: { bgcolor: colourOf("--sunk"), bordercolor: colourOf("--strong-line"), font: { color: text }, align: "left" },
    showlegend: items > 1, hovermode: "closest", dragmode: "zoom",
    legend: { orientation: "h", x: 0, xanchor: "left", y: 0, yanchor: "bottom", yref: "container", font: { size: 12 },
              itemwidth: 30, bgcolor: "rgba(0,0,0,0)" },
    annotations: [], shapes: [], modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: text },
  };
  const inner = width - places.margin.l - places.margin.r;
  const inside = places.body; // plotly itself makes room for the legend below
  variant.panels.forEach((panel, number) => {
    const column = number % places.columns, row = Math.floor(number / places.columns);
    const wide = inner / places.columns, small = wide < 420;
    const left = panel.y.ticktext ? 10 + (small ? 5.8 : 6.3) * Math.max(...panel.y.ticktext.map((each) => each.length)) : 52;
    const top = row * figure.height + (panel.title ? 26 : 10), bottom = (row + 1) * figure.height - 46;
    const x = [(column * wide + Math.min(left, wide * 0.6)) / inner, ((column + 1) * wide - 8) / inner];
    const y = [1 - bottom / inside, 1 - top / inside];
    const suffix = number ? String(number + 1) : "";
    const grid = { gridcolor: line, linecolor: line, zerolinecolor: line, tickfont: { color: muted, size: 11.5 }, automargin: false };
    layout[`xaxis${suffix}`] = { ...grid, ...named(themed(panel.x)), domain: x, anchor: `y${suffix}` };
    layout[`yaxis${suffix}`] = { ...grid, ...named(themed(panel.y)), tickfont: { color: muted, size: small ? 10.5 : 11.5 }, domain: y, anchor: `x${suffix}` };
    if (panel.title) {
      layout.annotations.push({ text: `<b>${panel.title}</b>`, showarrow: false, xref: "paper", yref: "paper", x: x[0], y: y[1],
                                xanchor: "left", yanchor: "bottom", yshift: 3, font: { size: 12.5 } });
    }
    for (const each of panel.lines || []) {
      layout.shapes.push({ type: "line", xref: `x${suffix} domain`, yref: `y${suffix}`, x0: 0, x1: 1, y0: each.y, y1: each.y,
                           line: { color: muted, width: 1.2, dash: "dash" } });
      layout.annotations.push({ text: each.name, showarrow: false, xref: `x${suffix} domain`, yref: `y${suffix}`, x: 0, y: each.y,
                                xanchor: "left", yanchor: "bottom", font: { size: 11, color: muted } });
    }
  });
  return layout;
}

function specOf(id, width) {
  const figure = DATA.figures[id];
  const chosen = $(`input[name="variant-${CSS.escape(id)}"]:checked`);
  const variant = figure.variants[chosen ? Number(chosen.value) : 0];
  const traces = variant.traces.map(({ panel, ...trace }) => {
    const suffix = panel ? String(panel + 1) : "";
    return { ...themed(trace), xaxis: `x${suffix}`, yaxis: `y${suffix}` };
  });
  return { data: traces, layout: layoutOf(figure, variant, width) };
}

const CONFIG = (id) => ({ responsive: false, displaylogo: false, displayModeBar: "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { filename: id, format: "svg", scale: 1 } });

async function draw(plot) {
  const id = plot.dataset.figure;
  if (plot.dataset.state === "waiting") plot.dataset.state = "loading";
  const Plotly = await loadPlotly();
  const { data, layout } = specOf(id, plot.clientWidth);
  await Plotly.react(plot, data, layout, CONFIG(id));
  plot.style.minHeight = "";
  plot.dataset.state = "drawn";
}

function redraw() {
  for (const plot of $$(".plot")) {
    if (["drawn", "loading"].includes(plot.dataset.state)) draw(plot);
    else reserve(plot);
  }
}

/** Room for a figure before it is drawn, so that nothing jumps. */
function reserve(plot) {
  const figure = DATA.figures[plot.dataset.figure], variant = figure.variants[0];
  const items = variant.traces.filter((trace) => trace.showlegend !== false && trace.type !== "heatmap").length;
  plot.style.minHeight = `${placesOf(figure, variant.panels.length, plot.clientWidth, items).height}px`;
}

const near = new IntersectionObserver((seen) => {
  for (const each of seen.filter((one) => one.isIntersecting)) {
    near.unobserve(each.target);
    draw(each.target);
  }
}, { rootMargin: "300px 0px" });

for (const plot of $$(".plot")) {
  reserve(plot);
  near.observe(plot);
}
// ready before anybody has read the first screen, but not before it is there
addEventListener("load", () => (window.requestIdleCallback || setTimeout)(() => loadPlotly()));
let width = innerWidth, waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { if (innerWidth !== width) { width = innerWidth; redraw(); } }, 120);
});
for (const choice of $$("figure fieldset input")) {
  choice.addEventListener("change", () => draw($(".plot", choice.closest("figure"))));
}

// --- what lies behind a figure: its data, its runs and their features

const cells = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value));

function tableOf(columns, rows, caption) {
  const isNumber = columns.map((_, place) => rows.some((row) => typeof row[place] === "number"));
  return make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...columns.map((name, place) =>
      make("th", { scope: "col", class: isNumber[place] ? "n" : null }, name.replaceAll("_", " "))))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((value, place) =>
      make(place ? "td" : "th", { scope: place ? null : "row", class: isNumber[place] ? "n" : null }, cells(value)))))));
}

function onceOpened(details, fill) {
  details.addEventListener("toggle", () => {
    if (details.open && !details.dataset.filled) { details.dataset.filled = "1"; details.append(fill()); }
  });
}

for (const details of $$("details[data-rows]")) {
  const data = DATA.figures[details.dataset.rows];
  onceOpened(details, () => make("div", { class: "box low", role: "region", tabindex: "0", "aria-label": `Data of: ${data.title}` },
    tableOf(data.columns, data.rows, data.title)));
}

function featuresOf(data) {
  const own = data.runs.flatMap((name) => (DATA.runs[name] || { features: [] }).features);
  return [...new Set([...own, ...data.features])];
}

function linkTo(fingerprint) {
  const short = fingerprint.slice(0, 12);
  return document.getElementById(`features-${short}`) ? make("a", { href: `#features-${short}` }, make("code", {}, short)) : make("code", {}, short);
}

for (const details of $$("details[data-behind]")) {
  const data = DATA.figures[details.dataset.behind];
  onceOpened(details, () => {
    const list = make("ul");
    for (const name of data.runs) {
      const run = DATA.runs[name] || { says: "", features: [] };
      const item = make("li", {}, make("code", {}, name), run.says ? ` ${run.says}` : "");
      run.features.forEach((each, place) => item.append(place ? ", " : "; features ", linkTo(each)));
      list.append(item);
    }
    if (data.features.length) {
      const item = make("li", {}, `${data.features.length} feature sets of the views tried: `);
      data.features.forEach((each, place) => item.append(place ? ", " : "", linkTo(each)));
      list.append(item);
    }
    return make("div", { class: "box low", role: "region", tabindex: "0", "aria-label": `Runs and features behind: ${data.title}` }, list);
  });
}

for (const details of $$("details[data-set]")) {
  onceOpened(details, () => make("pre", { tabindex: "0" }, JSON.stringify(DATA.features[details.dataset.set], null, 2)));
}

// a link into closed or scrolled places opens and shows what it names
addEventListener("hashchange", () => {
  const row = location.hash.startsWith("#features-") && document.getElementById(location.hash.slice(1));
  if (row) row.scrollIntoView({ block: "center" });
});

// --- downloads: every figure and table as CSV and JSON, figures as PNG and SVG

function save(content, type, name) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const field = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const toCsv = (columns, rows) => [columns, ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";

function dataOf(id) {
  return id === "sentences" ? explorer.data() : DATA.figures[id];
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-save]");
  if (!button) return;
  const id = button.dataset.of, kind = button.dataset.save, data = dataOf(id);
  if (kind === "csv") save(toCsv(data.columns, data.rows), "text/csv", `${id}.csv`);
  else if (kind === "json") {
    const features = Object.fromEntries(featuresOf(data).map((each) => [each, DATA.features[each] || null]));
    const rows = data.rows.map((row) => Object.fromEntries(data.columns.map((name, place) => [name, row[place]])));
    save(JSON.stringify({ title: data.title, caption: data.caption, runs: data.runs, features, data: rows }, null, 2), "application/json", `${id}.json`);
  } else {
    const Plotly = await loadPlotly();
    const { data: traces, layout } = specOf(id, 900);
    const url = await Plotly.toImage({ data: traces, layout: { ...layout, title: { text: data.title, y: 0.99, yanchor: "top", font: { size: 15 } },
      margin: { ...layout.margin, t: 34 }, height: layout.height + 26 } }, { format: kind, width: 900, height: layout.height + 26, scale: kind === "png" ? 2 : 1 });
    const link = make("a", { href: url, download: `${id}.${kind}` });
    document.body.append(link);
    link.click();
    link.remove();
  }
});

// --- tables that sort and filter

for (const table of $$("table[data-sorts]")) {
  const body = table.tBodies[0];
  const heads = $$("thead th", table);
  heads.forEach((head, column) => {
    const button = $("button", head);
    if (!button) return;
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first || "ascending";
      const way = now === null ? first : now === "ascending" ? "descending" : "ascending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way);
      const sign = way === "ascending" ? 1 : -1;
      const key = (row) => { const cell = row.cells[column]; return cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v === "" ? null : Number(cell.dataset.v); };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * (typeof a === "number" ? a - b : a.localeCompare(b))));
      body.append(...rows.map(([, row]) => row));
    });
  });
  const search = $(`#filter-${CSS.escape(table.id)}`), count = $(`#count-${CSS.escape(table.id)}`);
  if (search) {
    const all = body.rows.length;
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${words.length ? `${shown} of ` : ""}${all} ${table.dataset.sorts}`;
    });
  }
}

// --- the sentences

const explorer = (() => {
  const root = $("#explorer");
  if (!root) return null;
  const control = (name) => $(`#sentences-${name}`);
  const PAGE = 40;
  let shown = PAGE, found = [];
  const sets = DATA.sentences;
  const set = () => sets[Number(control("task").value) || 0];
  const run = () => set().runs[Number(control("run").value) || 0];
  const options = (select, values) => select.replaceChildren(...values.map(([value, text]) => make("option", { value }, text)));
  const percent = (thousandths) => (thousandths === null ? "" : `${(thousandths / 10).toFixed(1)} %`);

  function takeTask() {
    const { labels, runs, source } = set();
    options(control("run"), runs.map((each, place) => [place, each.name]));
    options(control("label"), [["", "any"], ...labels.map((label, place) => [place, label])]);
    const kinds = labels.flatMap((a, i) => labels.map((b, j) => [i, j, `${a}, called ${b}`])).filter(([i, j]) => i !== j);
    options(control("kind"), [["wrong", "wrong"], ...kinds.map(([i, j, text]) => [`${i}>${j}`, text]), ["right", "right"], ["", "all"]]);
    control("source-box").hidden = !source;
    if (source) options(control("source"), [["", "any"], ...[...new Set(source)].filter(Boolean).sort().map((each) => [each, each])]);
    update();
  }

  function update() {
    const { text, label, source, wrong } = set(), { predicted, confidence } = run();
    const words = control("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wantedLabel = control("label").value, kind = control("kind").value, wantedSource = source ? control("source").value : "";
    found = [];
    for (let i = 0; i < text.length; i += 1) {
      const isWrong = predicted[i] !== label[i];
      if (wantedLabel !== "" && label[i] !== Number(wantedLabel)) continue;
      if (kind === "wrong" && !isWrong) continue;
      if (kind === "right" && isWrong) continue;
      if (kind.includes(">") && kind !== `${label[i]}>${predicted[i]}`) continue;
      if (wantedSource && source[i] !== wantedSource) continue;
      const lower = text[i].toLowerCase();
      if (words.every((word) => lower.includes(word))) found.push(i);
    }
    const sure = (i) => (confidence ? (predicted[i] !== label[i] ? confidence[i] : -confidence[i]) : 0);
    const by = control("order").value;
    if (by === "sure") found.sort((a, b) => sure(b) - sure(a) || wrong[b] - wrong[a]);
    else if (by === "hard") found.sort((a, b) => wrong[b] - wrong[a] || sure(b) - sure(a));
    shown = PAGE;
    show();
  }

  function marked(text) {
    const words = control("search").value.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    if (!words.length) return [text];
    return text.split(new RegExp(`(${words.join("|")})`, "gi")).map((part, place) => (place % 2 ? make("mark", {}, part) : part));
  }

  function show() {
    const { text, label, source, wrong, judges, labels, total } = set(), { predicted, confidence } = run();
    const body = root.tBodies[0];
    body.replaceChildren(...found.slice(0, shown).map((i) => {
      const isWrong = predicted[i] !== label[i];
      return make("tr", {},
        make("th", { scope: "row", class: "sentence" }, ...marked(text[i])),
        make("td", { "data-label": "true class" }, labels[label[i]]),
        make("td", { "data-label": "this run says", class: isWrong ? "wrong" : "right" }, `${isWrong ? "✗" : "✓"} ${labels[predicted[i]]}`),
        make("td", { "data-label": "how sure", class: "n" }, confidence ? percent(confidence[i]) : "not said"),
        make("td", { "data-label": "runs wrong", class: "n" }, `${wrong[i]} of ${judges}`),
        make("td", { "data-label": "source" }, source ? source[i] : "none"));
    }));
    control("count").textContent = `${found.length.toLocaleString("en")} of ${text.length.toLocaleString("en")} sentences` +
      (text.length < total ? ` (of ${total.toLocaleString("en")} the hardest are here)` : "") + (found.length > shown ? `, the first ${shown} shown` : "");
    control("more").hidden = found.length <= shown;
  }

  options(control("task"), sets.map((each, place) => [place, each.title]));
  control("task").addEventListener("change", takeTask);
  for (const name of ["run", "label", "kind", "source", "order"]) control(name).addEventListener("change", update);
  control("search").addEventListener("input", update);
  control("more").addEventListener("click", () => { const before = shown; shown += PAGE; show(); $$("tbody th", root)[before]?.scrollIntoView({ block: "nearest" }); });
  takeTask();
  return {
    data() {
      const { title, text, label, source, wrong, judges, labels, row } = set(), { run: name, predicted, confidence } = run();
      return {
        title: `${title}: sentences`, caption: "The sentences found, in the order shown.", runs: [name], features: [],
        columns: ["row", "sentence", "true", "predicted", "confidence", "runs_wrong", "runs", "source", "run"],
        rows: found.map((i) => [row[i], text[i], labels[label[i]], labels[predicted[i]], confidence ? confidence[i] / 1000 : null, wrong[i], judges, source ? source[i] : null, name]),
      };
    },
  };
})();

// --- which section is being read

const links = new Map($$(".sections a").map((link) => [link.hash.slice(1), link]));
const seenNow = new Set();
const reading = new IntersectionObserver((seen) => {
  for (const each of seen) {
    if (each.isIntersecting) seenNow.add(each.target.id);
    else seenNow.delete(each.target.id);
  }
  const first = [...links.keys()].find((name) => seenNow.has(name));
  for (const [name, link] of links) {
    if (name !== first) link.removeAttribute("aria-current");
    else if (link.getAttribute("aria-current") !== "true") {
      link.setAttribute("aria-current", "true");
      const list = link.closest("ul");
      list.scrollLeft = link.offsetLeft - list.offsetLeft - 40;
    }
  }
}, { rootMargin: "-15% 0px -60% 0px" });
for (const section of $$("main > section")) reading.observe(section);
