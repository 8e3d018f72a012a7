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
