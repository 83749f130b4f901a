// The pages work without this file; it adds the theme, keys, dialogs and copying.
// It runs in the head, before anything is drawn, so that a chosen theme never flashes.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const remembered = () => {
    try { return localStorage.getItem("rollout-theme"); } catch { return null; }
  };
  const themes = ["auto", "light", "dark"];
  let theme = themes.includes(remembered()) ? remembered() : "auto";
  const wear = () => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-switch]")) button.textContent = `Theme: ${theme}`;
  };
  wear();

  const find = (selector) => document.querySelector(selector);
  const openDialog = (dialog) => { if (dialog && !dialog.open) dialog.showModal(); };
  const closeDialogs = () => { for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close(); };

  // What the server's words say, again while a page stays open.
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const lasting = (at, now) => {
    const seconds = Math.floor((now - at) / 1000);
    const [unit, name] = units.find(([size]) => seconds >= size) ?? [1, null];
    return name ? `${Math.floor(seconds / unit)} ${name}` : "a moment";
  };
  const relative = (at, now) => {
    const seconds = (now - at) / 1000;
    const distance = Math.abs(seconds);
    if (distance < 5) return "just now";
    if (distance >= 30 * 86400) return null;
    const [unit, name] = units.find(([size]) => distance >= size);
    const text = `${Math.floor(distance / unit)} ${name}`;
    return seconds > 0 ? `${text} ago` : `in ${text}`;
  };
  const tick = () => {
    for (const time of document.querySelectorAll("time[data-relative]")) {
      const say = time.dataset.relative === "for" ? lasting : relative;
      const text = say(Date.parse(time.dateTime), Date.now());
      if (text && time.textContent !== text) time.textContent = text;
    }
  };

  const copy = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    const said = button.firstChild;
    try {
      await navigator.clipboard.writeText(source.textContent);
      said.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      said.textContent = "Selected";
    }
    setTimeout(() => { said.textContent = "Copy"; }, 2000);
  };

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-copy], [data-open], [data-close], [data-theme-switch]");
    for (const open of document.querySelectorAll("details.drop[open]")) {
      if (!open.contains(event.target)) open.open = false;
    }
    if (!target) return;
    if (target.dataset.copy) copy(target);
    else if (target.dataset.open) openDialog(document.getElementById(target.dataset.open));
    else if ("close" in target.dataset) {
      const dialog = target.closest("dialog");
      if (dialog) { event.preventDefault(); dialog.close(); }
    } else {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      try { localStorage.setItem("rollout-theme", theme); } catch { /* then it lasts until the next page */ }
      wear();
    }
  });

  // The slider and the exact field are one value; the field is what a form sends.
  document.addEventListener("input", (event) => {
    const { target } = event;
    if (target.dataset.slides) {
      const field = document.getElementById(target.dataset.slides);
      field.value = target.value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    } else if (target.id === "percentage" && event.isTrusted) {
      const value = Number(target.value.replace(",", "."));
      if (Number.isFinite(value)) find("#slider").value = value;
    }
  });

  // Opening the stop or the restore puts the next key press on the button that does it.
  document.addEventListener("toggle", (event) => {
    const { target } = event;
    if (!target.matches("details.drop") || !target.open) return;
    if (!target.querySelector(".panel")?.contains(document.activeElement)) target.querySelector("[data-first]")?.focus();
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      for (const open of document.querySelectorAll("details.drop[open]")) {
        open.open = false;
        open.querySelector("summary").focus();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || find("dialog[open]")) return;
    if (event.target.closest("input:not([type=range]), select, textarea, [contenteditable]")) return;
    if (event.key === "/") {
      const search = find("[data-search]") ?? find("#w-user");
      if (search) { event.preventDefault(); search.focus(); }
    } else if (event.key.toLowerCase() === "k") {
      const stop = find("[data-stop]");
      if (stop) { event.preventDefault(); stop.parentElement.open = true; }
    } else if (event.key === "?") {
      openDialog(find("#keys"));
    }
  });

  // Fragments: a question goes into the dialog, every other answer closes it.
  let acted = false;
  let panel = null;
  document.addEventListener("htmx:beforeRequest", (event) => {
    acted = event.detail.requestConfig.verb === "post";
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    const ours = [409, 412, 422].includes(xhr.status) || xhr.getResponseHeader("HX-Retarget");
    if (xhr.status >= 400 && !ours) {
      event.detail.shouldSwap = false;
      unreachable();
    }
    if (event.detail.target.id === "stop" && event.detail.requestConfig.verb === "get") keepPanel(event.detail);
    if (event.detail.requestConfig.verb === "post" && event.detail.target.id !== "ask") closeDialogs();
  });
  // The stop's question keeps its numbers right while it is open, and never loses a reason somebody is writing.
  // Somebody else's stop turns the question round: then it closes, so that no key press means its opposite.
  const keepPanel = (detail) => {
    const open = find("#stop details[open]");
    panel = null;
    if (!open) return;
    if (open.querySelector("input:not([type=hidden])")?.value) detail.shouldSwap = false;
    else panel = { state: find("#stop").dataset.state, focused: document.activeElement?.id };
  };
  const reopenPanel = () => {
    const was = panel;
    panel = null;
    if (!was) return;
    if (was.state !== find("#stop").dataset.state) return void find("#stop summary")?.focus();
    find("#stop details").open = true;
    if (was.focused) document.getElementById(was.focused)?.focus();
  };
  // What came of an act takes the focus, so that a keyboard or a screen reader goes on from there; of two acts'
  // words only the last are shown.
  const focusOn = (element) => {
    if (!element) return;
    if (element.tabIndex < 0) element.tabIndex = -1;
    element.focus();
  };
  document.addEventListener("htmx:afterSwap", (event) => {
    const { target, requestConfig } = event.detail;
    if (target.id === "stop" && requestConfig.verb === "get") reopenPanel();
    else if (target.matches(".older")) focusOn(find("#entries > ol:last-of-type > li"));
    if (requestConfig.verb !== "post" || target.id === "ask") return;
    const part = document.getElementById(target.id);
    for (const done of document.querySelectorAll(".done")) if (!part?.contains(done)) done.remove();
    if (target.id === "stop") find("#stop summary")?.focus();
    else focusOn(part?.querySelector(".made, .refusal, .done") ?? part);
  });
  // only now htmx knows the form in it
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target.id === "ask") openDialog(event.detail.target);
  });
  const unreachable = () => {
    const banner = find("#offline");
    if (!banner?.hidden) return;
    banner.querySelector("[data-since]").textContent = new Date().toLocaleTimeString();
    banner.hidden = false;
  };
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, () => { unreachable(); if (acted) closeDialogs(); });
  }
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful && find("#offline")) find("#offline").hidden = true;
  });

  document.addEventListener("DOMContentLoaded", () => {
    wear();
    setInterval(tick, 5000);
    const here = new URL(location.href);
    const code = new URLSearchParams(here.hash.slice(1)).get("code");
    if (here.searchParams.has("done") || code) {
      // said once; and a code belongs into no history
      here.searchParams.delete("done");
      if (code) here.hash = "";
      history.replaceState(null, "", here);
    }
    const form = find("#sign-in");
    if (form && code) {
      form.elements.code.value = code;
      form.submit();
    }
  });
})();
