"use strict";
(() => {
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, attributes = {}, text = "") => {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const cardOf = name => all("#cards > a").find(card => card.id === name);

// --- Tables: a head or a choice sorts, a word filters.
for (const table of all("table.sorts")) {
  const body = table.tBodies[0], heads = all("th", table);
  const cards = table.id === "results" && document.getElementById("cards");
  const cardOfRow = row => cardOf(row.cells[0].textContent);
  const order = (column, down) => {
    heads.forEach(head => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.sort;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // what is missing comes last
      const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -difference : difference;
    };
    const rows = [...body.rows], fixed = row => row.classList.contains("fixed");
    body.append(...rows.filter(row => !fixed(row)).sort(compare), ...rows.filter(fixed));
    if (cards) cards.append(...[...body.rows].map(cardOfRow).filter(Boolean));  // in their order
  };
  const titles = heads.map(head => head.textContent);
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, head.textContent);
    button.onclick = () => order(column, head.getAttribute("aria-sort") === "ascending");
    head.replaceChildren(button);
  });
  const tools = document.querySelector(`.table-tools[data-for="${table.id}"]`);
  if (!tools) continue;
  const search = make("input", { type: "search", placeholder: "Filter rows", "aria-label": "Filter rows" });
  const facets = heads.flatMap((head, column) => {
    if (!("facet" in head.dataset)) return [];
    const select = make("select", { "aria-label": `Only ${titles[column]}` });
    const values = new Set([...body.rows].map(row => row.cells[column].textContent));
    select.append(make("option", { value: "" }, `${titles[column]}: all`));
    for (const value of [...values].sort()) select.append(make("option", { value }, value));
    return [[select, column]];
  });
  const shown = make("output", { "aria-live": "polite" });
  const filter = () => {
    const word = search.value.toLowerCase(), rows = [...body.rows];
    for (const row of rows) {
      const apart = ([select, column]) => select.value && row.cells[column].textContent !== select.value;
      row.hidden = !row.textContent.toLowerCase().includes(word) || facets.some(apart);
      const card = cards && cardOfRow(row);
      if (card) card.hidden = row.hidden;
    }
    const left = rows.filter(row => !row.hidden).length;
    shown.textContent = left < rows.length ? `${left} of ${rows.length} rows` : "";
  };
  for (const each of [search, ...facets.map(([select]) => select)]) each.oninput = filter;
  const choice = make("select", { "aria-label": "Sort by" });
  choice.append(make("option", { value: "" }, "Sort by …"));
  titles.forEach((title, column) => {
    choice.append(make("option", { value: `${column} up` }, `${title}, lowest first`));
    choice.append(make("option", { value: `${column} down` }, `${title}, highest first`));
  });
  choice.onchange = () => {
    const [column, way] = choice.value.split(" ");
    if (way) order(Number(column), way === "down");
  };
  tools.append(search, ...facets.map(([select]) => select), choice, shown);
}

const holder = document.getElementById("page-data");
if (!holder) return;
const data = JSON.parse(holder.textContent);
const networks = data.networks ?? {}, names = Object.keys(networks);
const slider = document.getElementById("position");
const positions = [...new Set(names.flatMap(name => networks[name].positions))].sort((a, b) => a - b);

// --- Images: a sheet of frames, whose numbers are read back from its pixels.
class Sheet {
  constructor(given) {
    Object.assign(this, given);
    this.picture = new Image();
    this.ready = new Promise(done => { this.picture.onload = done; });
    this.picture.src = given.sheet;
  }
  // The values of a frame, (channels, height, width) one after another.
  values(frame) {
    if (this.frame === frame) return this.read;
    const canvas = make("canvas", { width: this.width, height: this.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const column = frame % this.columns, row = Math.floor(frame / this.columns);
    context.drawImage(this.picture, -column * this.width, -row * this.height);
    const bytes = context.getImageData(0, 0, this.width, this.height).data;
    const size = this.width * this.height, found = new Float32Array(this.channels * size);
    const low = this.low[frame], scale = (this.high[frame] - low) / 255;
    for (let pixel = 0; pixel < size; pixel++)
      for (let c = 0; c < this.channels; c++) found[c * size + pixel] = low + scale * bytes[4 * pixel + c];
    [this.frame, this.read] = [frame, found];
    return found;
  }
}
const sheets = {};
for (const name of names) sheets[name] = new Sheet(networks[name].frames);
for (const name of Object.keys(data.references ?? {})) sheets[name] = new Sheet(data.references[name]);
const reference = name => data.references[name] ? sheets[name].values(0) : null;

const minus = (values, other, mask) => {
  if (!other) return null;
  const size = mask ? mask.length : 1;
  return values.map((value, i) => (value - other[i]) * (mask ? mask[i % size] : 1));
};

// Grey is 0 of a difference; a map that is no image goes from black to white over its own range.
const rangeOf = (name, part) => {
  if (part !== "image" || data.signed && networks[name]) return [-data.scale, data.scale];
  return (data.ranges ?? {})[name] ?? [0, 1];
};
const paint = (canvas, values, given, [low, high]) => {
  const size = given.width * given.height;
  if (data.signal) return plotSignal(canvas, values, given, [low, high]);
  [canvas.width, canvas.height] = [given.width, given.height];
  const picture = new ImageData(given.width, given.height);
  for (let pixel = 0; pixel < size; pixel++) {
    for (let c = 0; c < 3; c++) {
      const value = values[(given.channels === 3 ? c : 0) * size + pixel];
      const share = (value - low) / (high - low);
      picture.data[4 * pixel + c] = Math.round(255 * Math.min(1, Math.max(0, share)));
    }
    picture.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(picture, 0, 0);
};
const plotSignal = (canvas, values, given, range) => {
  [canvas.width, canvas.height] = [480, 240];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.strokeStyle = colour("--accent");
  const margin = 0.05 * (range[1] - range[0]), [low, high] = [range[0] - margin, range[1] + margin];
  for (let line = 0; line < given.height; line++) {
    context.beginPath();
    for (let i = 0; i < given.width; i++) {
      const y = 240 * (high - values[line * given.width + i]) / (high - low);
      context.lineTo(480 * (i + 0.5) / given.width, y);
    }
    context.stroke();
  }
};

// The last frame of a network that isn't after this position: an iteration, or a rank.
const frameOf = (name, position) => {
  const at = networks[name].positions;
  let frame = 0;
  while (frame + 1 < at.length && at[frame + 1] <= position) frame++;
  return frame;
};

const panes = all(".pane").map(root => {
  const pane = { root, choice: root.querySelector("select"), parts: {} };
  for (const figure of all("figure", root)) pane.parts[figure.dataset.part] = figure;
  pane.choice.onchange = () => draw(pane);
  for (const [part, figure] of Object.entries(pane.parts)) {
    const canvas = figure.querySelector("canvas");
    const tell = event => {
      const values = pane.values && pane.values[part];
      if (!values) return;
      const given = sheets[pane.choice.value], box = canvas.getBoundingClientRect();
      const x = Math.min(given.width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * given.width)));
      const y = Math.min(given.height - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * given.height)));
      const size = given.width * given.height, each = [];
      if (data.signal) for (let line = 0; line < given.height; line++) each.push(values[line * given.width + x]);
      else for (let c = 0; c < given.channels; c++) each.push(values[c * size + y * given.width + x]);
      const [low, high] = rangeOf(pane.choice.value, part), narrow = high - low < 0.5;
      const where = data.signal ? `x ${x}` : `x ${x * data.block}, y ${y * data.block}`;
      root.querySelector(".value").textContent = `${figure.dataset.name}, ${where}: ${each.map(v => narrow ? v.toPrecision(3) : v.toFixed(3)).join("  ")}`;
    };
    canvas.addEventListener("pointermove", tell);
    canvas.addEventListener("pointerdown", tell);
  }
  return pane;
});
const draw = pane => {
  const name = pane.choice.value, own = networks[name], sheet = sheets[name];
  const frame = own ? frameOf(name, positions[slider.value]) : 0;
  const values = sheet.values(frame), mask = reference("mask"), map = !own && name in (data.ranges ?? {});
  pane.values = { image: values };
  for (const other of ["measured", "clean"])
    pane.values[other] = map || name === other ? null : minus(values, reference(other), other === "measured" && mask);
  for (const [part, figure] of Object.entries(pane.parts)) {
    figure.hidden = !pane.values[part];
    if (pane.values[part]) paint(figure.querySelector("canvas"), pane.values[part], sheet, rangeOf(name, part));
  }
  const card = pane.root.querySelector("img.card"), shown = cardOf(name);
  if (card) [card.hidden, card.src, card.alt] = [!shown, shown?.firstChild.src ?? "", shown?.firstChild.alt ?? ""];
  pane.root.querySelector(".at").textContent = own ?
    `${data.word} ${own.positions[frame]}: ${own.said[frame]}` : data.said[name] || "";
};

// --- Curves, by Bokeh.
const plots = {};
const dress = plot => {
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map(colour);
  for (const axis of [...plot.left, ...plot.below]) {
    axis.axis_label_text_color = ink;
    axis.major_label_text_color = soft;
    for (const part of ["axis_line_color", "major_tick_line_color"]) axis[part] = soft;
    axis.minor_tick_line_color = null;
  }
  for (const grid of plot.center) if ("grid_line_color" in grid) grid.grid_line_color = line;
  plot.outline_line_color = line;
  for (const each of plot.renderers) {
    if (each.tags.includes("reference")) each.glyph.line_color = soft;
  }
};
const hidden = () => new Set(all(".networks input").filter(box => !box.checked).map(box => box.value));
const toggle = () => {
  const off = hidden();
  for (const plot of Object.values(plots))
    for (const each of plot.renderers) each.visible = !each.tags.some(tag => off.has(tag));
  for (const card of all("#cards > a")) card.hidden = off.has(card.id);
};
const mark = () => {
  const position = positions[slider.value], said = `${data.word} ${position}`;
  document.getElementById("position-said").textContent = said;
  slider.setAttribute("aria-valuetext", said);
  panes.forEach(draw);
  for (const plot of Object.values(plots)) {
    for (const each of plot.center) if (each.name === "mark") each.location = position + data.offset;
    for (const each of plot.renderers) {
      const name = each.tags[0];
      if (each.name === "at-iteration" && networks[name])
        each.data_source.data = { ...each.data_source.data, power: networks[name].power[frameOf(name, position)] };
    }
  }
};

// --- A sweep: what was measured, along any of its axes.
const study = data.study, value = id => document.getElementById(id).value;
const columns = () => ({ x: [], y: [], low: [], high: [], color: [], label: [] });
const add = (to, found) => Object.keys(to).forEach(key => to[key].push(found[key] ?? NaN));
const drawStudy = () => {
  const plot = plots["chart-study"], along = value("along"), by = value("lines"), what = value("quantity");
  const levels = study.levels[along], groups = by ? study.levels[by] : ["all"];
  const off = new Set(all("#series input").map((box, g) => box.checked ? -1 : g));
  const drawn = { runs: columns(), means: columns(), bars: columns(), lines: columns() };
  groups.forEach((group, g) => {
    if (off.has(g)) return;
    const color = study.palette[g % study.palette.length], line = { x: [], y: [], color, label: "" };
    const shift = (g - (groups.length - 1) / 2) * Math.min(0.08, 0.6 / groups.length);
    const places = levels.map(() => []);
    study.values[what].forEach((y, run) => {
      if (y !== null && (!by || study.codes[by][run] === g)) places[study.codes[along][run]].push([run, y]);
    });
    places.forEach((found, level) => {
      if (!found.length) return;
      const x = level + shift, mean = found.reduce((sum, [, y]) => sum + y, 0) / found.length;
      for (const [run, y] of found) {
        const said = Object.keys(study.levels).map(axis => `${axis} ${study.levels[axis][study.codes[axis][run]]}`);
        add(drawn.runs, { x, y, color, label: `${y.toPrecision(4)}: ${said.join(", ")}` });
      }
      const squares = found.reduce((sum, [, y]) => sum + (y - mean) ** 2, 0);
      const deviation = found.length > 1 ? Math.sqrt(squares / (found.length - 1)) : 0;
      const runs = found.length > 1 ? ` +- ${deviation.toPrecision(2)} (${found.length} runs)` : " (1 run)";
      const label = `${by ? `${by} ${group}, ` : ""}${along} ${levels[level]}: ${mean.toPrecision(4)}${runs}`;
      add(drawn.means, { x, y: mean, color, label });
      add(drawn.bars, { x, low: mean - deviation, high: mean + deviation, color, label });
      line.x.push(x);
      line.y.push(mean);
    });
    add(drawn.lines, line);
  });
  for (const each of plot.renderers) each.data_source.data = drawn[each.name];
  const [axis] = plot.below;
  axis.major_label_overrides = new Map(levels.map((label, level) => [level, label]));
  axis.ticker.ticks = levels.map((_, level) => level);
  axis.major_label_orientation = levels.join("").length * 9 > plot.inner_width ? 0.7 : "horizontal";
  axis.axis_label = along;
  plot.left[0].axis_label = what;
  [plot.x_range.start, plot.x_range.end] = [-0.5, levels.length - 0.5];
  const ends = [...drawn.runs.y, ...drawn.bars.low, ...drawn.bars.high];
  const [low, high] = [Math.min(...ends), Math.max(...ends)], margin = 0.05 * (high - low) || 1;
  if (ends.length) [plot.y_range.start, plot.y_range.end] = [low - margin, high + margin];
};
const listSeries = () => {
  const by = value("lines");
  document.getElementById("series").replaceChildren(...(by ? study.levels[by] : []).map((name, g) => {
    const label = make("label"), box = make("input", { type: "checkbox" }), swatch = make("span", { class: "swatch" });
    box.checked = true;
    box.onchange = drawStudy;
    swatch.style.borderColor = study.palette[g % study.palette.length];
    label.append(box, swatch, name);
    return label;
  }));
  drawStudy();
};

const start = async () => {
  await Promise.all(Object.values(sheets).map(sheet => sheet.ready));
  if (slider) {
    slider.max = positions.length - 1;
    const best = positions.findIndex(position => position >= data.start);
    slider.value = best < 0 ? positions.length - 1 : best;
    slider.oninput = mark;
  }
  for (const [id, item] of Object.entries(data.charts)) {
    const shown = await Bokeh.embed.embed_item(item, id);
    const view = [...shown.roots ?? Object.values(shown)][0];
    plots[id] = view.model;
    dress(view.model);
  }
  all(".networks input").forEach(box => { box.onchange = toggle; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    Object.values(plots).forEach(dress);
    panes.forEach(draw);
  });
  slider ? mark() : panes.forEach(draw);
  if (study) {
    for (const id of ["quantity", "along"]) document.getElementById(id).onchange = drawStudy;
    document.getElementById("lines").onchange = listSeries;
    listSeries();
  }
  document.documentElement.dataset.ready = "yes";
};
start();
})();
