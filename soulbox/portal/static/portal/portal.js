// What the portal's pages do beyond links and forms. Everything works without it, but the chart's picture.
"use strict";

// A form that is sent is not sent again by a second click. The back button brings a fresh one.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  const asked = event.target.dataset.confirm;
  if (asked && !window.confirm(asked)) {
    event.preventDefault();
    return;
  }
  if (event.target.method !== "post") return;
  const buttons = event.target.querySelectorAll("button");
  // After the form was read: a disabled button's value would not be sent.
  setTimeout(() => buttons.forEach((button) => { button.disabled = true; }));
});
window.addEventListener("pageshow", () => {
  document.querySelectorAll("form button[disabled]").forEach((button) => { button.disabled = false; });
});

// A choice that needs no button, such as the account's, is sent as soon as it is made.
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-sends]")) event.target.form.requestSubmit();
});

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Bars, each meter on top of those before it: drawn from the highest sum to the lowest.
function stacked(meters) {
  const sums = [];
  for (const meter of meters) {
    const below = sums.length ? sums[sums.length - 1] : meter.amounts.map(() => 0);
    sums.push(meter.amounts.map((amount, at) => below[at] + Number(amount)));
  }
  return sums;
}

function drawChart(place) {
  const given = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  const days = given.days.map((day) => Date.parse(`${day}T00:00:00Z`) / 1000);
  const order = given.meters.map((_, at) => at).reverse();
  const sums = stacked(given.meters);
  const name = (at) => new Date(days[at] * 1000).toLocaleDateString("en", { day: "numeric", month: "short", timeZone: "UTC" });
  const words = (at) => {
    const parts = given.meters.filter((meter) => Number(meter.amounts[at])).map((meter) => `${meter.name} ${meter.amounts[at]}`);
    const sum = sums[sums.length - 1][at].toFixed(given.decimals);
    return `${name(at)}: ${sum} ${given.currency}${parts.length > 1 ? ` (${parts.join(", ")})` : ""}`;
  };
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const reading = document.getElementById("cost-reading");
  const plot = new uPlot({
    width: place.clientWidth,
    height: 240,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    padding: [12, 8, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: {
      x: { range: () => [days[0] - 43200, Math.max(days[days.length - 1], days[0] + 6 * 86400) + 43200] },
      y: { range: (_, __, top) => [0, top > 0 ? top * 1.05 : 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, incrs: [1, 2, 5, 10, 15].map((n) => n * 86400), space: 56,
        values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleDateString("en", { day: "numeric", month: "short", timeZone: "UTC" })) },
      { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en", { maximumFractionDigits: 4 })) },
    ],
    series: [{}, ...order.map((at) => ({
      label: given.meters[at].name,
      fill: colour(given.meters[at].colour),
      width: 0,
      paths: uPlot.paths.bars({ size: [0.72, 48] }),
      points: { show: false },
    }))],
    hooks: { setCursor: [(chart) => {
      const at = chart.cursor.idx;
      if (at !== null && at !== undefined && days[at] !== undefined) reading.textContent = words(at);
    }] },
  }, [days, ...order.map((at) => sums[at])], place);
  return { plot, days };
}

function startChart(place) {
  let drawn = drawChart(place);
  let at = drawn.days.length;
  const redraw = () => { drawn.plot.destroy(); drawn = drawChart(place); };
  const legend = document.getElementById("cost-legend");
  for (const meter of JSON.parse(document.getElementById(place.dataset.chart).textContent).meters) {
    const item = legend.appendChild(document.createElement("li"));
    item.appendChild(document.createElement("i")).style.background = `var(${meter.colour})`;
    item.append(meter.name);
  }
  place.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    at = Math.min(Math.max(at + steps[event.key], 0), drawn.days.length - 1);
    drawn.plot.setCursor({ left: drawn.plot.valToPos(drawn.days[at], "x"), top: 0 });
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    drawn.plot.setSize({ width, height: 240 });
  }).observe(place);
}

document.querySelectorAll("[data-chart]").forEach(startChart);
