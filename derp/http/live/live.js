// The live part of /debug/. What changes comes as server-sent events (derp/http/liveevents.py), already
// formatted, and is put in as text, never as HTML.
"use strict";

const RETRY = 10000; // ms between tries while the relay answers otherwise than with events
const KEY = /nodekey:[0-9a-f]{64}/;
const find = (id) => document.getElementById(id);

const table = find("rows");
const rows = new Map([...table.rows].map((row) => [row.dataset.id, row]));
let order = null; // the ids of all rows, while they wait to be put in order

function show(id, text) {
  const element = find(id);
  if (element) element.textContent = text;
}

// A message: {texts, points, status, rows, order}, each part only where it has changed.
function apply(message) {
  for (const [id, text] of Object.entries(message.texts ?? {})) show(id, text);
  for (const [id, points] of Object.entries(message.points ?? {})) {
    find(id)?.setAttribute("points", points);
  }
  for (const [name, lines] of Object.entries(message.status ?? {})) fillStatus(name, lines);
  for (const [id, key, cells] of message.rows ?? []) fillRow(id, key, cells);
  if (message.order) order = message.order;
  arrange();
}

function fillRow(id, key, cells) {
  let row = rows.get(id);
  if (!row) {
    row = find("row").content.firstElementChild.cloneNode(true);
    row.dataset.id = id;
    row.dataset.key = key;
    rows.set(id, row);
    table.append(row);
    dress(row);
  }
  cells.forEach(([main, more], number) => {
    const [first, second] = row.cells[number].children;
    if (first.textContent !== main) first.textContent = main;
    if (second.textContent !== more) second.textContent = more;
  });
}

// Rows don't move while the pointer is on them.
function arrange() {
  if (!order) return;
  const kept = new Set(order);
  for (const [id, row] of rows) {
    if (!kept.has(id)) {
      rows.delete(id);
      row.remove();
    }
  }
  if (table.matches(":hover")) return;
  order.forEach((id, number) => {
    const row = rows.get(id);
    if (row && table.rows[number] !== row) table.insertBefore(row, table.rows[number] ?? null);
  });
  order = null;
}

table.addEventListener("mouseleave", arrange);

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", () => act(made));
  return made;
}

function dress(row) {
  const name = row.cells[0].children[0];
  const made = button("⋯", () => openMore(name.textContent, row.dataset.key, "connected"));
  made.setAttribute("aria-label", "More");
  row.cells[row.cells.length - 1].append(made);
}

function fillStatus(name, lines) {
  const section = document.querySelector(`section[data-name="${CSS.escape(name)}"]`);
  if (!section) return;
  section.hidden = lines.length === 0;
  section.querySelector("ul").replaceChildren(
    ...lines.map(([title, value]) => {
      const line = document.createElement("li");
      const bold = document.createElement("b");
      bold.textContent = `${title}:`;
      line.append(bold, ` ${value}`);
      dressLine(line);
      return line;
    }),
  );
}

// A line that names a key, such as one that was refused, gets buttons.
function dressLine(line) {
  const key = KEY.exec(line.firstElementChild.textContent)?.[0];
  if (!key) return;
  const more = button("⋯", () => openMore("A key that was refused", key, "refused"));
  more.setAttribute("aria-label", "More");
  line.append(" ", button("Copy", (made) => copy(key, made)), " ", more);
}

// The Clipboard API is there over HTTPS and on localhost only.
async function copy(key, made) {
  try {
    await navigator.clipboard.writeText(key);
  } catch {
    const field = document.createElement("textarea");
    field.value = key;
    made.after(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  made.textContent = "Copied";
  setTimeout(() => (made.textContent = "Copy"), 2000);
}

const dialog = find("more");

function openMore(name, key, state) {
  show("who", name);
  show("key", key);
  show("said", "");
  find("token").value = sessionStorage.getItem("token") ?? "";
  dialog.dataset.state = state;
  dialog.showModal();
}

find("copy").addEventListener("click", () => copy(find("key").textContent, find("copy")));
for (const made of dialog.querySelectorAll("[data-action]")) {
  made.addEventListener("click", () => steer(made.dataset.action));
}

// The token is kept for this tab only; it goes into a header, which no other site can have sent.
async function steer(action) {
  const token = find("token").value.trim();
  show("said", "…");
  try {
    const answer = await fetch("/debug/steer", {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
      body: JSON.stringify({ action, key: find("key").textContent }),
    });
    if (answer.ok) sessionStorage.setItem("token", token);
    if (answer.status === 401) sessionStorage.removeItem("token");
    show("said", await answer.text());
  } catch (error) {
    show("said", `The relay can't be reached: ${error.message}`);
  }
}

let source = null;

function showState(text, live = false) {
  show("state", text);
  find("state").toggleAttribute("data-live", live);
}

function connect() {
  source?.close();
  source = null;
  if (document.hidden) return;
  source = new EventSource(`/debug/events${location.search}`);
  const own = source;
  own.onopen = () => showState("live", true);
  own.onmessage = (event) => apply(JSON.parse(event.data));
  own.addEventListener("busy", (event) => {
    own.close();
    showState(event.data);
    setTimeout(() => own === source && connect(), RETRY);
  });
  own.onerror = () => {
    showState("not live: the relay does not answer");
    if (own.readyState === EventSource.CLOSED) setTimeout(() => own === source && connect(), RETRY);
  };
}

for (const row of rows.values()) dress(row);
for (const line of document.querySelectorAll(".status li")) dressLine(line);
document.addEventListener("visibilitychange", connect);
connect();
