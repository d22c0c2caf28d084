"use strict";
/* What the page can do beyond reading: sort, filter, build cards, show tips, copy. Everything is text to it: elements are
   created one by one, and nothing from the report is ever read as markup or code. */
(() => {
const SHOWN_AT_FIRST = 40;
const TAGS = new Set(("a article bdi caption dd div dl dt em h3 h4 li mark ol p q span strong sub summary table tbody " +
  "td th thead tr").split(" "));
const ATTRIBUTES = new Set(["title", "href", "scope", "colspan", "dir", "aria-label", "tabindex"]);

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
};
const fold = (text) => text.normalize("NFKC").toLowerCase();
const matches = (text, words) => words.every((word) => text.includes(word));
const split = (text) => fold(text).split(/\s+/).filter(Boolean);
const soon = (act) => {
  let waiting = 0;
  return () => { clearTimeout(waiting); waiting = setTimeout(act, 90); };
};

for (const element of all("[data-script]")) element.hidden = false;

/* Tables: sort by any column, filter by words. */
const number = (text) => {
  const found = text.replace(/−/g, "-").replace(/,(?=\d{3})/g, "").match(/[-+]?\d*\.?\d+(?:e[-+]?\d+)?/);
  return found ? Number(found[0]) : null;
};
const valueOf = (row, column, numeric) => {
  const cell = row.cells[column];
  const said = cell.dataset.sort ?? cell.textContent.trim();
  return numeric ? number(said) : fold(said);
};
const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);

function sortable(table) {
  const heads = all("thead tr:last-child > th", table);
  const body = table.tBodies[0];
  const asWritten = Array.from(body.rows);
  if (asWritten.length < 2) return;
  const sort = (head, column, direction) => {
    for (const other of heads) other.removeAttribute("aria-sort");
    if (direction) head.setAttribute("aria-sort", direction);
    const rows = asWritten.map((row) => [row, direction && valueOf(row, column, head.dataset.sort === "number")]);
    const turn = direction === "descending" ? -1 : 1;
    const order = ([, a], [, b]) => (a === null || b === null ? (a === null) - (b === null) : turn * compare(a, b));
    body.append(...(direction ? rows.sort(order) : rows).map(([row]) => row));
  };
  heads.forEach((head, column) => {
    if (!head.dataset.sort) return;
    const button = make("button", "sort");
    button.type = "button";
    const links = all("a", head);
    if (links.length) {
      button.setAttribute("aria-label", `Sort by ${head.textContent.trim()}`);
      if (head.classList.contains("num")) head.prepend(button, " ");
      else head.append(" ", button);
    } else {
      button.append(...head.childNodes);
      head.append(button);
    }
    const turns = head.dataset.sort === "number" ? ["descending", "ascending", null] : ["ascending", "descending", null];
    button.addEventListener("click", () => {
      const now = turns.indexOf(head.getAttribute("aria-sort"));
      sort(head, column, turns[(now + 1) % turns.length]);
    });
  });
}

function filterable(form) {
  const rows = Array.from(document.getElementById(form.dataset.filters).tBodies[0].rows);
  const words = one("input", form), verdict = one("select", form), count = one("output", form);
  const texts = rows.map((row) => fold(row.textContent));
  const apply = () => {
    const wanted = split(words.value);
    let n = 0;
    rows.forEach((row, place) => {
      const shown = matches(texts[place], wanted) && (!verdict.value || row.dataset.verdict === verdict.value);
      row.hidden = !shown;
      n += shown;
    });
    count.textContent = `${n} of ${rows.length} rows`;
  };
  words.addEventListener("input", soon(apply));
  verdict.addEventListener("change", apply);
  apply();
}

/* Tips: the meaning of a word, the numbers of a mark. They stay while the pointer is on them; Escape hides them. */
const tip = make("div", "tip");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
const spoken = make("div", "hidden");
spoken.setAttribute("role", "status");
document.body.append(tip, spoken);
let tipped = null, leaving = 0;

function link(mark, isOn) {
  const row = mark.dataset.row, scope = row && mark.closest("[data-linked]");
  mark.classList.toggle("lit", isOn);
  if (scope) for (const other of all(`[data-row="${CSS.escape(row)}"]`, scope)) other.classList.toggle("lit", isOn);
}
function hide() {
  clearTimeout(leaving);
  if (!tipped) return;
  link(tipped, false);
  if (tipped.getAttribute("aria-describedby") === "tip") tipped.removeAttribute("aria-describedby");
  tipped = null;
  tip.hidden = true;
}
function show(target) {
  clearTimeout(leaving);
  if (target === tipped) return;
  hide();
  if (target.title) {
    target.dataset.tip = target.title;
    target.removeAttribute("title");
  }
  tipped = target;
  link(target, true);
  if (!target.dataset.tip) return;
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  if (target.matches("a, button, [tabindex]")) target.setAttribute("aria-describedby", "tip");
  const at = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 8);
  const above = at.top - own.height - 7;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : at.bottom + 7}px`;
}
const TIPPED = "[data-tip], [title], tr[data-row], td[data-row]";
document.addEventListener("pointerover", (event) => {
  if (tip.contains(event.target)) return clearTimeout(leaving);
  const target = event.target.closest?.(TIPPED);
  if (target) show(target);
});
document.addEventListener("pointerout", () => {
  clearTimeout(leaving);
  leaving = setTimeout(hide, 140);
});
document.addEventListener("focusin", (event) => {
  const target = event.target.closest?.("[data-tip], [title]");
  if (target) show(target); else hide();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
addEventListener("scroll", () => { if (tipped && !tipped.matches(":hover")) hide(); }, { passive: true });

/* Charts: one stop of the Tab key each; arrow keys go from mark to mark, and each is spoken. */
function readable(chart) {
  const marks = all("[data-tip]", chart);
  if (!marks.length) return;
  let at = -1;
  chart.setAttribute("tabindex", "0");
  chart.setAttribute("aria-label", `${chart.getAttribute("aria-label")} Arrow keys read its marks one by one.`);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const place = step ? at + step : { Home: 0, End: marks.length - 1 }[event.key];
    if (place === undefined) return;
    event.preventDefault();
    at = Math.min(marks.length - 1, Math.max(0, place));
    show(marks[at]);
    spoken.textContent = marks[at].dataset.tip;
  });
  chart.addEventListener("blur", () => { at = -1; hide(); });
}

/* Copying: the clipboard where the browser gives it, else a selected field. */
async function copy(text, button) {
  let isDone = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = make("textarea", "hidden");
    field.value = text;
    document.body.append(field);
    field.select();
    isDone = document.execCommand("copy");
    field.remove();
    button.focus();
  }
  button.dataset.said ??= button.textContent;
  button.textContent = isDone ? "Copied" : "Not copied: select it by hand";
  spoken.textContent = button.textContent;
  setTimeout(() => { button.textContent = button.dataset.said; }, 1600);
}

/* Latents: a line each, its card built when it is opened. */
function glossary(link) {
  const word = document.getElementById(link.getAttribute("href").slice(1));
  return word ? one("dd", word).textContent : "";
}
function build(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const [tag, ...classes] = node[0].split(".");
  if (!TAGS.has(tag)) throw new Error(`A card holds no <${tag}>.`);
  const element = make(tag, classes.join(" "));
  for (const part of node.slice(1)) {
    if (typeof part === "string" || Array.isArray(part)) {
      element.append(build(part));
      continue;
    }
    for (const [name, value] of Object.entries(part)) {
      if (!ATTRIBUTES.has(name) || (name === "href" && !value.startsWith("#"))) throw new Error(`A card sets no ${name}.`);
      element.setAttribute(name, value);
    }
  }
  if (classes.includes("term")) element.title = glossary(element);
  return element;
}
function words(node) {
  if (typeof node === "string") return node;
  return node.slice(1).map((part) => (typeof part === "string" || Array.isArray(part) ? words(part) : "")).join(" ");
}

function explore(list) {
  const { latents } = JSON.parse(document.getElementById("latent-data").textContent);
  const byIndex = new Map(latents.map((latent) => [latent.i, latent]));
  const form = one("#latent-tools"), more = one("#latent-more"), count = one("output", form);
  const search = one("#latent-search"), status = one("#latent-status");
  const category = one("#latent-category"), task = one("#latent-task");
  let found = latents, n = SHOWN_AT_FIRST;

  const copier = (latent) => {
    const button = make("button", "copy", "Copy as JSON");
    button.type = "button";
    button.title = "The numbers of this latent by the names of report.json, without its texts";
    button.setAttribute("aria-label", `Copy latent ${latent.i} as JSON`);
    button.addEventListener("click", () => copy(JSON.stringify(latent.r, null, 1), button));
    return button;
  };
  const fill = (latent) => {
    if (latent.isFull) return;
    latent.isFull = true;
    if (latent.d) latent.card.append(...latent.d.slice(1).map(build));
    if (latent.r) one("summary", latent.card).after(copier(latent));
  };
  const card = (latent) => {
    if (latent.card) return latent.card;
    latent.card = document.getElementById(`latent-${latent.i}`);
    if (!latent.card) {
      latent.card = make("details", "latent");
      latent.card.id = `latent-${latent.i}`;
      latent.card.append(build(latent.d[0]));
    }
    latent.card.addEventListener("toggle", () => { if (latent.card.open) fill(latent); });
    if (latent.card.open) fill(latent);
    return latent.card;
  };
  const textOf = (latent) =>
    (latent.text ??= fold(latent.d ? latent.d.map(words).join(" ") : card(latent).textContent).replace(/\s+/g, " "));
  const draw = () => {
    list.replaceChildren(...found.slice(0, n).map(card));
    const left = found.length - Math.min(n, found.length);
    more.hidden = !left;
    more.textContent = `Show ${Math.min(SHOWN_AT_FIRST, left)} more of ${left}`;
    count.textContent = `${found.length} of ${latents.length} latents`;
  };
  const filter = () => {
    const wanted = split(search.value), place = task.value === "" ? null : Number(task.value);
    const share = (latent) => Math.abs((latent.t.find(([at]) => at === place) ?? [0, 0])[1]);
    found = latents.filter((latent) =>
      (!status.value || latent.s === status.value) &&
      (!category.value || latent.c === category.value) &&
      (place === null || latent.t.some(([at]) => at === place)) &&
      (!wanted.length || matches(textOf(latent), wanted)));
    if (place !== null) found = found.slice().sort((a, b) => share(b) - share(a));
    const number = wanted.find((word) => /^\d+$/.test(word));
    const own = found.find((latent) => String(latent.i) === number);  // the latent of that number before those near it
    if (own) found = [own, ...found.filter((latent) => latent !== own)];
    n = SHOWN_AT_FIRST;
    draw();
  };
  search.addEventListener("input", soon(filter));
  for (const select of [status, category, task]) select.addEventListener("change", filter);
  one("#latent-reset").addEventListener("click", () => {
    search.value = status.value = category.value = task.value = "";
    filter();
    search.focus();
  });
  more.addEventListener("click", () => {
    const first = found[n];
    n += SHOWN_AT_FIRST;
    draw();
    one("summary", card(first)).focus();
  });
  for (const link of all("a[data-category]")) {
    link.addEventListener("click", () => {
      search.value = status.value = "";
      category.value = link.dataset.category;
      task.value = Array.from(task.options).find((option) => option.text === link.dataset.task)?.value ?? "";
      filter();
    });
  }
  draw();
  const reveal = (index) => {
    const latent = byIndex.get(index);
    if (!latent) return;
    if (!list.contains(latent.card ?? null)) {
      if (!found.includes(latent)) {
        search.value = status.value = category.value = task.value = "";
        found = latents;
      }
      n = Math.max(n, found.indexOf(latent) + 1);
      draw();
    }
    latent.card.open = true;
    fill(latent);
  };
  const fillShown = () => found.slice(0, n).forEach(fill);
  return { reveal, fillShown };
}

for (const table of all("table[data-sortable]")) sortable(table);
for (const form of all("[data-filters]")) filterable(form);
for (const chart of all("svg.chart")) readable(chart);
for (const button of all("button[data-copy]")) {
  button.addEventListener("click", () => copy(document.getElementById(button.dataset.copy).textContent, button));
}
const list = document.getElementById("latent-list");
const explorer = list && explore(list);

/* Parts are laid out only as they come near, which moves what was scrolled to: for half a second it is kept in view. */
function keepInView(target, frames) {
  const { top } = target.getBoundingClientRect();
  if (top < 0 || top >= innerHeight) target.scrollIntoView();
  if (frames) requestAnimationFrame(() => keepInView(target, frames - 1));
}
/* Links into closed parts open them. */
function arrive(hash, isFocused) {
  let id = "";
  try { id = decodeURIComponent(hash.slice(1)); } catch { return; }
  const latent = /^latent-(\d+)$/.exec(id);
  if (latent) explorer?.reveal(Number(latent[1]));
  const target = id && document.getElementById(id);
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
  keepInView(target, 30);
  if (isFocused && target.tagName === "DETAILS") one("summary", target).focus({ preventScroll: true });
}
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']");
  if (link) setTimeout(() => arrive(link.getAttribute("href"), true));
});
addEventListener("hashchange", () => arrive(location.hash, false));
if (location.hash) arrive(location.hash, false);

/* The contents list shows where one is. */
const places = new Map(all("nav a[href^='#']").map((link) => [document.getElementById(link.hash.slice(1)), link]));
places.delete(null);
const inView = new Set();
const watch = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) isIntersecting ? inView.add(target) : inView.delete(target);
  const here = Array.from(places.keys()).filter((target) => inView.has(target)).pop();
  for (const [target, link] of places) target === here ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
}, { rootMargin: "-15% 0px -75% 0px" });
for (const target of places.keys()) watch.observe(target);

/* On paper everything that the page holds is open. */
let opened = [];
addEventListener("beforeprint", () => {
  explorer?.fillShown();
  opened = all("details:not([open])");
  for (const closed of opened) closed.open = true;
});
addEventListener("afterprint", () => {
  for (const closed of opened) closed.open = false;
});
})();
