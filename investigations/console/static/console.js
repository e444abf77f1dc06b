// What pages do beyond links and forms. Everything works without it.
"use strict";

document.documentElement.classList.add("js");

function typing(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

// "/" to the search box, "n" on to the next page, "e" to fold or unfold everything.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.key === "Escape" && event.target instanceof HTMLInputElement && event.target.dataset.search !== undefined) {
    event.target.blur();
    return;
  }
  if (typing(event.target)) return;
  if (event.key === "/") {
    const box = document.querySelector("main [data-search]") || document.querySelector("[data-search]");
    if (box) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  } else if (event.key === "n") {
    const next = document.querySelector("[data-next]");
    if (next) next.click();
  } else if (event.key === "e") {
    const all = [...document.querySelectorAll("main details:not([data-keep])")];
    const open = all.some((each) => !each.open);
    for (const each of all) each.open = open;
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (!button) return;
  const from = document.getElementById(button.dataset.copy);
  if (!from) return;
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(from.dataset.text || from.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(from);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = said; }, 1500);
});

// The live tail: rows come ready from the server, and only so many stay.
const tail = document.querySelector("[data-live]");
if (tail && "EventSource" in window) {
  const said = document.querySelector("[data-live-said]");
  const button = document.querySelector("[data-live-pause]");
  const most = Number(tail.dataset.liveMost);
  let source = null;
  let from = tail.dataset.live;

  const stop = (words) => {
    if (source) source.close();
    source = null;
    said.textContent = words;
    button.textContent = "Go on";
    button.setAttribute("aria-pressed", "true");
  };
  const start = () => {
    source = new EventSource(from);
    button.textContent = "Pause";
    button.setAttribute("aria-pressed", "false");
    source.onopen = () => { said.textContent = "Watching."; };
    source.onerror = () => { said.textContent = "The stream broke off; trying again …"; };
    source.onmessage = (event) => {
      if (event.lastEventId) from = from.replace(/from=\d+/, "from=" + event.lastEventId);
      const empty = document.querySelector("[data-live-empty]");
      if (empty) empty.remove();
      const holder = document.createElement("template");
      holder.innerHTML = event.data;
      for (const row of [...holder.content.querySelectorAll("tr")]) {
        row.classList.add("fresh");
        tail.prepend(row);
      }
      while (tail.rows.length > most) tail.deleteRow(-1);
    };
    source.addEventListener("left_out", () => { said.textContent = "Watching; more came than is shown."; });
    source.addEventListener("ended", () => { stop("Your session has ended."); location.reload(); });
  };
  button.addEventListener("click", () => (source ? stop("Paused.") : start()));
  addEventListener("pagehide", () => { if (source) source.close(); });
  start();
}

// A part of a page that moves by itself is fetched anew, until it comes without the wish to be.
function refresh(part) {
  setTimeout(async () => {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (answer.redirected) {
        location.assign(answer.url);
        return;
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
      if (!answer.ok || !fresh) return;
      const next = document.importNode(fresh, true);
      const focused = part.contains(document.activeElement);
      part.replaceWith(next);
      if (focused) next.querySelector("a, button, input")?.focus();
      if (next.dataset.refresh) refresh(next);
      else if (next.dataset.then !== "stay") location.reload();
    } catch {
      refresh(part);
    }
  }, Number(part.dataset.refresh));
}
for (const part of document.querySelectorAll("[data-refresh]")) refresh(part);
