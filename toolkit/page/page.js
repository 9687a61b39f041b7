"use strict";
// Without this script all is there: pictures one below the other, curves without the numbers at the pointer.

function ready() {
  document.querySelectorAll(".chart").forEach(follow);
  document.querySelectorAll(".steps").forEach(slide);
}

function number(value) {
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return size < 1000 ? String(Number(value.toPrecision(4))) : Math.round(value).toLocaleString("en");
}

function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle; else high = middle;
  }
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
}

// The numbers at the pointer stand in the legend, which has the last ones otherwise.
function follow(chart) {
  const axes = JSON.parse(chart.dataset.axes), series = JSON.parse(chart.dataset.series);
  const svg = chart.querySelector("svg"), pointer = chart.querySelector(".pointer");
  const cells = [...chart.querySelectorAll(".legend b")], last = cells.map((cell) => cell.textContent);
  const title = chart.querySelector("figcaption"), name = title.textContent;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), place = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const share = Math.min(1, Math.max(0, (place - axes.left) / (axes.right - axes.left)));
    const x = axes.x[0] + share * (axes.x[1] - axes.x[0]);
    let at = null;
    series.forEach((line, i) => {
      const [step, value] = nearest(line[3], x);
      cells[i].textContent = number(value);
      if (at === null || Math.abs(step - x) < Math.abs(at - x)) at = step;
    });
    title.textContent = name + " at " + number(at);
    const drawn = axes.x[1] > axes.x[0] ? (at - axes.x[0]) / (axes.x[1] - axes.x[0]) : 0.5;
    const line = axes.left + drawn * (axes.right - axes.left);
    pointer.setAttribute("x1", line);
    pointer.setAttribute("x2", line);
  });
  svg.addEventListener("pointerleave", () => {
    title.textContent = name;
    cells.forEach((cell, i) => { cell.textContent = last[i]; });
    pointer.setAttribute("x1", -9);
    pointer.setAttribute("x2", -9);
  });
}

// One picture at a time, the newest first, and a slider over the steps.
function slide(group) {
  const figures = [...group.querySelectorAll("[data-step]")].sort((a, b) => a.dataset.step - b.dataset.step);
  if (figures.length < 2) return;
  const label = document.createElement("label"), input = document.createElement("input");
  const words = document.createElement("span");
  label.className = "slider";
  Object.assign(input, { type: "range", min: 0, max: figures.length - 1, value: figures.length - 1 });
  const show = () => {
    figures.forEach((figure, i) => figure.classList.toggle("hidden", i !== Number(input.value)));
    words.textContent = "step " + Number(figures[input.value].dataset.step).toLocaleString("en");
  };
  input.addEventListener("input", show);
  label.append(input, words);
  group.prepend(label);
  show();
}

// A page that is served beside a training takes the newer one's place in it, where somebody is not just using it.
async function renew() {
  try {
    const answer = await fetch("state", { cache: "no-store" });
    const state = await answer.text();
    if (renew.state !== undefined && state !== renew.state) {
      const text = await (await fetch("", { cache: "no-store" })).text();
      const open = [...document.querySelectorAll("details")].map((one) => one.open);
      document.querySelector("main").replaceWith(new DOMParser().parseFromString(text, "text/html").querySelector("main"));
      document.querySelectorAll("details").forEach((one, i) => { one.open = open[i] === true; });
      ready();
    }
    renew.state = state;
  } catch (error) {
    // the training, or the page's server, has ended: the page stays as it is
  }
  setTimeout(renew, 3000);
}

ready();
if (document.body.dataset.live) renew();
