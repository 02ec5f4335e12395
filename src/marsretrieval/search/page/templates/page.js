"use strict";
(() => {
  const root = document.documentElement;
  const body = document.body;
  const byId = (id) => document.getElementById(id);
  const rows = JSON.parse(byId("rows").textContent); // id, lon, lat, score; store if there are several
  const cards = [...document.querySelectorAll(".card")];
  const dots = new Map(); // index to its marks on all maps
  for (const dot of document.querySelectorAll(".chart .marks [data-i]")) {
    const index = Number(dot.dataset.i);
    dots.set(index, [...(dots.get(index) || []), dot]);
  }
  const dotsOf = (index) => dots.get(index) || [];
  const storeKey = "marsretrieval-marks-" + body.dataset.key;
  const words = { keep: "kept", reject: "rejected" };
  let marks = {}; // index to keep or reject
  let current = 0;
  let filter = "all";

  const clean = (value) => {
    const result = {};
    for (const [index, mark] of Object.entries(value || {})) {
      if (words[mark] && cards[Number(index)]) result[index] = mark;
    }
    return result;
  };
  const read = (text) => {
    try {
      const value = JSON.parse(text);
      return value && value.changed ? { changed: String(value.changed), marks: clean(value.marks) } : null;
    } catch { return null; }
  };
  const stored = () => { try { return localStorage.getItem(storeKey); } catch { return null; } };
  const say = (text) => { byId("status").textContent = text; };
  const note = (text) => { byId("note").textContent = text; byId("note").hidden = !text; };
  const state = () => JSON.stringify({ changed: new Date().toISOString(), marks });

  // The newer of the marks in the file and those in this browser.
  const inFile = read(byId("saved").textContent);
  const inBrowser = read(stored());
  const newest = [inFile, inBrowser].filter(Boolean).sort((a, b) => (a.changed < b.changed ? 1 : -1))[0];
  if (newest) marks = newest.marks;
  if (inFile && inBrowser && newest === inBrowser && JSON.stringify(inFile.marks) !== JSON.stringify(inBrowser.marks)) {
    note("The marks in this browser are newer than those saved in the file, and are shown.");
  }

  const shown = (index) => filter === "all" || (marks[index] || "none") === filter;
  const draw = (index) => {
    const card = cards[index];
    const mark = marks[index] || "";
    for (const element of [card, ...dotsOf(index)]) {
      if (mark) element.dataset.mark = mark; else delete element.dataset.mark;
    }
    for (const button of card.querySelectorAll("[data-set]")) button.setAttribute("aria-pressed", String(button.dataset.set === mark));
    card.querySelector(".state").textContent = mark ? ", " + words[mark] : "";
  };
  const refilter = () => {
    let visible = 0;
    const counts = { all: cards.length, keep: 0, reject: 0, none: 0 };
    cards.forEach((card, index) => {
      counts[marks[index] || "none"] += 1;
      const show = shown(index);
      visible += show;
      card.parentElement.hidden = !show;
      for (const dot of dotsOf(index)) dot.toggleAttribute("data-off", !show);
    });
    for (const element of document.querySelectorAll("[data-count]")) element.textContent = counts[element.dataset.count].toLocaleString("en");
    byId("nothing").hidden = visible > 0 || !cards.length;
  };
  const light = (index, on) => {
    cards[index].classList.toggle("on", on);
    for (const dot of dotsOf(index)) {
      dot.classList.toggle("on", on);
      if (on) dot.parentNode.append(dot); // above its neighbours
    }
  };
  const select = (index, scroll) => {
    const old = cards[current];
    old.tabIndex = -1;
    current = index;
    const card = cards[index];
    card.tabIndex = 0;
    card.focus({ preventScroll: !scroll });
    if (scroll) card.scrollIntoView({ block: "nearest" });
  };
  const step = (from, direction) => {
    let index = from + direction;
    while (index >= 0 && index < cards.length && !shown(index)) index += direction;
    return index >= 0 && index < cards.length ? index : -1;
  };
  const beside = (direction) => {
    // The nearest card of the row above or below.
    const box = cards[current].getBoundingClientRect();
    const middle = box.left + box.width / 2;
    let best = -1;
    let rowTop = null;
    for (let index = step(current, direction); index >= 0; index = step(index, direction)) {
      const other = cards[index].parentElement.getBoundingClientRect();
      if (Math.abs(other.top - box.top) < 2) continue;
      if (rowTop === null) rowTop = other.top;
      if (Math.abs(other.top - rowTop) > 2) break;
      if (best < 0) best = index;
      const distance = (i) => { const at = cards[i].parentElement.getBoundingClientRect(); return Math.abs(at.left + at.width / 2 - middle); };
      if (distance(index) < distance(best)) best = index;
    }
    return best;
  };
  const set = (index, mark) => {
    if (mark) marks[index] = mark; else delete marks[index];
    draw(index);
    try { localStorage.setItem(storeKey, state()); } catch {
      note("This browser keeps no marks for this file: save the page with its marks before you close it.");
    }
    const next = filter === "all" ? -1 : step(index, 1) >= 0 ? step(index, 1) : step(index, -1);
    refilter();
    if (!shown(index) && next >= 0) select(next, true);
    say("Hit " + (index + 1) + (mark ? " " + words[mark] : ": mark cleared"));
  };
  const download = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  // Quoted, and with an apostrophe where a spreadsheet would read a formula.
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r\n]/.test(value) && !/^[+-]?\d+(\.\d+)?$/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const csv = () => [
    ["id", "lon", "lat", "rank", "score", "mark", ...(rows.length && rows[0].length > 4 ? ["store"] : [])],
    ...rows.map(([id, lon, lat, score, ...store], index) => [id, lon, lat, index + 1, score, marks[index] || "", ...store]),
  ].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  const pageWithMarks = () => {
    const copy = root.cloneNode(true);
    copy.querySelector("#saved").textContent = state().replaceAll("<", "\\u003c");
    copy.removeAttribute("data-ready");
    return "<!doctype html>\n" + copy.outerHTML + "\n";
  };

  root.dataset.ready = "";
  cards.forEach((_, index) => draw(index));
  refilter();
  if (cards.length) cards[0].tabIndex = 0;

  for (const input of document.querySelectorAll("[name=filter]")) {
    input.checked = input.value === "all";
    input.addEventListener("change", () => {
      filter = input.value;
      refilter();
      const first = shown(current) ? current : step(-1, 1);
      if (first >= 0) { cards[current].tabIndex = -1; current = first; cards[current].tabIndex = 0; }
      say(input.parentElement.textContent.trim() + " shown");
    });
  }
  byId("csv").addEventListener("click", () => download("marks-" + body.dataset.day + ".csv", "text/csv;charset=utf-8", csv()));
  byId("save").addEventListener("click", () => download("hits-with-marks.html", "text/html;charset=utf-8", pageWithMarks()));
  const gallery = byId("gallery");
  gallery.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    const index = Number(card.dataset.i);
    const button = event.target.closest("[data-set]");
    if (button) set(index, marks[index] === button.dataset.set ? "" : button.dataset.set);
    else if (!event.target.closest("a, summary")) select(index, false);
  });
  gallery.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    cards[current].tabIndex = -1;
    current = Number(card.dataset.i);
    card.tabIndex = 0;
    light(current, true);
  });
  gallery.addEventListener("focusout", (event) => { const card = event.target.closest(".card"); if (card) light(Number(card.dataset.i), false); });
  gallery.addEventListener("mouseover", (event) => { const card = event.target.closest(".card"); if (card) light(Number(card.dataset.i), true); });
  gallery.addEventListener("mouseout", (event) => { const card = event.target.closest(".card"); if (card && card !== document.activeElement) light(Number(card.dataset.i), false); });
  for (const [index, all] of dots) for (const dot of all) {
    dot.addEventListener("mouseenter", () => light(index, true));
    dot.addEventListener("mouseleave", () => { if (cards[index] !== document.activeElement) light(index, false); });
    dot.addEventListener("click", () => select(index, true));
  }
  addEventListener("keydown", (event) => {
    if (!cards.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = document.activeElement && document.activeElement.closest(".card");
    if (!inside && document.activeElement !== body) return;
    const key = event.key.toLowerCase();
    const moves = { arrowright: () => step(current, 1), arrowleft: () => step(current, -1), arrowdown: () => beside(1), arrowup: () => beside(-1), home: () => step(-1, 1), end: () => step(cards.length, -1) };
    if (moves[key]) {
      const index = inside ? moves[key]() : shown(current) ? current : step(-1, 1);
      if (index >= 0) { select(index, true); event.preventDefault(); }
    } else if (inside && { k: 1, r: 1, u: 1 }[key]) {
      set(current, { k: "keep", r: "reject", u: "" }[key]);
      event.preventDefault();
    }
  });
})();
