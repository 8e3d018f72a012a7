// Shows the effect of the rule in the form, which is not saved, below it; and again after changes.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("rule-preview-button");
  const place = document.getElementById("rule-preview");
  if (!button || !place) {
    return;
  }
  const form = button.form;
  const WAIT_MS = 800;
  let asked = null;
  let timer = null;

  const show = async () => {
    asked?.abort();
    asked = new AbortController();
    place.hidden = false;
    place.setAttribute("aria-busy", "true");
    place.style.opacity = "0.5";
    try {
      const answer = await fetch(button.formAction, {
        method: "POST",
        body: new FormData(form),
        headers: { "X-Requested-With": "fetch" },
        signal: asked.signal,
      });
      if (!answer.ok) {
        throw new Error(`The server answers ${answer.status}.`);
      }
      // A page of our own server, in which every value is escaped.
      place.innerHTML = await answer.text();
    } catch (error) {
      if (error.name === "AbortError") {
        return;
      }
      place.textContent = `There is no preview. ${error.message}`;
    }
    place.style.opacity = "";
    place.removeAttribute("aria-busy");
  };

  button.addEventListener("click", (event) => {
    event.preventDefault();
    show();
  });
  form.addEventListener("input", () => {
    // Once it was asked for, it follows what is typed.
    if (!place.hidden) {
      clearTimeout(timer);
      timer = setTimeout(show, WAIT_MS);
    }
  });
});
