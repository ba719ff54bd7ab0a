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
  const legend = legendItems < 1 ? 0 : 14 + 20 * Math.ceil(legendItems / Math.max(1, Math.floor(width / 215)));
  const margin = { l: 10, r: 12, t: 8, b: 8 };
  const body = lines * figure.height;
  return { columns, lines, legend, margin, body, height: body + legend + margin.t + margin.b };
}

// --- names in a figure: each where it hides nothing, or not at all, as whatever points there says it too

const pen = document.createElement("canvas").getContext("2d");
const plain = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
function wideOf(text, size) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(plain(text)).width;
}

/** As much of a text as has room, with an ellipsis for the rest. */
function fitted(text, size, room) {
  if (wideOf(text, size) <= room) return text;
  const letters = [...plain(text)];
  while (letters.length > 1 && wideOf(`${letters.join("")}…`, size) > room) letters.pop();
  return `${letters.join("").trim().replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;")}…`;
}

const share = (value, { type, range }) => ((type === "log" ? Math.log10(value) : value) - range[0]) / (range[1] - range[0]);
const spot = (x, y, panel, area) => [share(x, panel.x) * area.wide, (1 - share(y, panel.y)) * area.high];

/** As many of a panel's ticks as have room: all, else the first of each power, else every other one of these. */
function ticksThatFit(panel, area) {
  const room = (ticks) => ticks.every((tick, place) => !place || (share(tick.at, panel.x) - share(ticks[place - 1].at, panel.x)) * area.wide
    > (wideOf(tick.text, 11.5) + wideOf(ticks[place - 1].text, 11.5)) / 2 + 9);
  const major = panel.ticks.filter((tick) => tick.is_major);
  const choices = [panel.ticks, ...(major.length > 1 ? [major, major.filter((_, place) => place % 2 === 0)] : [panel.ticks.filter((_, place) => place % 2 === 0)])];
  const shown = choices.find(room) || choices.at(-1);
  return { tickvals: shown.map((tick) => tick.at), ticktext: shown.map((tick) => tick.text) };
}

/** Boxes of what is drawn, [left, top, right, bottom] in pixels: marks, which nothing may hide, and lines, better left free. */
function marksOf(traces, panel, area) {
  const marks = [], lines = [];
  for (const trace of traces) {
    const at = trace.x.map((x, place) => spot(x, trace.y[place], panel, area));
    if (trace.mode.includes("markers")) {
      at.forEach(([x, y], place) => {
        const half = (Array.isArray(trace.marker.size) ? trace.marker.size[place] : trace.marker.size) / 2 + 1;
        marks.push([x - half, y - half, x + half, y + half]);
        if (trace.error_y) {
          const [, top] = spot(trace.x[place], trace.y[place] + (trace.error_y.array[place] || 0), panel, area);
          const [, bottom] = spot(trace.x[place], trace.y[place] - (trace.error_y.arrayminus[place] || 0), panel, area);
          lines.push([x - 1, top, x + 1, bottom]);
        }
      });
    } else {
      at.slice(1).forEach(([x, y], place) => { // first across, then up
        const [x0, y0] = at[place];
        lines.push([x0, y0 - 1, x, y0 + 1], [x - 1, Math.min(y, y0), x + 1, Math.max(y, y0)]);
      });
    }
  }
  return { marks, lines };
}

const meets = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
const ANCHORS = [["right", "bottom"], ["center", "bottom"], ["left", "bottom"], ["right", "middle"], ["left", "middle"], ["right", "top"], ["left", "top"], ["center", "top"]];

function boxOf([x, y], width, height, [xanchor, yanchor], away) {
  const left = xanchor === "right" ? x - away - width : xanchor === "left" ? x + away : x - width / 2;
  const top = yanchor === "bottom" ? y - away - height : yanchor === "top" ? y + away : y - height / 2;
  return [left, top, left + width, top + height];
}

const farFrom = ([left, top, right, bottom], [x, y]) => Math.hypot(Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));

/** The best free place around a point for its name, taken from then on, as plotly's annotation has it; null where none is.
 *  Beside the point if there is room; else farther away, `led` to it by a line, so that it may be nearer to another point. */
function freePlace(label, panel, area, taken, size, led = false) {
  const at = spot(label.x, label.y, panel, area), width = wideOf(label.text, size) + 4, height = size + 4;
  let best = null;
  for (const away of led ? [24, 32, 45, 60] : [8, 17]) {
    for (const anchors of ANCHORS) {
      const box = boxOf(at, width, height, anchors, away);
      if (box[0] < 3 || box[2] > area.wide - 1 || box[1] < 1 || box[3] > area.high - 3) continue;
      if (taken.marks.some((mark) => meets(box, mark))) continue;
      const own = farFrom(box, at);  // a name nearer to another point would be taken for that one's
      if (!led && panel.labels.some((other) => other !== label && farFrom(box, spot(other.x, other.y, panel, area)) < own + 8)) continue;
      const cost = taken.lines.filter((line) => meets(box, line)).length + (away > 8 ? away / 10 : 0);
      if (!best || cost < best.cost) best = { cost, box, anchors, away };
    }
  }
  if (!best || (best.cost > 4 && !led)) return led ? null : freePlace(label, panel, area, taken, size, true);
  taken.marks.push(best.box);
  const [xanchor, yanchor] = best.anchors, { away } = best;
  const across = xanchor === "right" ? -away : xanchor === "left" ? away : 0, up = yanchor === "bottom" ? away : yanchor === "top" ? -away : 0;
  const point = { x: panel.x.type === "log" ? Math.log10(label.x) : label.x, y: label.y, xanchor, yanchor };
  if (!led) return { ...point, showarrow: false, xshift: across, yshift: up };
  return { ...point, showarrow: true, ax: across, ay: -up, arrowhead: 0, arrowwidth: 1, arrowcolor: colourOf("--text"), standoff: 6 };
}

/** At which end of a line across the panel, above or below it, its name hides nothing. */
function freeEnd(line, panel, area, taken) {
  const y = (1 - share(line.y, panel.y)) * area.high, width = wideOf(line.name, 11) + 6, height = 15;
  const ends = [[1, "right", "bottom"], [0, "left", "bottom"], [1, "right", "top"], [0, "left", "top"], [0.5, "center", "bottom"], [0.5, "center", "top"]];
  const boxes = ends.map(([x, xanchor, yanchor]) => boxOf([x * area.wide, y], width, height, [xanchor, yanchor], 0));
  const hidden = boxes.map((box) => 9 * taken.marks.filter((mark) => meets(box, mark)).length
    + taken.lines.filter((one) => meets(box, one)).length + (box[1] < 0 || box[3] > area.high ? 99 : 0));
  const [x, xanchor, yanchor] = ends[hidden.indexOf(Math.min(...hidden))];
  return { x, xanchor, yanchor };
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
    showlegend: items > 0, hovermode: "closest", dragmode: "zoom",
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
      layout.annotations.push({ text: `<b>${fitted(panel.title, 13.5, (x[1] - x[0]) * inner)}</b>`, showarrow: false, xref: "paper", yref: "paper", x: x[0], y: y[1],
                                xanchor: "left", yanchor: "bottom", yshift: 3, font: { size: 12.5 } });
    }
    const area = { wide: (x[1] - x[0]) * inner, high: (y[1] - y[0]) * inside };
    if (panel.ticks) Object.assign(layout[`xaxis${suffix}`], ticksThatFit(panel, area));
    const taken = (panel.labels || panel.lines) ? marksOf(variant.traces.filter((trace) => trace.panel === number), panel, area) : null;
    for (const each of panel.labels || []) {
      const place = freePlace(each, panel, area, taken, 11.5);
      if (place) layout.annotations.push({ text: each.text, xref: `x${suffix}`, yref: `y${suffix}`, font: { size: 11.5, color: text }, borderpad: 0, ...place });
    }
    for (const each of panel.lines || []) {
      layout.shapes.push({ type: "line", xref: `x${suffix} domain`, yref: `y${suffix}`, x0: 0, x1: 1, y0: each.y, y1: each.y,
                           line: { color: muted, width: 1.2, dash: "dash" } });
      layout.annotations.push({ text: each.name, showarrow: false, xref: `x${suffix} domain`, yref: `y${suffix}`, y: each.y, borderpad: 0,
                                font: { size: 11, color: muted }, ...freeEnd(each, panel, area, taken) });
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
    if (plot.closest("[hidden]")) { // it has no width now: it is drawn afresh when it is shown
      plot.dataset.state = "waiting";
      near.observe(plot);
    } else if (["drawn", "loading"].includes(plot.dataset.state)) draw(plot);
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

// --- of which corpora: one of each task at a time

const switches = $$("select.switch");
function showCorpora() {
  const off = new Set(switches.flatMap((each) => [...each.options].map((option) => option.value).filter((value) => value !== each.value)));
  for (const each of $$("[data-corpus]")) each.hidden = off.has(each.dataset.corpus);
  for (const plot of $$(".plot[data-state=waiting]")) if (!plot.closest("[hidden]")) reserve(plot);
}
for (const each of switches) {
  each.addEventListener("change", () => { showCorpora(); if (explorer) explorer.take(each.value); });
}
for (const button of $$("button[data-show]")) {
  button.addEventListener("click", () => {
    const choice = switches.find((each) => [...each.options].some((option) => option.value === button.dataset.show));
    choice.value = button.dataset.show;
    choice.dispatchEvent(new Event("change"));
    $("#cost").scrollIntoView();
    choice.focus({ preventScroll: true });
  });
}

showCorpora(); // a browser that comes back to the page may have kept another choice
for (const plot of $$(".plot")) near.observe(plot);
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
      count.textContent = `${words.length ? `${shown} of ` : ""}${all} ${table.dataset.sorts}${all === 1 ? "" : "s"}`;
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
  const set = () => sets[Number(control("corpus").value) || 0];
  const run = () => set().runs[Number(control("run").value) || 0];
  const options = (select, values) => select.replaceChildren(...values.map(([value, text]) => make("option", { value }, text)));
  const percent = (thousandths) => (thousandths === null ? "" : `${(thousandths / 10).toFixed(1)} %`);

  function takeCorpus() {
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

  options(control("corpus"), sets.map((each, place) => [place, each.title]));
  control("corpus").addEventListener("change", takeCorpus);
  for (const name of ["run", "label", "kind", "source", "order"]) control(name).addEventListener("change", update);
  control("search").addEventListener("input", update);
  control("more").addEventListener("click", () => { const before = shown; shown += PAGE; show(); $$("tbody th", root)[before]?.scrollIntoView({ block: "nearest" }); });
  takeCorpus();
  return {
    /** Show the sentences of a corpus, where they are here. */
    take(id) {
      const place = sets.findIndex((each) => each.corpus === id);
      if (place >= 0) { control("corpus").value = String(place); takeCorpus(); }
    },
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

// --- tables wider than their box fade out on the right, and a line above says so

function hint(box) {
  const line = make("p", { class: "more", "aria-hidden": "true" });
  const look = () => {
    const edge = box.getBoundingClientRect().right;
    const beyond = $$("thead th", box).filter((each) => each.getBoundingClientRect().right > edge + 1).length;
    line.textContent = `${beyond} more ${beyond === 1 ? "column" : "columns"}: scroll →`;
    line.hidden = !beyond;
    box.toggleAttribute("data-more", beyond > 0);
  };
  box.before(line);
  new ResizeObserver(look).observe(box);
  box.addEventListener("scroll", look, { passive: true });
}

for (const table of $$("table[data-sorts]")) hint(table.closest(".box"));
