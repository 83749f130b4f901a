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
    if (target.dataset.longest) {
      const spare = Number(target.dataset.longest) - [...target.value].length;
      target.setCustomValidity(spare < 0 ? `This is ${-spare} characters too long; ${target.dataset.longest} are the most.` : "");
    }
    if (target.dataset.slides) {
      const field = document.getElementById(target.dataset.slides);
      field.value = target.value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    } else if (target.id === "percentage" && event.isTrusted) {
      const value = Number(target.value.replace(",", "."));
      if (Number.isFinite(value)) find("#slider").value = value;
    }
  });

  // A key that is held acts once: what it acts on next is another question, and perhaps the opposite one.
  document.addEventListener("keydown", (event) => {
    if (event.repeat && ["Enter", " "].includes(event.key) && !event.target.matches("textarea")) event.preventDefault();
  }, true);

  // Opening the stop puts the next key press on the button that does it; opening the restore, on its reason.
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
      if (stop) {
        event.preventDefault();
        stop.parentElement.open = true;
        find("#stop-now").focus();  // not later: the next key may come at once
      }
    } else if (event.key === "?") {
      openDialog(find("#keys"));
    }
  });

  // What is read aloud at once.
  const announce = (text) => {
    const place = find("#announce");
    if (place && place.textContent !== text) place.textContent = text;
  };
  const spoken = (element) => element.textContent.replace(/[■○◔●▲]/g, "").replace(/\s+/g, " ").trim();

  // The title and what is read aloud follow the band; notices that are new and loud are read at once.
  let stopped = null;
  let loud = null;
  const follow = () => {
    const band = find("#band-state");
    if (!band) return;
    const now = band.dataset.mode.startsWith("stopped");
    document.title = (now ? "STOPPED · " : "") + document.title.replace(/^STOPPED · /, "");
    const text = `${spoken(band.querySelector(".badge"))}: ${spoken(find("#sentence"))}`;
    const said = find("#said");
    if (stopped === now && said.dataset.last !== text) said.textContent = text;  // a stop itself is announced
    said.dataset.last = text;
    stopped = now;
    const words = new Map([...document.querySelectorAll("#notices .loud")].map((one) => [spoken(one.querySelector("b")), one]));
    for (const [word, one] of words) if (loud && !loud.has(word)) announce(spoken(one));
    loud = new Set(words.keys());
  };

  // Fragments: a question goes into the dialog, every other answer closes it.
  let acted = false;
  let panel = null;
  const isStop = (element) => element?.dataset?.switch === "stop";
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, requestConfig } = event.detail;
    acted = requestConfig.verb === "post";
    if (isStop(elt)) beginStop(elt);
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { detail } = event;
    const { xhr, requestConfig } = detail;
    const { elt } = requestConfig;
    const ours = [409, 412, 422].includes(xhr.status) || xhr.getResponseHeader("HX-Retarget");
    if (elt.dataset.switch && xhr.status >= 400) {
      detail.shouldSwap = false;
      refuseSwitch(elt, xhr, detail.serverResponse, ours);
      return;
    }
    if (xhr.status >= 400 && !ours) {
      detail.shouldSwap = false;
      unreachable();
    }
    if (detail.target.id === "session" && requestConfig.verb === "get" && detail.target.firstElementChild) detail.shouldSwap = false;
    if (detail.target.id === "stop" && requestConfig.verb === "get") keepPanel(detail);
    if (requestConfig.verb === "post" && detail.target.id !== "ask") closeDialogs();
  });

  // A stop is tried again until the server confirms it. That may be done as often as one likes: stopping what is
  // stopped changes nothing. A restore is never repeated by itself.
  const PAUSES = [1, 2, 4, ...Array(24).fill(5)];  // seconds, about two minutes in all
  const SOON = 2000;  // milliseconds after which it is said that no answer has come
  let stopping = null;
  const beginStop = (form) => {
    stopping ??= { tries: 0 };
    clearTimeout(stopping.again);
    stopping.again = null;
    stopping.silent = false;
    stopping.tries += 1;
    stopping.late = setTimeout(() => unconfirmed(form, "The server has not answered yet."), SOON);
    // A browser keeps six connections to a server: polls that hang must not keep the stop from being sent.
    for (const busy of document.querySelectorAll(".htmx-request")) if (busy !== form) htmx.trigger(busy, "htmx:abort");
  };
  const endStop = () => {
    if (!stopping) return;
    clearTimeout(stopping.late);
    clearTimeout(stopping.again);
    stopping = null;
  };
  const outcome = (form, text, markup) => {
    const place = form.querySelector(".outcome");
    if (markup === undefined) {
      const line = document.createElement("p");
      line.className = "refusal";
      line.append(text);
      if (place.textContent !== text) place.replaceChildren(line);
    } else {
      place.innerHTML = markup;  // our own server's, escaped there
    }
    place.hidden = false;
    form.querySelector(".what").hidden = true;
    announce(place.textContent.trim());
  };
  const unconfirmed = (form, then) => {
    if (document.contains(form)) outcome(form, `▲ Not confirmed: no answer yet. ${then}`);
  };
  const submitStop = () => {
    if (!stopping?.again) return;
    clearTimeout(stopping.again);
    stopping.again = null;
    if (document.contains(stopping.form)) stopping.form.requestSubmit();
  };
  // Say whether the stop will be tried again by itself.
  const stopAgain = (form) => {
    clearTimeout(stopping.late);
    const pause = PAUSES[stopping.tries - 1];
    if (pause === undefined) endStop();
    else {
      stopping.form = form;
      stopping.again = setTimeout(submitStop, pause * 1000);
    }
    return pause !== undefined;
  };
  const switchLost = (form) => {
    if (stopping && isStop(form)) stopping.silent = true;
    if (!isStop(form)) unconfirmed(form, "Look at what stands above before you try again.");
    else if (stopAgain(form)) unconfirmed(form, "The stop is tried again by itself; the ways below need no server.");
    else unconfirmed(form, "It is not tried again by itself: use one of the ways below, or press Stop now once more.");
  };
  const refuseSwitch = (form, xhr, body, ours) => {
    if (!ours) return switchLost(form);
    outcome(form, "", body);
    if (!isStop(form)) return;
    if (xhr.status >= 500) stopAgain(form);
    else endStop();
  };

  // The stop's question keeps its numbers right while it is open, and never loses a reason somebody is writing.
  // Somebody else's stop turns the question round: then it closes, so that no key press means its opposite.
  const keepPanel = (detail) => {
    const open = find("#stop details[open]");
    const turned = !detail.serverResponse.includes(`data-state="${find("#stop").dataset.state}"`);
    panel = null;
    if (turned) {
      endStop();
      panel = { turned, focus: Boolean(open) };
    } else if (open && (stopping || open.querySelector(".outcome:not([hidden])") || open.querySelector("input:not([type=hidden])")?.value)) {
      detail.shouldSwap = false;
    } else if (open) {
      panel = { focused: document.activeElement?.id };
    }
  };
  const reopenPanel = () => {
    const was = panel;
    panel = null;
    if (!was) return;
    if (was.turned) {
      if (was.focus) find("#sentence")?.focus();
      return;
    }
    find("#stop details").open = true;
    if (was.focused) document.getElementById(was.focused)?.focus();
  };
  // What came of an act takes the focus, so that a keyboard or a screen reader goes on from there; of two acts'
  // words only the last are shown. After a stop that is the state's sentence: on a button, one more press would undo it.
  const focusOn = (element) => {
    if (!element) return;
    if (element.tabIndex < 0) element.tabIndex = -1;
    element.focus();
  };
  document.addEventListener("htmx:afterSwap", (event) => {
    const { target, requestConfig } = event.detail;
    follow();
    if (target.id === "stop" && requestConfig.verb === "get") reopenPanel();
    else if (target.matches(".older")) focusOn(find("#entries > ol:last-of-type > li"));
    else if (target.id === "share" && requestConfig.verb === "get") find("#percentage")?.focus();
    if (requestConfig.verb !== "post" || target.id === "ask") return;
    const part = document.getElementById(target.id);
    for (const done of document.querySelectorAll(".done")) if (!part?.contains(done)) done.remove();
    if (target.id === "stop") {
      endStop();
      find("#sentence")?.focus();
    } else {
      focusOn(part?.querySelector(".made, .refusal, .done") ?? part);
    }
  });
  document.addEventListener("htmx:oobAfterSwap", follow);
  // only now htmx knows the form in it
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target.id === "ask") openDialog(event.detail.target);
  });
  const unreachable = () => {
    const banner = find("#offline");
    if (!banner) return;
    if (acted) banner.querySelector("[data-acted]").hidden = false;
    if (!banner.hidden) return;
    banner.querySelector("[data-since]").textContent = `${new Date().toISOString().slice(11, 19)} UTC`;
    banner.hidden = false;
  };
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, (event) => {
      const { elt, requestConfig } = event.detail;
      acted = requestConfig.verb === "post";
      unreachable();
      if (elt.dataset.switch) switchLost(elt);
      else if (acted) {
        closeDialogs();
        announce("Not confirmed: no answer came. Look at what is stored before you try again.");
      }
    });
  }
  document.addEventListener("htmx:afterRequest", (event) => {
    const { successful, xhr, requestConfig } = event.detail;
    if (!successful) return;
    const offline = find("#offline");
    if (offline) offline.hidden = true;
    if (offline && requestConfig.verb === "post") offline.querySelector("[data-acted]").hidden = true;
    find("#session")?.replaceChildren();
    // The server answers again: a stop that waits for it need not wait longer.
    if (stopping?.silent && requestConfig.verb === "get") submitStop();
    // Another session than the one the page was made in: its forms go on with that one's token.
    const token = xhr.getResponseHeader("X-CSRF-Token");
    if (token) for (const field of document.querySelectorAll("input[name=csrf]")) if (field.value !== token) field.value = token;
  });

  // A window that somebody comes back to asks at once: its timers were slowed down, and the session may be another.
  const askNow = () => { if (!document.hidden) htmx.trigger(document.body, "changed"); };
  addEventListener("focus", askNow);
  document.addEventListener("visibilitychange", askNow);

  // What a browser puts back into a form belongs to another list than the one that stands below it.
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-as-served]")) form.reset();
  });

  // A one-time link carries its code behind the `#`, and a code belongs in no history. A link that is opened on the
  // sign-in page itself, as after one that was refused, changes nothing but that: the browser loads no page for it.
  const useLink = () => {
    const code = new URLSearchParams(location.hash.slice(1)).get("code");
    const form = find("#sign-in");
    if (!code) return;
    history.replaceState(null, "", location.pathname + location.search);
    if (!form) return;
    form.elements.code.value = code;
    form.submit();
  };
  addEventListener("hashchange", useLink);

  document.addEventListener("DOMContentLoaded", () => {
    wear();
    follow();
    setInterval(tick, 5000);
    const here = new URL(location.href);
    if (here.searchParams.has("done")) {  // said once
      here.searchParams.delete("done");
      history.replaceState(null, "", here);
    }
    // A second click would end the first request before its cookie is here, and the code would be used up.
    let sent = -Infinity;
    find("#sign-in")?.addEventListener("submit", (event) => {
      if (event.timeStamp < sent + 10000) event.preventDefault();
      else sent = event.timeStamp;
    });
    useLink();
  });
})();
