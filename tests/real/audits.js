// What tests ask of every page of the portal; added to each before its own scripts run.
"use strict";

const isHidden = (one) =>
  !one.checkVisibility() || one.closest("[aria-hidden=true]") !== null || one.type === "hidden";
const all = (selector) => [...document.querySelectorAll(selector)].filter((one) => !isHidden(one));
const CONTROLS = "a[href], button, summary, input, select, textarea";
const LARGE = "button, .button, select, summary, nav a, textarea, input:not([type=checkbox], [type=radio])";

window.audit = {
  // How much wider than the window the page is, and what reaches past its edge outside of what scrolls by itself.
  overflow: () => [
    document.documentElement.scrollWidth - document.documentElement.clientWidth,
    all("body *")
      .filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1)
      .filter((one) => !one.closest(".scrolls, pre, .skip"))
      .map((one) => one.outerHTML.slice(0, 80)),
  ],
  nameless: () =>
    all(CONTROLS)
      .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
      .map((one) => one.outerHTML),
  // What is to be pressed, and is out of sight until somebody scrolls sideways.
  aside: () =>
    all(CONTROLS)
      .filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1 && !one.closest(".skip"))
      .map((one) => one.outerHTML),
  // Words that stand out from what is behind them by less than WCAG's AA asks.
  faint: () => {
    // The browser itself says what a colour is in red, green, blue and how solid.
    const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const colour = (text) => {
      brush.clearRect(0, 0, 1, 1);
      brush.fillStyle = text;
      brush.fillRect(0, 0, 1, 1);
      return [...brush.getImageData(0, 0, 1, 1).data];
    };
    const light = ([red, green, blue]) => {
      const [r, g, b] = [red, green, blue].map((part) => {
        const share = part / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (one) => {
      for (let at = one; at; at = at.parentElement) {
        const found = colour(getComputedStyle(at).backgroundColor);
        if (found[3] === 255) return found;
      }
      return colour(getComputedStyle(document.body).backgroundColor);
    };
    const words = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return all("body *")
      .filter((one) => words(one) || one.matches("input, select"))
      .filter((one) => !one.disabled && !one.closest("script, option, svg"))
      .map((one) => {
        const style = getComputedStyle(one);
        const [front, back] = [light(colour(style.color)), light(ground(one))];
        const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        return [ratio, isLarge ? 3 : 4.5, one.outerHTML.slice(0, 80)];
      })
      .filter(([ratio, least]) => ratio < least)
      .map(([ratio, , one]) => `${ratio.toFixed(2)} ${one}`);
  },
  // One heading of the page, a place to skip to, ids that are there once, and what they are pointed at with.
  frame: () => {
    const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
    const twice = ids.filter((id, at) => ids.indexOf(id) !== at);
    const pointers = ["for", "aria-describedby", "aria-labelledby", "popovertarget"];
    const lost = pointers.flatMap((name) =>
      [...document.querySelectorAll(`[${name}]`)]
        .flatMap((one) => one.getAttribute(name).split(/\s+/))
        .filter((id) => id && !ids.includes(id)),
    );
    return [document.querySelectorAll("h1").length, document.querySelectorAll("main#main").length, twice, lost];
  },
  small: () =>
    all(LARGE).filter((one) => one.getBoundingClientRect().height < 44).map((one) => one.outerHTML),
  // Of radio buttons of a name the chosen one, or the first, is a stop of the tab key.
  stops: () =>
    all(`${CONTROLS}, [tabindex="0"]`)
      .filter((one) => !one.disabled && one.tabIndex >= 0)
      .filter((one) => {
        if (one.type !== "radio") return true;
        const group = [...one.form.elements[one.name]];
        return one === (group.find((other) => other.checked) ?? group[0]);
      }).length,
  start: () => {
    document.body.tabIndex = -1;
    document.body.focus();
  },
  focused: () => {
    const one = document.activeElement;
    if (one === document.body) return [document.querySelectorAll("[data-seen]").length, true, ""];
    one.dataset.seen = "1";
    const unseen = getComputedStyle(one).outlineStyle === "none" ? one.outerHTML : "";
    return [document.querySelectorAll("[data-seen]").length, false, unseen];
  },
};
