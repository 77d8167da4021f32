"use strict";
(() => {
  const stage = document.getElementById("compare");
  if (!stage) return;
  const pictures = [...document.querySelectorAll(".panels img[data-figure]")];
  const names = [...document.querySelectorAll("#names button")];
  const planes = [...document.querySelectorAll("#planes button")];
  const large = document.getElementById("large");
  const shown = document.getElementById("shown");
  const flicker = document.getElementById("flicker");
  const figures = names.map((button) => button.dataset.figure);
  const focus = Math.max(0, names.findIndex((button) => "focus" in button.dataset));
  let figure = figures[focus];
  let before = figures[focus === 0 ? 1 : focus - 1];
  let plane = "0";
  let timer = null;

  const draw = () => {
    const source = pictures.find((p) => p.dataset.figure === figure && p.dataset.plane === plane);
    if (!source) return;
    large.src = source.src;
    large.alt = source.alt;
    shown.textContent = source.alt;
    names.forEach((b) => b.classList.toggle("on", b.dataset.figure === figure));
    planes.forEach((b) => b.classList.toggle("on", b.dataset.plane === plane));
  };
  const show = (next) => {
    if (next === figure) return;
    before = figure;
    figure = next;
    draw();
  };
  const still = () => {
    clearInterval(timer);
    timer = null;
    flicker.setAttribute("aria-pressed", "false");
    flicker.classList.remove("on");
  };

  names.forEach((b) => {
    b.addEventListener("mouseenter", () => { if (!timer) show(b.dataset.figure); });
    b.addEventListener("click", () => { still(); show(b.dataset.figure); });
  });
  planes.forEach((b) => b.addEventListener("click", () => { plane = b.dataset.plane; draw(); }));
  large.addEventListener("click", () => { still(); show(before); });
  pictures.forEach((p) => p.addEventListener("click", () => {
    still();
    plane = p.dataset.plane;
    show(p.dataset.figure);
    draw();
    stage.scrollIntoView({ block: "start" });
  }));
  flicker.addEventListener("click", () => {
    if (timer) { still(); return; }
    flicker.setAttribute("aria-pressed", "true");
    flicker.classList.add("on");
    timer = setInterval(() => show(before), 700);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const next = figures[Number(event.key) - 1];
    if (next !== undefined) { still(); show(next); }
  });
  stage.hidden = false;
  draw();
})();
