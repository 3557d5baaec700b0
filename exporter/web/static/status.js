// Keeps the page current: fetches it anew and changes only what differs, so that focus, selection and scroll stay.
"use strict";

const PERIOD = 5000;
const PATIENCE = 15000;
const TYPING = 150;
const lost = document.getElementById("lost");
let known = new Date();
let timer;
let latest;

async function update() {
  clearTimeout(timer);
  latest?.abort();
  latest = undefined;
  if (document.hidden) return; // to look is to ask the API: who does not look shall not ask
  const mine = (latest = new AbortController());
  const impatience = setTimeout(() => mine.abort(), PATIENCE);
  try {
    const url = location.origin + location.pathname + location.search; // without a password that href may hold
    const response = await fetch(url, { cache: "no-store", signal: mine.signal });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!response.ok || !page.getElementById("tasks")) throw new Error(`HTTP ${response.status}`);
    if (mine !== latest) return;
    show(page);
    known = new Date();
    tell("");
  } catch {
    if (mine !== latest) return; // a newer one has taken its place
    tell(lost.dataset.text.replace("{}", known.toLocaleTimeString(document.documentElement.lang)));
  } finally {
    clearTimeout(impatience);
  }
  timer = setTimeout(update, PERIOD);
}

function tell(text) {
  if (lost.textContent !== text) lost.textContent = text;
  document.body.classList.toggle("lost", text !== "");
}

function show(page) {
  const style = (each) => each.querySelector("link[rel=stylesheet]").getAttribute("href");
  if (style(page) !== style(document)) location.reload(); // another version of the exporter
  const focused = document.activeElement;
  document.title = page.title;
  for (const part of ["#news", "main"]) morph(document.querySelector(part), page.querySelector(part));
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

// Makes `old` like `wanted`. Elements with an id are recognised wherever they have gone.
function morph(old, wanted) {
  if (old.isEqualNode(wanted)) return;
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  let at = old.firstChild;
  for (const child of [...wanted.childNodes]) {
    let same = (child.id && document.getElementById(child.id)) || at;
    if (!same || same.nodeName !== child.nodeName || (same.id ?? "") !== (child.id ?? "")) {
      same = old.insertBefore(document.importNode(child), at); // hollow: what belongs in it may be known
    } else if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same.nodeType === Node.ELEMENT_NODE) morph(same, child);
    else if (same.data !== child.data) same.data = child.data;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

document.body.classList.add("scripted");
document.addEventListener("visibilitychange", update);
document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filter").addEventListener("input", (event) => {
  history.replaceState(null, "", `?${new URLSearchParams({ q: event.target.value })}`);
  clearTimeout(timer);
  timer = setTimeout(update, TYPING);
});
timer = setTimeout(update, PERIOD);
