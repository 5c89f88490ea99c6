"use strict";
// Charts of an application's history. A figure says by its data attributes what it draws, see `chart` in macros.html:
// `values` (name=label ...), `prefix` (all values that begin so) or `versions` (a line each, with the band from
// <name>_lower to <name>_upper); `only` one version, `stacked`, `range`, a horizontal `line` with its `label`, `unit`.
(() => {
  const section = document.querySelector(".charts[data-application]");
  if (!section || !section.dataset.application) return;
  // after Okabe and Ito, each dark or light enough for the theme; lines differ by their dashes as well
  const COLOURS = {
    light: ["#0072b2", "#c04a00", "#007a59", "#a8457f", "#8a6100", "#2c7fb8", "#3c3c3c"],
    dark: ["#56b4e9", "#ff9a4d", "#2fc79a", "#e59cc6", "#e6b800", "#9fc5ff", "#d8d8d8"],
  };
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
  const HEIGHT = 220;
  const QUANTILE = 0.98; // of the values shown, to which a scale reaches: one outlier flattens no curve
  const figures = [...section.querySelectorAll("figure.chart")];
  const places = new Map(); // the number of each line, which keeps its colour while the page is open
  const charts = new Map(); // uPlot by figure
  let data = null, hours = 0.5, timer = 0, turn = 0;

  const widthOf = (figure) => figure.querySelector(".plot").clientWidth;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colours = () => (style("--scheme") === "dark" ? COLOURS.dark : COLOURS.light);

  function format(value, unit) {
    if (value === null || value === undefined) return "–";
    if (unit === "%") return (100 * value).toFixed(Math.abs(value) < 0.1 && value ? 1 : 0) + "\u00a0%";
    const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : unit === "loss" ? 3 : 2;
    const text = String(Number(value.toFixed(digits)));
    return unit === "loss" ? text : unit === "/s" ? text + unit : text + "\u00a0" + unit;
  }

  // --- the data ------------------------------------------------------------------------------------------------------
  async function load() {
    clearTimeout(timer);
    const mine = ++turn;
    const back = (hours - 0.003).toFixed(3); // within what the finest points reach back to
    try {
      const answer = await fetch(`/console/series/${encodeURIComponent(section.dataset.application)}?hours=${back}`);
      if (answer.ok) {
        const found = await answer.json();
        if (mine !== turn) return; // another time was chosen meanwhile
        data = found;
        figures.forEach(draw);
      }
    } catch { /* the gateway is away, which the page says: the next one may succeed */ }
    timer = setTimeout(load, 1000 * Math.min(60, data ? data.step_s : 10));
  }

  // a step before the first figure: a short history fills the charts too, one of a minute at least
  function begin() {
    const columns = [data.values, ...Object.values(data.versions)].flatMap((each) => Object.values(each));
    const first = data.times_s.findIndex((_, at) => columns.some((points) => (points[at] ?? null) !== null));
    return Math.min(data.times_s[Math.max(first - 1, 0)], data.times_s.at(-1) - 60);
  }

  function linesOf({ values, prefix, versions, only }) {
    const line = (label, points, lower, upper) => ({ label, points: points || [], lower, upper });
    let found;
    if (versions) {
      found = Object.keys(data.versions).sort().filter((ref) => !only || ref === only).map((ref) => {
        const of = data.versions[ref];
        return line(ref, of[versions], of[versions + "_lower"], of[versions + "_upper"]);
      });
    } else if (prefix) {
      const names = Object.keys(data.values).filter((name) => name.startsWith(prefix)).sort();
      found = names.map((name) => line(name.slice(prefix.length), data.values[name]));
    } else {
      found = values.split(" ").map((pair) => line(pair.split("=")[1], data.values[pair.split("=")[0]]));
    }
    found = found.filter((one) => one.points.some((value) => value !== null));
    for (const one of found) {
      if (!places.has(one.label)) places.set(one.label, places.size);
      one.place = versions || prefix ? places.get(one.label) : found.indexOf(one);
      one.dash = DASHES[one.place % DASHES.length];
      one.colour = colours()[one.place % COLOURS.light.length];
    }
    return found;
  }

  // --- one chart ---------------------------------------------------------------------------------------------------
  function draw(figure) {
    const lines = linesOf(figure.dataset), empty = figure.querySelector(".empty");
    empty.hidden = lines.length > 0;
    empty.textContent = "Nothing is known of this time. Points come every 10 seconds.";
    const { columns, series, bands } = shapes(lines, figure.dataset);
    const shape = JSON.stringify([lines.map((one) => [one.label, one.colour]), series.length]);
    let chart = charts.get(figure);
    if (chart && chart.shape !== shape) {
      chart.destroy();
      chart = charts.delete(figure) && null;
    }
    if (lines.length && !chart) {
      const plot = figure.querySelector(".plot");
      chart = new uPlot(options(figure, lines, series, bands), [data.times_s, ...columns], plot);
      chart.shape = shape;
      charts.set(figure, chart);
    } else if (chart) {
      chart.lines = lines;
      chart.setData([data.times_s, ...columns]);
    }
    legend(figure, lines);
  }

  function shapes(lines, { stacked }) {
    const columns = [], series = [{}], bands = [];
    const none = { width: 0, points: { show: false } };
    let below = null;
    for (const one of lines) {
      const stroke = { stroke: one.colour, width: 2, dash: one.dash, points: { show: false }, spanGaps: false };
      if (stacked) {
        const sums = one.points.map((value, at) => (value === null ? null : value + (below ? below[at] || 0 : 0)));
        if (below) bands.push({ series: [series.length, series.length - 1], fill: one.colour + "40" });
        else stroke.fill = one.colour + "40";
        columns.push(below = sums.map((value, at) => (value === null && below ? below[at] : value)));
        series.push(stroke);
      } else {
        columns.push(one.points);
        series.push(stroke);
        if (one.lower && one.upper) {
          columns.push(one.upper, one.lower);
          bands.push({ series: [series.length, series.length + 1], fill: one.colour + "26" });
          series.push({ ...none, stroke: one.colour }, { ...none, stroke: one.colour });
        }
      }
    }
    return { columns, series, bands };
  }

  function options(figure, lines, series, bands) {
    const { unit, range } = figure.dataset, text = style("--muted"), grid = { stroke: style("--grid"), width: 1 };
    const own = figure.dataset.line ? Number(figure.dataset.line) : null;
    const clock = (seconds, step) =>
      new Date(1000 * seconds).toISOString().slice(hours > 24 ? 5 : 11, step < 60 ? 19 : 16).replace("T", " ");
    const axis = { stroke: text, grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const fitted = (chart) => {
      const values = (chart.lines || lines).flatMap((one) => [one.points, one.lower, one.upper]).flat();
      const known = values.filter((value) => Number.isFinite(value)).sort((one, other) => one - other);
      const [least, most] = [1 - QUANTILE, QUANTILE].map((part) => known[Math.round(part * (known.length - 1))] ?? 0);
      const near = own !== null && own < 3 * Math.max(most, -least) ? own : 0;
      const low = Math.min(least, near, 0), high = Math.max(most, near) || 1;
      return [low && low - (high - low) / 10, high + (high - low) / 10];
    };
    return {
      width: widthOf(figure), height: HEIGHT, series, bands, legend: { show: false }, padding: [18, 30, 0, 0],
      cursor: { sync: { key: "console" }, drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { range: () => [Math.max(data.times_s.at(-1) - 3600 * hours, begin()), data.times_s.at(-1)] },
        y: { range: range ? range.split(" ").map(Number) : fitted },
      },
      axes: [
        { ...axis, values: (_, at, __, ___, step) => at.map((each) => clock(each, step)), space: hours > 24 ? 90 : 80 },
        { ...axis, size: 62, values: (_, at) => at.map((each) => format(each, unit)) },
      ],
      hooks: {
        draw: [(chart) => drawMarks(chart, chart.lines || lines, own, figure)],
        setCursor: [(chart) => legend(figure, chart.lines || lines, chart.cursor.idx)],
      },
    };
  }

  function drawMarks(chart, lines, own, figure) {
    const { ctx, bbox } = chart, ratio = devicePixelRatio;
    const path = (x1, y1, x2, y2) => { ctx.beginPath(); ctx.moveTo(x1, y1); ctx.lineTo(x2, y2); ctx.stroke(); };
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.strokeStyle = ctx.fillStyle = style("--muted");
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    let free = bbox.left;
    for (const [at, text] of JSON.parse(section.querySelector("[data-marks]")?.dataset.marks || "[]")) {
      const x = chart.valToPos(at, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      path(x, bbox.top, x, bbox.top + bbox.height);
      const shown = text.length > 24 ? text.slice(0, 23) + "…" : text, width = ctx.measureText(shown).width;
      const left = Math.min(x - 3 * ratio, bbox.left + bbox.width - width);
      if (left >= free) ctx.fillText(shown, left, bbox.top - 5 * ratio);
      if (left >= free) free = left + width + 6 * ratio;
    }
    const { min, max } = chart.scales.y, mark = 5 * ratio, { label, unit } = figure.dataset;
    let clipped = 0;
    ctx.setLineDash([]);
    for (const one of lines) {
      ctx.fillStyle = one.colour;
      one.points.forEach((value, at) => { // a triangle where a curve leaves the scale
        if (value === null || (value <= max && value >= min)) return;
        clipped += 1;
        const x = chart.valToPos(data.times_s[at], "x", true), up = value > max ? 1 : -1;
        const y = up > 0 ? bbox.top : bbox.top + bbox.height;
        ctx.beginPath();
        [[0, 0], [-mark, up * 2 * mark], [mark, up * 2 * mark]].forEach(([right, down]) => ctx.lineTo(x + right, y + down));
        ctx.fill();
      });
    }
    figure.dataset.clipped = clipped;
    if (own !== null) {
      const isAbove = own > max, y = isAbove ? bbox.top : chart.valToPos(own, "y", true);
      ctx.fillStyle = style("--muted");
      ctx.setLineDash([8 * ratio, 4 * ratio]);
      if (!isAbove) path(bbox.left, y, bbox.left + bbox.width, y);
      ctx.fillText(`${isAbove ? "↑ " : ""}${label} ${format(own, unit)}`, bbox.left + 4 * ratio, y + (isAbove ? 12 : -4) * ratio);
    }
    ctx.restore();
  }

  function legend(figure, lines, at) {
    const list = figure.querySelector(".legend");
    let place = at ?? data.times_s.length - 1; // the step that has just begun may have no figure yet
    while (at == null && place > 0 && lines.every((one) => (one.points[place] ?? null) === null)) place -= 1;
    while (list.children.length > lines.length) list.lastChild.remove();
    lines.forEach((one, number) => {
      const item = list.children[number] || list.appendChild(legendItem());
      const key = item.querySelector("line");
      key.setAttribute("stroke", one.colour);
      key.setAttribute("stroke-dasharray", one.dash.join(" "));
      item.children[1].textContent = item.children[1].title = one.label;
      item.children[2].textContent = format(one.points[place], figure.dataset.unit);
    });
  }

  function legendItem() {
    const item = document.createElement("li");
    const svg = item.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
    const line = svg.appendChild(document.createElementNS(svg.namespaceURI, "line"));
    for (const [name, value] of Object.entries({ width: 28, height: 8, "aria-hidden": "true" })) svg.setAttribute(name, value);
    for (const [name, value] of Object.entries({ x1: 1, x2: 27, y1: 4, y2: 4, "stroke-width": 3 })) line.setAttribute(name, value);
    item.append(document.createElement("span"), document.createElement("b"));
    return item;
  }

  function redraw() {
    charts.forEach((chart) => chart.destroy());
    charts.clear();
    if (data) figures.forEach(draw);
  }

  section.addEventListener("change", (event) => {
    if (event.target.name !== "hours") return;
    hours = Number(event.target.value);
    load();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(() => charts.forEach((chart, figure) => {
    if (chart.width !== widthOf(figure)) chart.setSize({ width: widthOf(figure), height: HEIGHT });
  })).observe(section);
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : load()));
  load();
})();
